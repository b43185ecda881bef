"""What the study's users see: fresh answers of the base, with what every expert says of them.

The answers are to training prompts, but they are not the rollouts that experts learned from: an
expert says of its own training answers more than it knows. The gold rules give every user's
utility of every answer; that is used to simulate what the user says, and nowhere else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from palate.core.files import read_json, write_json
from palate.core.plan import reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored
from palate.library.features import log_ratios, sample_states, scored_text
from palate.library.folder import LibraryFolder
from palate.models.chat import format_messages
from palate.models.load import Base
from palate.preferences.simulated import SimulatedUser
from palate.soup.states import States
from research.soup.library import feedback_prompts
from research.world.gold import gold_rewards
from research.world.prompts import MAX_ANSWER_TOKENS

N_ANSWERS = 4  # per prompt
N_STATES = 300
LABEL_GAIN = 10.0  # log-odds per unit of utility: the default annotator's temperature of 0.1


@dataclass(frozen=True, eq=False)
class AnswerPool:
    """Answers that users can be asked about.

    Attributes:
        prompts: `[answers]`.
        texts: `[answers]`.
        prompt_index: `[answers]`, which prompt; answers to one prompt differ.
        gold: `[answers, objectives]`.
        log_ratios: `[answers, experts]`, nats, of the basis.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    prompt_index: Int[ndarray, " answers"]
    gold: Float[ndarray, "answers objectives"]
    log_ratios: Float[ndarray, "answers experts"]


@dataclass(frozen=True, eq=False)
class Votes:
    """What simulated users said.

    Attributes:
        first: `[users, comparisons]`, index into the pool.
        second: `[users, comparisons]`, another answer to the same prompt.
        labels: `[users, comparisons]`, 1 where the first was preferred, 0 otherwise.
    """

    first: Int[ndarray, "users comparisons"]
    second: Int[ndarray, "users comparisons"]
    labels: Float[ndarray, "users comparisons"]

    def of_first(self, n_comparisons: int) -> "Votes":
        """What was said up to there."""
        part = slice(None, n_comparisons)
        return Votes(self.first[:, part], self.second[:, part], self.labels[:, part])

    def differences(
        self, features: Float[ndarray, "answers features"]
    ) -> Float[ndarray, "users comparisons features"]:
        """Features of the first answers minus those of the second."""
        return features[self.first] - features[self.second]


def make_pool(
    path: Path, *, base: Base, library: LibraryFolder, experts: tuple[str, ...], seed: int
) -> AnswerPool:
    """The pool in the file, or a new one written there."""
    if path.is_file():
        return load_pool(path)
    prompts = feedback_prompts()
    engine = LocalEngine(base, AdapterBank(base, {}))
    asked = [(place, copy) for place in range(len(prompts)) for copy in range(N_ANSWERS)]
    answers = engine.generate(
        [
            Request(
                format_messages(base, prompts[place]),
                reference_plan(n_experts=0),
                SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
                seed=derive_seed(seed, "soup study", "shown", prompts[place], copy),
            )
            for place, copy in asked
        ]
    )
    pairs = zip(asked, answers, strict=True)
    shown = list(dict.fromkeys((place, a.text) for (place, _), a in pairs if a.finish == "stop"))
    items = [scored_text(base, prompts[place], text) for place, text in shown]
    folders = {name: library.expert_folder(name) for name in experts}
    with progress_of("score shown answers, experts") as report:
        ratios = log_ratios(base, folders, items, on_step=report)
    content = {
        "prompts": [prompts[place] for place, _ in shown],
        "texts": [text for _, text in shown],
        "prompt_index": [place for place, _ in shown],
        "log_ratios": ratios,
    }
    write_json(path, content)
    return load_pool(path)


def load_pool(path: Path) -> AnswerPool:
    """The pool in the file."""
    content = read_json(path, what="pool of answers")
    return AnswerPool(
        tuple(content["prompts"]),
        tuple(content["texts"]),
        np.array(content["prompt_index"]),
        gold_rewards(content["texts"]),
        np.array(content["log_ratios"]),
    )


def pool_states(base: Base, bank: AdapterBank, pool: AnswerPool, *, seed: int) -> States:
    """States that the base passed through in the pool's answers."""
    items: list[Scored] = [
        scored_text(base, prompt, text)
        for prompt, text in zip(pool.prompts[:N_STATES], pool.texts[:N_STATES], strict=True)
    ]
    generator = generator_for(seed, "soup study", "states")
    return sample_states(base, bank, items, n_states=N_STATES, generator=generator)


def simulate_votes(
    pool: AnswerPool,
    preferences: Float[ndarray, "users objectives"],
    *,
    n_comparisons: int,
    generator: np.random.Generator,
) -> Votes:
    """Comparisons of two different answers to one prompt, labelled by each user's utility.

    Args:
        pool: What can be shown.
        preferences: `[users, objectives]`; the utility of an answer is `preference . gold`.
        n_comparisons: Per user.
        generator: Source of what is shown and of labels.
    """
    answers_of = [np.flatnonzero(pool.prompt_index == at) for at in np.unique(pool.prompt_index)]
    answers_of = [found for found in answers_of if len(found) > 1]
    first = np.zeros((len(preferences), n_comparisons), dtype=int)
    second = np.zeros_like(first)
    labels = np.zeros(first.shape)
    for user, preference in enumerate(preferences):
        somebody = SimulatedUser(preference, gain=LABEL_GAIN)
        for place in range(n_comparisons):
            answers = answers_of[generator.integers(len(answers_of))]
            one, other = generator.choice(answers, size=2, replace=False)
            first[user, place], second[user, place] = one, other
            labels[user, place] = somebody.compare(
                pool.gold[one] - pool.gold[other], generator=generator
            )
    return Votes(first, second, labels)
