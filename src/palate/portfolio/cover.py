"""Covers: the fewest policies such that everybody listed is content with one of them.

Rows of a coverage table are what must be covered (preferences, or cells of the simplex), columns
are policies. Greedy is within the harmonic number of the number of rows of the minimum; the
minimum itself comes from an integer program, and for intervals on a line from one sweep.

Source:
    PALM, arXiv 2604.04144, pruning stage; palm.md 3.3. Greedy: Chvatal 1979.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import Bounds as VariableBounds
from scipy.optimize import LinearConstraint, milp

from palate.core.errors import NotCertifiedError, NotConvergedError

Coverage = Bool[ndarray, "points policies"]
MAX_EXACT_POLICIES = 200  # beyond, greedy


def greedy_cover(is_covered: Coverage) -> list[int]:
    """Policies in the order chosen: most uncovered points first, ties to the lowest index.

    Raises:
        NotCertifiedError: some point is covered by no policy.
    """
    require_coverable(is_covered)
    is_open = np.ones(len(is_covered), dtype=bool)
    chosen: list[int] = []
    while np.any(is_open):
        counts = np.count_nonzero(is_covered[is_open], axis=0)
        chosen.append(int(np.argmax(counts)))
        is_open &= ~is_covered[:, chosen[-1]]
    return chosen


def exact_cover(is_covered: Coverage) -> list[int]:
    """A smallest cover, ascending, by integer programming (HiGHS) on what domination leaves.

    Raises:
        NotCertifiedError: some point is covered by no policy.
        NotConvergedError: HiGHS did not prove a minimum.
    """
    require_coverable(is_covered)
    points, policies = undominated(is_covered)
    table = is_covered[np.ix_(points, policies)].astype(float)
    solution = milp(
        np.ones(len(policies)),
        constraints=LinearConstraint(table, lb=1.0),
        integrality=np.ones(len(policies)),
        bounds=VariableBounds(0.0, 1.0),
    )
    if solution.status != 0:
        raise NotConvergedError(f"HiGHS did not find a smallest cover: {solution.message}")
    return [int(policy) for policy in policies[solution.x > 0.5]]


def undominated(is_covered: Coverage) -> tuple[Int[ndarray, " points"], Int[ndarray, " policies"]]:
    """Indices of points and policies that a smallest cover depends on.

    A policy that covers no point which another one does not also cover is left out; so is a point
    that is covered whenever another one is. Repeated until nothing is left out.
    """
    points, policies = np.arange(is_covered.shape[0]), np.arange(is_covered.shape[1])
    while True:
        kept = ~_is_within_another(is_covered[np.ix_(points, policies)].T)
        policies = policies[kept]
        needed = ~_is_within_another(~is_covered[np.ix_(points, policies)])
        points = points[needed]
        if np.all(kept) and np.all(needed):
            return points, policies


def _is_within_another(sets: Bool[ndarray, "sets items"]) -> Bool[ndarray, " sets"]:
    """Which set lies within another one; of equal sets all but the first."""
    counts = sets.astype(np.float64)
    shared = counts @ counts.T
    sizes = np.diag(shared)
    is_within = shared >= sizes[:, None]
    is_first = np.tri(len(sets), k=-1, dtype=bool)  # the other one comes before
    return np.any(is_within & ((sizes[None, :] > sizes[:, None]) | is_first), axis=1)


def smallest_cover(is_covered: Coverage) -> list[int]:
    """A smallest cover where policies are few enough for that, otherwise greedy's; ascending."""
    if is_covered.shape[1] <= MAX_EXACT_POLICIES:
        return exact_cover(is_covered)
    return sorted(greedy_cover(is_covered))


def interval_cover(
    *,
    starts: Float[ndarray, " policies"],
    ends: Float[ndarray, " policies"],
    low: float = 0.0,
    high: float = 1.0,
) -> list[int]:
    """The fewest intervals that cover `[low, high]`, from left to right, by one sweep.

    Args:
        starts: `[policies]`; an interval that ends before it starts covers nothing.
        ends: `[policies]`.
        low: Left end of what is to be covered.
        high: Right end.

    Raises:
        NotCertifiedError: some place is in no interval.
    """
    chosen: list[int] = []
    reached = low
    while True:
        is_next = (starts <= reached) & (ends >= reached)
        if not np.any(is_next):
            raise NotCertifiedError(
                f"No policy covers {reached:.6g} on the way from {low:.6g} to {high:.6g}; "
                "widen the tolerance or add a policy there."
            )
        best = int(np.argmax(np.where(is_next, ends, -np.inf)))
        if chosen and ends[best] <= reached:
            raise NotCertifiedError(
                f"No policy covers what lies just beyond {reached:.6g}; "
                "widen the tolerance or add a policy there."
            )
        chosen.append(best)
        reached = float(ends[best])
        if reached >= high:
            return chosen


def sweep_cover(is_covered: Coverage) -> list[int]:
    """The fewest policies that cover points in order, each policy a run of neighbours.

    With two objectives, coverage sets are intervals of preferences; this is then the minimum.

    Raises:
        NotCertifiedError: some point is covered by no policy.
    """
    require_coverable(is_covered)
    n_points = len(is_covered)
    chosen: list[int] = []
    reached = 0
    while reached < n_points:
        runs = np.where(
            is_covered[reached],
            np.argmin(np.vstack([is_covered[reached:], np.zeros_like(is_covered[:1])]), axis=0),
            0,
        )
        chosen.append(int(np.argmax(runs)))
        reached += int(runs.max())
    return chosen


def cell_coverage(is_covered: Coverage, cells: Int[ndarray, "cells vertices"]) -> Coverage:
    """Which cells each policy covers: those all of whose vertices it covers.

    Source:
        palm.md P7.
    """
    return np.all(is_covered[cells], axis=1)


def require_coverable(is_covered: Coverage) -> None:
    """Refuse a table with a point that no policy covers.

    Raises:
        NotCertifiedError: names the first such points.
    """
    alone = np.flatnonzero(~np.any(is_covered, axis=1))
    if alone.size:
        raise NotCertifiedError(
            f"No policy is good enough at {alone.size} of {len(is_covered)} places (first: "
            f"{alone[:5].tolist()}); widen the tolerance or add policies there."
        )
