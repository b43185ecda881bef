"""Percent of bespoke: how much of what a policy made for one person alone would give is reached.

Two numbers, since the literature seldom says which it means: the share of the *gain* over the base
model, and the raw ratio of utilities.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import Interval, expanded_tail, require_observations

N_RESAMPLES = 2000


@dataclass(frozen=True)
class BespokeShare:
    """What people reach of their ceiling.

    Attributes:
        gain: Sum of gains over the base divided by the sum of the ceilings' gains.
        raw: Sum of utilities divided by the sum of the ceilings' utilities.
        worst: Lowest person's share of the gain, among those whose ceiling is above the base.
    """

    gain: Interval
    raw: Interval
    worst: float


def bespoke_share(
    utility: Float[ndarray, " people"],
    *,
    base: Float[ndarray, " people"],
    ceiling: Float[ndarray, " people"],
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> BespokeShare:
    """Shares of bespoke, with intervals over people.

    A ratio of sums, so a person who can gain little counts little; the mean of the persons' ratios
    would be ruled by exactly those. Above 1 where the ceiling was not the best there is.

    Args:
        utility: `[people]`, what each person gets; each the mean over that person's prompts.
        base: `[people]`, with the base model.
        ceiling: `[people]`, with a policy made for that person alone.
        generator: Source of the resamples of people.
        confidence: Of the intervals.

    Raises:
        InvalidInputError: lengths differ, fewer than two people, a value that is not finite, or
            the ceilings are not above the base on average.
    """
    got, low, high = (
        require_observations(values, name=name)
        for values, name in ((utility, "utility"), (base, "base"), (ceiling, "ceiling"))
    )
    if not got.shape == low.shape == high.shape or len(got) < 2:
        raise InvalidInputError(
            f"There are {len(got)} utilities, {len(low)} bases and {len(high)} ceilings; "
            "give one of each for at least two people."
        )
    if float(np.sum(high - low)) <= 0:
        raise InvalidInputError(
            "The ceilings are not above the base on average, so there is no gain to share; "
            "train the bespoke policies longer."
        )
    has_gain = high > low
    return BespokeShare(
        gain=ratio_interval(got - low, high - low, generator=generator, confidence=confidence),
        raw=ratio_interval(got, high, generator=generator, confidence=confidence),
        worst=float(np.min((got - low)[has_gain] / (high - low)[has_gain])),
    )


def ratio_interval(
    numerators: Float[ndarray, " people"],
    denominators: Float[ndarray, " people"],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> Interval:
    """Sum of the numerators over the sum of the denominators, by resampling people.

    Percentiles expanded as in `palate.metrics.intervals`. Meaningless, and wide, where the sum of
    the denominators may be zero.
    """
    n_people = len(numerators)
    counts = generator.multinomial(n_people, np.full(n_people, 1 / n_people), size=N_RESAMPLES)
    totals = counts @ denominators
    replicates = (counts @ numerators)[totals != 0] / totals[totals != 0]
    tail = expanded_tail(confidence=confidence, n_clusters=n_people)
    low, high = np.quantile(replicates, [tail, 1 - tail])
    estimate = float(numerators.sum() / denominators.sum())
    return Interval(
        estimate, min(float(low), estimate), max(float(high), estimate), n_people, n_people
    )
