"""Percent of bespoke: how much of what a policy made for one user alone would give is reached.

Two numbers, since the literature seldom says which it means: the share of the *gain* over the base
model, and the raw ratio of utilities.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.clusters import cluster_error, sign_ends
from palate.metrics.intervals import Interval, require_observations

N_RESAMPLES = 2000


@dataclass(frozen=True)
class BespokeShare:
    """What users reach of their ceiling.

    Attributes:
        gain: Sum of gains over the base divided by the sum of the ceilings' gains.
        raw: Sum of utilities divided by the sum of the ceilings' utilities.
        worst: Lowest user's share of the gain, among those whose ceiling is above the base.
    """

    gain: Interval
    raw: Interval
    worst: float


def bespoke_share(
    utility: Float[ndarray, " users"],
    *,
    base: Float[ndarray, " users"],
    ceiling: Float[ndarray, " users"],
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> BespokeShare:
    """Shares of bespoke, with intervals over users.

    A ratio of sums, so a user who can gain little counts little; the mean of the users' ratios
    would be ruled by exactly those. Above 1 where the ceiling was not the best there is.

    Args:
        utility: `[users]`, what each user gets; each the mean over that user's prompts.
        base: `[users]`, with the base model.
        ceiling: `[users]`, with a policy made for that user alone.
        generator: Source of the signs of more than a dozen users.
        confidence: Of the intervals.

    Raises:
        InvalidInputError: lengths differ, fewer than two users, a value that is not finite, or
            the ceilings are not above the base on average.
    """
    got, low, high = (
        require_observations(values, name=name)
        for values, name in ((utility, "utility"), (base, "base"), (ceiling, "ceiling"))
    )
    if not got.shape == low.shape == high.shape or len(got) < 2:
        raise InvalidInputError(
            f"There are {len(got)} utilities, {len(low)} bases and {len(high)} ceilings; "
            "give one of each for at least two users."
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
    numerators: Float[ndarray, " users"],
    denominators: Float[ndarray, " users"],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> Interval:
    """Sum of the numerators over the sum of the denominators, by flipping users's signs.

    Student's t where that refutes nothing: under six users, or denominators of both signs, where
    a ratio means little.
    """
    n_users = len(numerators)
    estimate = float(numerators.sum() / denominators.sum())
    shares = np.full(n_users, float(denominators.mean()))
    error = cluster_error(numerators - estimate * denominators, shares)  # of the linear part
    half = error.half_width(confidence)
    ends = sign_ends(
        numerators,
        denominators,
        confidence=confidence,
        generator=generator,
        n_resamples=N_RESAMPLES,
    )
    low, high = ends or (estimate - half, estimate + half)
    return Interval(estimate, min(low, estimate), max(high, estimate), n_users, n_users)
