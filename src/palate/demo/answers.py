"""The demo's answers: every decision is `Library.decide`'s, and no answer is sampled twice."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from palate.core.decision import AUTO, Decision, Known, last_user_text
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.demo.report import DemoUser
from palate.library.generate import Output, generate_all
from palate.library.library import Library

MAX_TOKENS = 90  # of an answer
BASE, PROMPT = "base", "prompt"
_BATCH = 64  # answers between two lines of progress
Place = tuple[str, str, str]  # method, name of the user (empty for the base), prompt


class Writer:
    """Samples answers in batches and keeps them; equal plans give one answer to a prompt."""

    def __init__(self, library: Library, *, seed: int) -> None:
        """Nothing is sampled yet."""
        self.library = library
        self.seed = seed
        self.sampling = replace(library.sampling, max_tokens=MAX_TOKENS)  # as users are served
        self._written: dict[Hashable, Output] = {}

    def write(
        self, decisions: Sequence[Decision], *, name: str, max_tokens: int = MAX_TOKENS
    ) -> list[Output]:
        """The answers of these decisions, in order; `name` is what the progress line says."""
        sampling = replace(self.sampling, max_tokens=max_tokens)
        keys = [self._key(decision, sampling) for decision in decisions]
        new = {
            key: decision
            for key, decision in zip(keys, decisions, strict=True)
            if key not in self._written
        }
        with progress_of(name) as report:
            for start in range(0, len(new), _BATCH):
                part = dict(list(new.items())[start : start + _BATCH])
                outputs = generate_all(
                    self.library,
                    list(part.values()),
                    sampling=sampling,
                    seeds=[self.seed_of(last_user_text(one.prompt)) for one in part.values()],
                )
                self._written.update(zip(part, outputs, strict=True))
                report(start + len(part), len(new))
        return [self._written[key] for key in keys]

    def seed_of(self, prompt: str) -> int:
        """Seed of every answer to this prompt, the same for all users and methods."""
        return derive_seed(self.seed, "demo", prompt)

    def _key(self, decision: Decision, sampling: SamplingParams) -> Hashable:
        ranking = (*decision.ranking.items(), *decision.learned_ranking.items())
        text = self.library.format(decision.messages)
        return text, decision.plan.normal_form(), decision.n_candidates, ranking, sampling


def answer_users(
    writer: Writer, users: Sequence[DemoUser], prompts: Sequence[str]
) -> dict[Place, Output]:
    """What every user gets to every prompt, beside the base and a system prompt.

    The system prompt is left out where the library's objectives have no words.
    """
    library, decisions = writer.library, dict[Place, Decision]()
    for prompt in prompts:
        decisions[BASE, "", prompt] = library.decide(prompt, method=BASE)
        for user in users:
            known = Known(preference=user.preference)
            decisions[AUTO, user.name, prompt] = library.decide(prompt, known)
            if library.instruction(known):
                decided = library.decide(prompt, known, method=PROMPT)
                decisions[PROMPT, user.name, prompt] = decided
    outputs = writer.write(list(decisions.values()), name="answers to users")
    return dict(zip(decisions, outputs, strict=True))
