"""A test that may be looked at any time: stop when the answer is clear, and it still holds.

A gambler bets on a mean above (and another on one below) the null at fair odds. Under the null the
capital is a non-negative martingale, so with probability `1 - level` it never exceeds `1 / level`,
however often one looks. The means not yet refuted are a confidence sequence.

Source: Waudby-Smith and Ramdas 2024, "Estimating Means of Bounded Random Variables by Betting",
section 4 (hedged capital process with predictable plug-in bets).

Deviations:
1. Means are refuted on a grid of 1/1000 and the sequence is widened to the next grid point outside.
2. The running intersection is returned: a refuted mean stays refuted.
3. Where the bets differ from mean to mean the unrefuted ones need not form an interval; their hull
   is returned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import require_confidence, require_observations

GRID_STEPS = 1000
BET_FRACTION = 0.5  # most of the capital staked; the source's c, of which it recommends 1/2 or 3/4


@dataclass(frozen=True, eq=False)
class SequentialTest:
    """What may be said after every observation.

    Attributes:
        low: `[observations]`, lower end of the mean after that many.
        high: `[observations]`, upper end.
        p_values: `[observations]`, anytime-valid, against the null mean; never rises.
        n_to_decide: Observations after which the null was refuted, or `None`.
    """

    low: Float[ndarray, " observations"]
    high: Float[ndarray, " observations"]
    p_values: Float[ndarray, " observations"]
    n_to_decide: int | None


def sequential_test(
    values: Float[ndarray, " observations"] | Sequence[float],
    *,
    null_mean: float = 0.5,
    confidence: float = 0.95,
) -> SequentialTest:
    """Bets against the null mean and the confidence sequence of the mean.

    Each observation must have the same mean given those before it. Observations of one user are
    not such: give one number per user, for example the user's win rate.

    Args:
        values: `[observations]` in [0, 1], in the order they came: verdicts, or user means.
        null_mean: What the mean is without a difference; between 0 and 1.
        confidence: Share of repetitions in which the sequence covers the mean at every time.

    Raises:
        InvalidInputError: a value outside [0, 1], a null mean outside (0, 1), or `confidence`.

    Source:
        Waudby-Smith and Ramdas 2024, section 4.
    """
    require_confidence(confidence)
    seen = require_observations(values)
    if seen.min() < 0 or seen.max() > 1 or not 0 < null_mean < 1:
        raise InvalidInputError(
            f"The values reach from {seen.min():.6g} to {seen.max():.6g} and the null mean is "
            f"{null_mean}; bets need values in [0, 1] and a null mean strictly inside."
        )
    level = 1 - confidence
    bets = predictable_bets(seen, level=level)
    grid = np.arange(1, GRID_STEPS) / GRID_STEPS
    capital = hedged_log_capital(seen, bets=bets, means=np.append(grid, null_mean))
    best = np.maximum.accumulate(capital, axis=0)  # once refuted, always refuted
    low, high = _hull(grid, is_kept=best[:, :-1] < -np.log(level))
    p_values = np.minimum(1.0, np.exp(-best[:, -1]))
    decided = np.flatnonzero(p_values <= level)
    n_to_decide = int(decided[0]) + 1 if decided.size else None
    return SequentialTest(low, high, p_values, n_to_decide)


def hedged_log_capital(
    values: Float[ndarray, " observations"],
    *,
    bets: Float[ndarray, " observations"],
    means: Float[ndarray, " means"],
) -> Float[ndarray, "observations means"]:
    """Logarithm of the larger of both gamblers' halves of the capital, after every observation.

    Its exponential is at most the total capital, a martingale when the mean is the true one.

    Args:
        values: `[observations]` in [0, 1].
        bets: `[observations]`, non-negative, each chosen before its observation; limited so that
            no single one can lose more than `BET_FRACTION`.
        means: `[means]`, strictly between 0 and 1.

    Source:
        Waudby-Smith and Ramdas 2024, section 4.
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

    Source:
        Waudby-Smith and Ramdas 2024, section 4.
    """
    count = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (count + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (count + 1)
    before = np.append(0.25, variances[:-1])
    return np.sqrt(2 * np.log(2 / level) / (before * count * np.log1p(count)))


def _hull(
    grid: Float[ndarray, " means"], *, is_kept: ndarray
) -> tuple[Float[ndarray, " observations"], Float[ndarray, " observations"]]:
    step = 1 / GRID_STEPS
    has_any = is_kept.any(axis=1)
    first = np.where(has_any, np.argmax(is_kept, axis=1), 0)
    last = np.where(has_any, len(grid) - 1 - np.argmax(is_kept[:, ::-1], axis=1), 0)
    # the set may become empty between grid points: the last that was not stays
    keep = np.maximum.accumulate(np.where(has_any, np.arange(len(is_kept)), 0))
    return np.maximum(0.0, grid[first] - step)[keep], np.minimum(1.0, grid[last] + step)[keep]
