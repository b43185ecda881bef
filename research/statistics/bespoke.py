"""Percent of bespoke.

Percent of bespoke is how much users reach of what a policy for them alone would give. Two numbers,
since the literature seldom says which it means: the share of the *gain* over the base model, and
the raw ratio of utilities.
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
    """How much users reach of their ceiling."""

    gain: Interval  # sum of gains over the base, by the sum of the ceilings' gains
    raw: Interval  # sum of utilities, by the sum of the ceilings' utilities
    worst: float  # lowest user's share of the gain, among those whose ceiling is above the base


def bespoke_share(
    utility: Float[ndarray, " users"],
    *,
    base: Float[ndarray, " users"],
    ceiling: Float[ndarray, " users"],
    generator: np.random.Generator,
) -> BespokeShare:
    """Shares of bespoke, with intervals over users.

    A ratio of sums, so a user who can gain little counts little. Above 1 where the ceiling was not
    the best there is. Each number is a user's mean over their prompts: with the method, with the
    base model, and with a policy for that user alone. The generator gives the signs of more than a
    dozen users.

    Raises:
        InvalidInputError: lengths differ, fewer than two users, a value that is not finite, or
            the ceilings are not above the base on average.
    """
    reached, low, high = (
        require_observations(values, name=name)
        for values, name in ((utility, "utility"), (base, "base"), (ceiling, "ceiling"))
    )
    if not reached.shape == low.shape == high.shape or len(reached) < 2:
        raise InvalidInputError(
            f"There are {len(reached)} utilities, {len(low)} bases and {len(high)} ceilings; "
            "give one of each for at least two users."
        )
    if float(np.sum(high - low)) <= 0:
        raise InvalidInputError(
            "The ceilings are not above the base on average, so there is no gain to share; "
            "train the bespoke policies longer."
        )
    has_gain = high > low
    return BespokeShare(
        gain=ratio_interval(reached - low, high - low, generator=generator),
        raw=ratio_interval(reached, high, generator=generator),
        worst=float(np.min((reached - low)[has_gain] / (high - low)[has_gain])),
    )


def ratio_interval(
    numerators: Float[ndarray, " users"],
    denominators: Float[ndarray, " users"],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> Interval:
    """Sum of the numerators over the sum of the denominators, by flipping users' signs.

    Student's t where that refutes nothing: under six users, or denominators of both signs, where
    a ratio means little.
    """
    n_users = len(numerators)
    estimate = float(numerators.sum() / denominators.sum())
    ends = sign_ends(
        numerators,
        denominators,
        confidence=confidence,
        generator=generator,
        n_resamples=N_RESAMPLES,
    )
    if ends is None:
        shares = np.full(n_users, float(denominators.mean()))
        error = cluster_error(numerators - estimate * denominators, shares)  # of the linear part
        half = error.half_width(confidence)
        ends = (estimate - half, estimate + half)
    return Interval(estimate, min(ends[0], estimate), max(ends[1], estimate), n_users, n_users)
