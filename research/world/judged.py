"""Answers of several methods to the same prompts of the small world, judged by the gold rules.

All answer the same prompts with the same seeds, so differences are paired. The gold rules
read the text alone and taught nobody: reward models learn from simulated annotators.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from palate.core.decision import Known
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.library.generate import generate_all
from palate.library.library import Library
from research.world.gold import gold_rewards
from research.world.grammar import parse

MAX_TOKENS = 128  # no answer of the grammar is longer
Entry = tuple[Known, str]  # what is known of a user, and the method
Advance = Callable[[int], None]  # gets the number of answers that were just done


@dataclass(frozen=True, eq=False)
class Judged:
    """One entry's answers and what they are worth.

    Attributes:
        texts: `[answers]`, as the model wrote them.
        gold: `[answers, 6]` in [0, 1].
        is_well_formed: `[answers]`, whether the grammar gives this answer to this prompt.
        prompt: `[answers]`, index of the prompt, for paired and clustered statistics.
    """

    texts: tuple[str, ...]
    gold: Float[ndarray, "answers objectives"]
    is_well_formed: Bool[ndarray, " answers"]
    prompt: Int[ndarray, " answers"]


def judge_entries(
    library: Library,
    entries: Mapping[str, Entry],
    prompts: Sequence[str],
    *,
    n_per_prompt: int = 1,
    seed: int = 0,
    on_answers: Advance | None = None,
) -> dict[str, Judged]:
    """Every entry's answers to the prompts at temperature 1, judged.

    Args:
        library: Decides and answers.
        entries: By name: what is known of the user, and the method.
        prompts: As users write them.
        n_per_prompt: Answers per prompt and entry.
        seed: The same for all entries.
        on_answers: Called with the number of answers that are done, for progress bars.
    """
    places = [(place, copy) for place in range(len(prompts)) for copy in range(n_per_prompt)]
    index = np.array([place for place, _ in places])
    judged: dict[str, Judged] = {}
    for name, (known, method) in entries.items():
        decisions = [library.decide(prompt, known, method=method) for prompt in prompts]
        outputs = generate_all(
            library,
            [decisions[place] for place, _ in places],
            sampling=SamplingParams(max_tokens=MAX_TOKENS),
            seeds=[derive_seed(seed, prompts[place], copy) for place, copy in places],
        )
        texts = tuple(output.text for output in outputs)
        judged[name] = judge_texts([prompts[place] for place, _ in places], texts, prompt=index)
        if on_answers is not None:
            on_answers(len(texts))
    return judged


def judge_texts(
    prompts: Sequence[str], texts: Sequence[str], *, prompt: Int[ndarray, " answers"]
) -> Judged:
    """Given answers, judged."""
    pairs = zip(prompts, texts, strict=True)
    is_well_formed = np.array([parse(asked, text).answer is not None for asked, text in pairs])
    return Judged(tuple(texts), gold_rewards(texts), is_well_formed, prompt)
