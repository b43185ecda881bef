"""Answers of several plans to the same prompts of the small world, judged by the gold rules.

All plans answer the same prompts with the same seeds, so differences are paired. The gold rules
read the text alone
and taught nobody: reward models learn from simulated annotators.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from palate.core.plan import Plan
from palate.core.protocols import Engine, Request, Sampling
from palate.core.seeds import derive_seed
from palate.world.gold import gold_rewards
from palate.world.grammar import parse
from palate.world.prompts import format_prompt

MAX_TOKENS = 128  # no answer of the grammar is longer
Advance = Callable[[int], None]  # told how many more answers are done


@dataclass(frozen=True, eq=False)
class Judged:
    """A plan's answers and what they are worth.

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


def judge_plans(
    engine: Engine,
    plans: Mapping[str, Plan],
    prompts: Sequence[str],
    *,
    n_per_prompt: int = 1,
    seed: int = 0,
    on_answers: Advance | None = None,
) -> dict[str, Judged]:
    """Every plan's answers to the prompts at temperature 1, judged.

    Args:
        engine: Answers.
        plans: By name.
        prompts: As people write them.
        n_per_prompt: Answers per prompt and plan.
        seed: The same for all plans.
        on_answers: For progress bars.
    """
    asked = [(place, copy) for place in range(len(prompts)) for copy in range(n_per_prompt)]
    index = np.array([place for place, _ in asked])
    found: dict[str, Judged] = {}
    for name, plan in plans.items():
        requests = [
            Request(
                format_prompt(prompts[place]),
                plan,
                Sampling(max_tokens=MAX_TOKENS),
                seed=derive_seed(seed, prompts[place], copy),
            )
            for place, copy in asked
        ]
        texts = tuple(answer.text for answer in engine.generate(requests))
        found[name] = judge_texts([prompts[place] for place, _ in asked], texts, prompt=index)
        if on_answers is not None:
            on_answers(len(texts))
    return found


def judge_texts(
    prompts: Sequence[str], texts: Sequence[str], *, prompt: Int[ndarray, " answers"]
) -> Judged:
    """Given answers, judged."""
    pairs = zip(prompts, texts, strict=True)
    is_well_formed = np.array([parse(asked, text).answer is not None for asked, text in pairs])
    return Judged(tuple(texts), gold_rewards(texts), is_well_formed, prompt)
