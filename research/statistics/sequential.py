"""A test that may be looked at any time: stop when the answer is clear, and it still holds.

A gambler bets on a mean above (and another on one below) the null at fair odds. Under the null the
capital is a non-negative martingale, so with probability `1 - level` it never exceeds `1 / level`,
however often one looks.

Source: Waudby-Smith and Ramdas 2024, "Estimating Means of Bounded Random Variables by Betting",
section 4 (hedged capital process with predictable plug-in bets).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import require_observations

NO_DIFFERENCE = 0.5  # the null mean: either answer is preferred as often
LEVEL = 0.05
BET_FRACTION = 0.5  # most of the capital staked; the source's c, of which it recommends 1/2 or 3/4


def observations_to_decide(values: Float[ndarray, " observations"] | Sequence[float]) -> int | None:
    """Observations after which a mean of one half is refuted at 5 %; `None` if it never is.

    Each observation must have the same mean given those before it. Observations of one user are not
    such: give one number per user, for example the user's win rate. Values lie in [0, 1], in the
    order they came.

    Raises:
        InvalidInputError: no values, or one outside [0, 1].
    """
    observed = require_observations(values)
    if observed.min() < 0 or observed.max() > 1:
        raise InvalidInputError(
            f"The values reach from {observed.min():.6g} to {observed.max():.6g}; bets need values "
            "in [0, 1]."
        )
    bets = predictable_bets(observed, level=LEVEL)
    capital = hedged_log_capital(observed, bets=bets, means=np.array([NO_DIFFERENCE]))
    decided = np.flatnonzero(capital[:, 0] >= -np.log(LEVEL))
    return int(decided[0]) + 1 if decided.size else None


def hedged_log_capital(
    values: Float[ndarray, " observations"],
    *,
    bets: Float[ndarray, " observations"],
    means: Float[ndarray, " means"],
) -> Float[ndarray, "observations means"]:
    """Logarithm of the larger of both gamblers' halves of the capital, after every observation.

    Its exponential is at most the total capital, a martingale when the mean is the true one.

    Values lie in [0, 1], means strictly between. Bets are placed before their observations, and
    limited so that no single one can lose more than `BET_FRACTION`.
    """
    surprise = values[:, None] - means
    up = np.minimum(bets[:, None], BET_FRACTION / means)
    down = np.minimum(bets[:, None], BET_FRACTION / (1 - means))
    gains = np.log1p(np.stack([up * surprise, -down * surprise]))
    return np.cumsum(gains, axis=1).max(axis=0) + np.log(0.5)


def predictable_bets(
    values: Float[ndarray, " observations"], *, level: float
) -> Float[ndarray, " observations"]:
    """Bets that grow quickly enough to decide, each from the observations before it.

    `sqrt(2 log(2 / level) / (variance * t * log(1 + t)))`, with the variance so far, begun from one
    observation of 1/2 and a variance of 1/4.
    """
    count = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (count + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (count + 1)
    before = np.append(0.25, variances[:-1])
    return np.sqrt(2 * np.log(2 / level) / (before * count * np.log1p(count)))
