"""Simulated annotators: noisy users who say which of two answers serves an objective better.

An annotator follows the Bradley-Terry model on the gold reward, and with some probability does not
look at all and guesses:

    P(first preferred) = (1 - guessing) * sigmoid((gold_first - gold_second) / temperature)
                         + guessing / 2

Annotators differ in temperature and guessing. Reward models learn from their pairs only.

Source: Bradley and Terry 1952 for the choice; the share of guesses is the lapse rate of
psychometrics (Wichmann and Hill 2001, section 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import PreferencePair
from research.world.gold import gold_reward


@dataclass(frozen=True)
class Annotator:
    """Somebody who labels pairs.

    Attributes:
        temperature: Gold difference, in reward units, at which the odds are e to 1; positive.
        guessing: Share of labels that are coin flips, in [0, 1].
    """

    temperature: float
    guessing: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not (0 < self.temperature < np.inf and 0 <= self.guessing <= 1):
            raise InvalidInputError(
                f"The annotator (temperature {self.temperature}, guessing {self.guessing}) is out "
                "of range; use a positive temperature and a share in [0, 1]."
            )

    def probability_first(
        self, *, first: Float[ndarray, " pairs"], second: Float[ndarray, " pairs"]
    ) -> Float[ndarray, " pairs"]:
        """`[pairs]`: probability of preferring the first, given both gold rewards."""
        informed = expit((first - second) / self.temperature)
        return (1 - self.guessing) * informed + self.guessing / 2


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, not yet judged."""

    prompt: str
    first: str
    second: str


def sample_annotators(
    n_annotators: int,
    *,
    generator: np.random.Generator,
    temperature: float = 0.1,
    guessing: float = 0.1,
) -> list[Annotator]:
    """Annotators who differ.

    Args:
        n_annotators: At least one.
        generator: Source of chance.
        temperature: Median of the temperatures, which are log-normal with spread 0.3.
        guessing: Mean of the shares of guesses, which are Beta distributed, concentration 20.

    Raises:
        InvalidInputError: fewer than one annotator, or a value out of range.
    """
    if n_annotators < 1 or not 0 < guessing < 1:
        raise InvalidInputError(
            f"{n_annotators} annotators with mean guessing {guessing} are out of range; ask for at "
            "least one and a share strictly between 0 and 1."
        )
    temperatures = temperature * np.exp(0.3 * generator.standard_normal(n_annotators))
    shares = generator.beta(20 * guessing, 20 * (1 - guessing), size=n_annotators)
    return [Annotator(float(t), float(g)) for t, g in zip(temperatures, shares, strict=True)]


def annotate(
    objective: str,
    comparisons: Sequence[Comparison],
    *,
    annotators: Sequence[Annotator],
    generator: np.random.Generator,
) -> list[PreferencePair]:
    """One labelled pair per comparison, each judged by one annotator drawn at random.

    Args:
        objective: Name of what is judged.
        comparisons: Two different answers each.
        annotators: At least one.
        generator: Source of chance.

    Raises:
        InvalidInputError: there is no annotator, the objective is unknown, or two answers to
            compare are equal.
    """
    if not annotators:
        raise InvalidInputError("There is no annotator; give at least one.")
    is_first = _labels(
        first=gold_reward(objective, [comparison.first for comparison in comparisons]),
        second=gold_reward(objective, [comparison.second for comparison in comparisons]),
        annotators=annotators,
        generator=generator,
    )
    pairs: list[PreferencePair] = []
    for place, (comparison, is_kept) in enumerate(zip(comparisons, is_first, strict=True)):
        chosen, rejected = comparison.first, comparison.second
        if not is_kept:
            chosen, rejected = rejected, chosen
        name = f"{objective}-{place:05d}"
        pairs.append(PreferencePair(comparison.prompt, chosen, rejected, objective, name))
    return pairs


def pair_up(*, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[Comparison]:
    """All pairs of different answers to the same prompt.

    Args:
        prompts: `[prompts]`.
        answers: `[prompts][completions]`.
    """
    return [
        Comparison(prompt, first, second)
        for prompt, several in zip(prompts, answers, strict=True)
        for first, second in combinations(several, 2)
        if first != second
    ]


def _labels(
    *,
    first: Float[ndarray, " pairs"],
    second: Float[ndarray, " pairs"],
    annotators: Sequence[Annotator],
    generator: np.random.Generator,
) -> Bool[ndarray, " pairs"]:
    who = generator.integers(len(annotators), size=len(first))
    chances = np.stack([a.probability_first(first=first, second=second) for a in annotators])
    return generator.random(len(first)) < chances[who, np.arange(len(first))]
