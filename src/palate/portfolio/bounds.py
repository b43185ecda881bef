"""Bounds: what every value lies between, all at once, with a stated confidence.

A decision looks at many numbers and picks the largest, so each interval is widened until all of
them hold together (a union bound). Values known exactly have no width; values that were not
measured have the width of their range.

Source:
    palm.md P14 and section 14.2.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import norm

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import require_confidence
from palate.portfolio.payoffs import Payoffs


@dataclass(frozen=True, eq=False)
class Bounds:
    """Simultaneous bounds on the values of a table.

    Attributes:
        lower: `[policies, objectives]`, reward units; up to a common shift of all policies.
        upper: `[policies, objectives]`, the same.
        level: `[objectives]`, half-width of that common shift.
        confidence: Probability that all of them hold; one when nothing was sampled.
        n_intervals: How many sampled numbers share the allowed failure probability.
    """

    lower: Float[ndarray, "policies objectives"]
    upper: Float[ndarray, "policies objectives"]
    level: Float[ndarray, " objectives"]
    confidence: float
    n_intervals: int


def value_bounds(payoffs: Payoffs, *, confidence: float) -> Bounds:
    """Bounds on all values at once: estimate and standard error, normal quantile, union bound.

    The quantile assumes that averages over prompts are normal, which takes a few hundred prompts.

    Args:
        payoffs: The table.
        confidence: Wanted probability that every bound holds, in (0, 1).

    Raises:
        InvalidInputError: the confidence is out of range.
    """
    require_confidence(confidence)
    table = payoffs.table
    is_missing = np.isnan(table.values)
    errors = np.where(is_missing, 0.0, table.standard_errors)
    n_intervals = int(np.count_nonzero(errors) + np.count_nonzero(payoffs.level_errors))
    quantile = normal_quantile(confidence=confidence, n_intervals=n_intervals)
    level = quantile * payoffs.level_errors
    lower = table.values - quantile * errors
    upper = table.values + quantile * errors
    if np.any(is_missing):
        low, high = payoffs.reward_range or (0.0, 0.0)
        price = table.beta * table.kl[:, None]
        lower = np.where(is_missing, low - price - level, lower)
        upper = np.where(is_missing, high - price + level, upper)
    return Bounds(
        lower=lower,
        upper=upper,
        level=level,
        confidence=confidence if n_intervals else 1.0,
        n_intervals=n_intervals,
    )


def normal_quantile(*, confidence: float, n_intervals: int) -> float:
    """Half-width in standard errors at which `n_intervals` two-sided intervals hold together.

    Source:
        Bonferroni's inequality.
    """
    if n_intervals == 0:
        return 0.0
    return float(norm.isf((1.0 - confidence) / (2.0 * n_intervals)))


def hoeffding_half_width(
    *, n_prompts: int, n_policies: int, n_objectives: int, confidence: float
) -> float:
    """Half-width that holds for rewards in [0, 1] whatever their distribution.

    For the `n_objectives + 1` averages of every policy together. Needs no normality; it is several
    times wider than the paired interval and says nothing of KL, which has no range.

    Source:
        palm.md P14 (Hoeffding's inequality and a union bound).
    """
    require_confidence(confidence)
    if n_prompts < 1:
        raise InvalidInputError(f"{n_prompts} prompts give no interval; use one or more.")
    failure = (1.0 - confidence) / (2.0 * (n_objectives + 1) * n_policies)
    return sqrt(-log(failure) / (2.0 * n_prompts))
