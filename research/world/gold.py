"""Gold rewards: what an answer is worth to each objective, from its text alone.

They are the judge and never the teacher: reward models learn from simulated annotators
(`research.world.annotators`), and the gold rules measure what came of it. For a well-formed text:

    elementary  = simple / (simple + technical)       marked words (`words.marked_words`)
    expert      = technical / (simple + technical)
    concise     = (50 - words) / (50 - 8)             cut to [0, 1]
    informative = (facts - 1) / (5 - 1)
    friendly    = (warm - cold) / 4                   cut to [0, 1], words of `research.world.words`
    unfriendly  = (cold - warm) / 4                   cut to [0, 1]

A text that the grammar cannot have produced earns zero on all six, so broken text buys nothing.
The rules do not look at the prompt: an answer about another topic than the asked one keeps its
rewards, and only `grammar.parse` tells it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from research.world.grammar import parse, read
from research.world.objectives import OBJECTIVE_NAMES
from research.world.topics import MAX_FACTS
from research.world.words import COLD_WORDS, WARM_WORDS, marked_words, words_of

SHORT_WORDS = 8  # an answer of so few words, or fewer, is fully concise
LONG_WORDS = 50  # an answer of so many words, or more, is not concise at all
FULL_TONE = 4  # so many warm words without cold ones are fully friendly, and the reverse


def gold_rewards(texts: Sequence[str]) -> Float[ndarray, "texts objectives"]:
    """`[texts, 6]` in [0, 1], objectives in the order of `OBJECTIVES`; zero for broken texts."""
    return np.array([_rewards_of(text) for text in texts]).reshape(len(texts), len(OBJECTIVE_NAMES))


def gold_reward(objective: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
    """`[texts]` in [0, 1] for one objective.

    Raises:
        InvalidInputError: there is no such objective.
    """
    if objective not in OBJECTIVE_NAMES:
        raise InvalidInputError(
            f"The objective {objective!r} is unknown; use one of {', '.join(OBJECTIVE_NAMES)}."
        )
    return gold_rewards(texts)[:, OBJECTIVE_NAMES.index(objective)]


def judge(
    prompts: Sequence[str], texts: Sequence[str]
) -> tuple[Float[ndarray, "texts objectives"], list[bool]]:
    """The gold rewards, and whether the grammar gives such an answer to its prompt.

    The callable that a suite names as its judge; see `palate.evaluate.judges.FunctionJudge`.
    """
    pairs = zip(prompts, texts, strict=True)
    return gold_rewards(texts), [parse(prompt, text).answer is not None for prompt, text in pairs]


def _rewards_of(text: str) -> tuple[float, ...]:
    answer = read(text).answer
    if answer is None:
        return (0.0,) * len(OBJECTIVE_NAMES)
    words = words_of(text)
    simple, technical = (sum(word in marked for word in words) for marked in marked_words())
    n_marked = max(simple + technical, 1)
    warmth = sum((word in WARM_WORDS) - (word in COLD_WORDS) for word in words) / FULL_TONE
    by_name = {
        "elementary": simple / n_marked,
        "expert": technical / n_marked,
        "concise": (LONG_WORDS - len(words)) / (LONG_WORDS - SHORT_WORDS),
        "informative": (answer.n_facts - 1) / (MAX_FACTS - 1),
        "friendly": warmth,
        "unfriendly": -warmth,
    }
    return tuple(min(max(by_name[name], 0.0), 1.0) for name in OBJECTIVE_NAMES)
