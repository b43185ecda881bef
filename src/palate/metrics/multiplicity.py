"""Multiplicity: p-values adjusted for having looked at a whole table of comparisons.

Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure"; Benjamini and Hochberg
1995, "Controlling the False Discovery Rate".
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import false_discovery_control

from palate.core.errors import InvalidInputError


def holm(p_values: Float[ndarray, " tests"] | Sequence[float]) -> Float[ndarray, " tests"]:
    """Adjusted p-values: rejecting those below `level` errs at all with at most that probability.

    Holds whatever the dependence between the tests.

    Args:
        p_values: `[tests]` in [0, 1].

    Returns:
        `[tests]`, in the given order, each at least its p-value and at most one.

    Raises:
        InvalidInputError: a p-value is not in [0, 1].

    Source:
        Holm 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = _require_p_values(p_values)
    order = np.argsort(values, kind="stable")
    steps = np.arange(len(values), 0, -1) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def benjamini_hochberg(
    p_values: Float[ndarray, " tests"] | Sequence[float],
) -> Float[ndarray, " tests"]:
    """Adjusted p-values: of those rejected below `level`, at most that share is wrong on average.

    Holds for independent or positively dependent tests.

    Args:
        p_values: `[tests]` in [0, 1].

    Returns:
        `[tests]`, in the given order.

    Raises:
        InvalidInputError: a p-value is not in [0, 1].

    Source:
        Benjamini and Hochberg 1995, as `scipy.stats.false_discovery_control`.
    """
    values = _require_p_values(p_values)
    if not values.size:
        return values
    return np.asarray(false_discovery_control(values, method="bh"))


def _require_p_values(
    p_values: Float[ndarray, " tests"] | Sequence[float],
) -> Float[ndarray, " tests"]:
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise InvalidInputError(
            f"The p-values {np.array2string(values, threshold=8)} are not a vector of numbers in "
            "[0, 1]."
        )
    return values
