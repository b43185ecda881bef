"""Pareto fronts: which policies nobody can beat in everything, and how much they dominate.

Source: While, Bradstreet and Barone 2012, "A Fast Way of Calculating Exact Hypervolumes".
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from palate.core.errors import InvalidInputError


def pareto_front(values: Float[ndarray, "policies objectives"]) -> Bool[ndarray, " policies"]:
    """True for every policy that no other dominates.

    A policy dominates another when it is at least as good in every objective and better in one;
    equal policies do not dominate each other. Higher is better.

    Args:
        values: `[policies, objectives]`.

    Raises:
        InvalidInputError: not a table, or a value is not finite.
    """
    table = _require_table(values)
    is_on_front = np.ones(len(table), dtype=bool)
    for index, own in enumerate(table):
        as_good = np.all(table >= own, axis=1)
        is_on_front[index] = not np.any(as_good & np.any(table > own, axis=1))
    return is_on_front


def hypervolume(
    values: Float[ndarray, "policies objectives"], *, reference: Float[ndarray, " objectives"]
) -> float:
    """Volume that the policies dominate above the reference point.

    Exact, by exclusive contributions; time grows exponentially in the objectives in the worst
    case, and is milliseconds for tens of policies in up to six. It depends on the scale of the
    objectives and on the reference: compare only values measured with the same.

    Args:
        values: `[policies, objectives]`; higher is better. Policies that are not above the
            reference in every objective add nothing.
        reference: `[objectives]`, the worst that counts.

    Returns:
        In units of the product of the objectives' units.

    Raises:
        InvalidInputError: not a table, a value is not finite, or the lengths differ.

    Source:
        While, Bradstreet and Barone 2012, WFG.

    Example:
        >>> hypervolume(np.array([[2.0, 1.0], [1.0, 2.0]]), reference=np.zeros(2))
        3.0
    """
    table = _require_table(values)
    origin = np.asarray(reference, dtype=np.float64)
    if origin.shape != (table.shape[1],) or not np.all(np.isfinite(origin)):
        raise InvalidInputError(
            f"The reference {origin.tolist()} does not fit {table.shape[1]} objectives; "
            "give one finite number each."
        )
    heights = table - origin
    return _volume(_undominated(heights[np.all(heights > 0, axis=1)]))


def _volume(heights: Float[ndarray, "policies objectives"]) -> float:
    if not len(heights):
        return 0.0
    if heights.shape[1] == 1:
        return float(heights.max())
    heights = heights[np.argsort(-heights[:, 0], kind="stable")]
    total = 0.0
    for index, own in enumerate(heights):
        limited = np.minimum(heights[index + 1 :], own)
        total += float(own.prod()) - _volume(_undominated(limited))
    return total


def _undominated(
    heights: Float[ndarray, "policies objectives"],
) -> Float[ndarray, "front objectives"]:
    distinct = np.unique(heights, axis=0)
    return distinct[pareto_front(distinct)] if len(distinct) else distinct


def _require_table(
    values: Float[ndarray, "policies objectives"],
) -> Float[ndarray, "policies objectives"]:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not np.all(np.isfinite(table)):
        raise InvalidInputError(
            f"The values of shape {table.shape} are not a finite table of policies by objectives."
        )
    return table
