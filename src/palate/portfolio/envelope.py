"""Corner preferences: where the best member changes.

The best member's value `max_k V_k @ w` is convex and piecewise linear in the preference `w`; its
pieces cut the simplex into cells, one per member, and the cells' vertices are the corner
preferences. A loss that is convex on every cell is largest at one of them, so the worst case over
all users is a maximum over a short list.

Deviations from palm.md, section 3.2:
    1. The list comes from one convex hull (qhull) in the dual space instead of solving every
       d-subset of the constraints; it reaches ten objectives and forty members.
    2. Two checks that enumeration by subsets does not need: every vertex satisfies every
       constraint, and every facet of the hull has all its neighbours, so that none is missing.

Source: PALM, arXiv 2604.04144; corner preferences ("corner weights") after Roijers et al. 2015.
"""

from math import comb

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.portfolio.shapes import Corners, MemberValues

MAX_FACETS = 3_000_000  # about 10 objectives with 40 members; 90,000 facets take a second
FEASIBILITY_TOLERANCE = 1e-9  # of values scaled to one
MERGE_DECIMALS = 9  # corners nearer than this are one
SNAP = 1e-11  # shares below this are zero


def facet_bound(*, n_members: int, n_objectives: int) -> int:
    """Most facets that the dual hull can have (McMullen 1970, upper bound theorem)."""
    n_points = n_members + n_objectives + 1
    half, odd = divmod(n_objectives, 2)
    if odd:
        return 2 * comb(n_points - half - 1, half)
    return comb(n_points - half, half) + comb(n_points - half - 1, half - 1)


def is_enumerable(*, n_members: int, n_objectives: int) -> bool:
    """Whether `corner_preferences` is within reach of memory and patience."""
    return facet_bound(n_members=n_members, n_objectives=n_objectives) <= MAX_FACETS


def corner_preferences(values: MemberValues) -> Corners:
    """All vertices of the cells on which one member is best, unit vectors included.

    Values are in reward units, higher is better.

    Returns:
        On the simplex, all different, in descending lexicographic order.

    Raises:
        InvalidInputError: no members, or a value that is not finite.
        NotConvergedError: too many corners to list, or qhull's answer did not pass the two checks.
    """
    if values.ndim != 2 or values.size == 0 or not np.all(np.isfinite(values)):
        raise InvalidInputError(
            f"The members' values have shape {values.shape} and must be a non-empty table of "
            "finite numbers; correct or remove the others."
        )
    distinct = np.unique(values, axis=0)
    n_members, n_objectives = distinct.shape
    if n_members == 1 or n_objectives == 1:
        return np.eye(n_objectives)
    if not is_enumerable(n_members=n_members, n_objectives=n_objectives):
        raise NotConvergedError(
            f"{n_members} members for {n_objectives} objectives have too many corner preferences "
            "to list; use fewer members or linear programs."
        )
    return _merged(_vertices(distinct))


def best_values(
    *, preferences: Float[np.ndarray, "preferences objectives"], values: MemberValues
) -> Float[np.ndarray, " preferences"]:
    """What the best member is worth to each preference."""
    return np.max(preferences @ values.T, axis=1)


def _vertices(values: MemberValues) -> Corners:
    """Vertices of `{(w, t): t >= w @ V_k, w on the simplex}`, as preferences."""
    centred = values - values.mean(axis=0)  # a shift of every member moves no corner
    normals, offsets = _half_spaces(centred / np.abs(centred).max())
    n_objectives = values.shape[1]
    inside = np.append(np.full(n_objectives - 1, 1.0 / n_objectives), 1.5)
    try:
        hull = ConvexHull(normals / (offsets - normals @ inside)[:, None])
    except QhullError as error:
        raise NotConvergedError(
            f"qhull could not list the corner preferences ({error})."
        ) from error
    is_real = ~np.any(hull.simplices == len(normals) - 1, axis=1)  # not on the lid
    planes = hull.equations[is_real]
    points = inside - planes[:, :-1] / planes[:, -1:]
    _require_complete(points=points, hull=hull, normals=normals, offsets=offsets)
    return np.column_stack([points[:, :-1], 1.0 - points[:, :-1].sum(axis=1)])


def _half_spaces(
    scaled: MemberValues,
) -> tuple[Float[np.ndarray, "constraints objectives"], Float[np.ndarray, " constraints"]]:
    """`normals @ (w_1 .. w_{d-1}, t) <= offsets`: members, walls, and a lid at t = 2 as last."""
    n_members, n_objectives = scaled.shape
    free = n_objectives - 1
    normals = np.zeros((n_members + n_objectives + 1, n_objectives))
    offsets = np.zeros(len(normals))
    normals[:n_members, :free] = scaled[:, :free] - scaled[:, free:]
    normals[:n_members, free] = -1.0
    offsets[:n_members] = -scaled[:, free]
    normals[n_members : n_members + free, :free] = -np.eye(free)
    normals[-2, :free], offsets[-2] = 1.0, 1.0
    normals[-1, free], offsets[-1] = 1.0, 2.0
    return normals, offsets


def _require_complete(
    *,
    points: Corners,
    hull: ConvexHull,
    normals: Float[np.ndarray, "constraints objectives"],
    offsets: Float[np.ndarray, " constraints"],
) -> None:
    """Every vertex is feasible and the hull has no hole."""
    excess = float(np.max(points @ normals.T - offsets))
    if excess > FEASIBILITY_TOLERANCE or np.any(hull.neighbors < 0):
        raise NotConvergedError(
            f"qhull's corner preferences break a constraint by {excess:.1e} or leave a hole.",
            gap=excess,
        )


def _merged(preferences: Corners) -> Corners:
    snapped = np.where(preferences < SNAP, 0.0, preferences)
    snapped /= snapped.sum(axis=1, keepdims=True)
    _, first = np.unique(np.round(snapped, MERGE_DECIMALS), axis=0, return_index=True)
    return snapped[first][::-1]
