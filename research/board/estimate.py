"""About how long a board takes, printed before it begins.

Rates are of SmolLM2-135M on one core of a shared cloud machine, in batches: 390 sampled and 800
scored tokens a second; small batches sample slower. Other bases and machines differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from research.board.entrant import Entrant
from research.board.loras import CONDITIONED, EVERYBODY
from research.board.work import Board, Job, libraries_of

SAMPLED, SCORED, TRAINED = 390.0, 800.0, 120.0  # tokens a second and core; trained in float32
EXPERTS = 0.6  # of the base's rate, where a pass adds experts to every layer
THREADS = 0.6  # of a core that each further thread of one process is worth
FULL_BATCH = 32  # answers of one job from which sampling has the full rate
FILL = 0.8  # of the longest answer that answers have on average
FIRST_STEP = 45.0  # seconds that an adapter's first step takes longer than the others
PROMPT, TURN, EXAMPLE = 60, 110, 150  # tokens of a prompt, an earlier turn, a shown comparison
N_NEUTRAL = 400  # tokens of the neutral texts


@dataclass(frozen=True)
class Estimate:
    """Seconds of one core by part."""

    preparing: float  # answers that are compared, their features, users in the store
    adapters: float  # the rivals' training
    answering: float
    facts: float

    def minutes(self, n_workers: int) -> float:
        """Wall clock: processes share the answers, one of so many threads does the rest."""
        alone = self.preparing + self.adapters + self.facts
        return (alone / (1 + THREADS * (n_workers - 1)) + self.answering / n_workers) / 60

    def sentence(self, n_workers: int, n_jobs: int) -> str:
        """For the user."""
        parts = ", ".join(f"{name} {value / 60:.0f}" for name, value in vars(self).items())
        return (
            f"{n_jobs} jobs are missing; about {self.minutes(n_workers):.0f} minutes on "
            f"{n_workers} idle core{'s' if n_workers > 1 else ''} (minutes of one core: {parts})."
        )


def estimate(board: Board, some: Sequence[Entrant], jobs: Sequence[Job]) -> Estimate:
    """What is missing, in seconds of one core."""
    named = {one.name: one for one in some}
    settings = board.settings
    answer = FILL * settings.max_tokens
    answering = 0.0
    for job in jobs:
        entrant, cases = named[job.method], board.parts(job.library).cases(job.method)
        batch = len(cases) * entrant.passes
        rate = SAMPLED * min(1.0, 0.3 + 0.7 * batch / FULL_BATCH)
        rate *= EXPERTS if entrant.is_trained else 1.0
        read = sum(PROMPT + TURN * case.turns for case in cases)
        if entrant.name.startswith("examples@"):
            read += EXAMPLE * entrant.n_comparisons
        answering += len(cases) * entrant.passes * answer / rate + read / SCORED
    learns = {one.n_comparisons for one in some if "comparisons" in one.knows} | {
        settings.most_comparisons for one in some if one.adapters
    }
    n_libraries = len(settings.libraries)
    preparing = adapters = 0.0
    if learns:
        n_answers = 4 * settings.n_pool_prompts
        preparing += n_libraries * n_answers * answer / SAMPLED
        if any(one.is_learned for one in some):
            n_experts = len(board.parts(0).library.manifest.experts)
            preparing += n_libraries * n_answers * (1 + n_experts) * (PROMPT + answer) / SCORED
    for name in dict.fromkeys(one.adapters for one in some if one.adapters):
        adapters += n_libraries * _training(board, name, answer)
    measured = sum(len(libraries_of(board, one)) * one.passes for one in some)
    facts = measured * settings.n_capability_users * N_NEUTRAL / (SCORED / 2)
    return Estimate(preparing, adapters, answering, facts)


def _training(board: Board, name: str, answer: float) -> float:
    """Seconds to train the adapters of one build."""
    settings = board.settings
    if name in (EVERYBODY, CONDITIONED):
        n_pairs, n_adapters = settings.most_comparisons * settings.n_users, 1
    else:
        n_pairs, n_adapters = int(name.removeprefix("own-")), settings.n_lora_users
    n_visits = settings.lora.n_steps(n_pairs) * settings.lora.batch
    return n_adapters * (FIRST_STEP + n_visits * 2 * (PROMPT + answer) / TRAINED)
