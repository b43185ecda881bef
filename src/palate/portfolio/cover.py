"""Covers: the fewest policies such that each listed point has one that covers it.

Greedy is within the harmonic number of the number of points of the minimum. The minimum comes from
an integer program, and for intervals on a line from one sweep.

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
    """Policies in greedy order: most uncovered points first, ties to the lowest index.

    Raises:
        NotCertifiedError: some point is covered by no policy.
    """
    require_coverable(is_covered)
    is_open = np.ones(len(is_covered), dtype=bool)
    policies: list[int] = []
    while np.any(is_open):
        counts = np.count_nonzero(is_covered[is_open], axis=0)
        policies.append(int(np.argmax(counts)))
        is_open &= ~is_covered[:, policies[-1]]
    return policies


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
    """Indices of the points and policies that a smallest cover depends on.

    A policy goes if another one covers all of its points; a point goes if it is covered whenever
    another one is. Repeated until nothing goes.
    """
    points, policies = np.arange(is_covered.shape[0]), np.arange(is_covered.shape[1])
    while True:
        is_needed = ~_is_within_another(is_covered[np.ix_(points, policies)].T)
        policies = policies[is_needed]
        is_binding = ~_is_within_another(~is_covered[np.ix_(points, policies)])
        points = points[is_binding]
        if np.all(is_needed) and np.all(is_binding):
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
    *, starts: Float[ndarray, " policies"], ends: Float[ndarray, " policies"]
) -> list[int]:
    """The fewest intervals that cover `[0, 1]`, from left to right, by one sweep.

    An interval that ends before it starts covers nothing.

    Raises:
        NotCertifiedError: some place is in no interval.
    """
    policies: list[int] = []
    reached = 0.0
    while not policies or reached < 1.0:
        is_next = (starts <= reached) & (ends >= reached)
        best = int(np.argmax(np.where(is_next, ends, -np.inf)))
        if not is_next[best] or (policies and ends[best] <= reached):
            raise NotCertifiedError(
                f"No policy covers what lies just beyond {reached:.6g}; "
                "widen the tolerance or add a policy there."
            )
        policies.append(best)
        reached = float(ends[best])
    return policies


def sweep_cover(is_covered: Coverage) -> list[int]:
    """The fewest policies that cover points in order, each policy a run of neighbours.

    With two objectives, coverage sets are intervals of preferences; this is then the minimum.

    Raises:
        NotCertifiedError: some point is covered by no policy.
    """
    require_coverable(is_covered)
    policies: list[int] = []
    reached = 0
    while reached < len(is_covered):
        ahead = np.vstack([is_covered[reached:], np.zeros_like(is_covered[:1])])
        runs = np.argmin(ahead, axis=0)  # how many points from here on each policy covers
        policies.append(int(np.argmax(runs)))
        reached += int(runs.max())
    return policies


def require_coverable(is_covered: Coverage) -> None:
    """Refuse a table with points that no policy covers with NotCertifiedError."""
    alone = np.flatnonzero(~np.any(is_covered, axis=1))
    if alone.size:
        raise NotCertifiedError(
            f"No policy is good enough at {alone.size} of {len(is_covered)} places (first: "
            f"{alone[:5].tolist()}); widen the tolerance or add policies there."
        )
