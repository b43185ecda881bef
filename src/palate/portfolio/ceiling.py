"""Ceiling: the lowest convex function that is proven to lie above the best value.

The best value `J*` is convex in the preference, so between preferences `q` at which an upper bound
`J_up[q] >= J*_q` is known it lies below

    U(w) = min { lambda @ J_up : lambda >= 0, lambda @ Q = w } = max_r rows[r] @ w.

The rows make a bound on all policies look like a table of (unbeatable) policies.

Deviation from palm.md, section 3.2: the rows come from one lower convex hull (qhull) instead of a
linear program per corner. The pieces' volumes must fill the simplex, otherwise an error is raised.

Source: palm.md P4.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError

from palate.core.errors import NotCertifiedError, NotConvergedError
from palate.portfolio.shapes import ByObjective, Heights, RowValues, Visited

VOLUME_TOLERANCE = 1e-9  # of the simplex; a piece that matters is larger
VERTICAL = 1e-12  # facets of less volume stand upright on the rim and bound nothing
SUPPORT_TOLERANCE = 1e-9  # in value units scaled to one
VISITED_TOLERANCE = 1e-9


def ceiling_rows(*, preferences: Visited, upper_values: Heights) -> RowValues:
    """Rows whose maximum is the upper bound U.

    Preferences are on the simplex, every unit vector among them; the values are at least the best
    value of any policy there, in reward units.

    Raises:
        NotCertifiedError: a unit vector is missing, so that U is infinite somewhere.
        NotConvergedError: qhull's answer does not fill the simplex.
    """
    points, heights = _lowest(preferences, upper_values)
    n_objectives = points.shape[1]
    corners = unit_row(preferences=points, upper_values=heights)
    below = heights - points @ corners  # zero at unit vectors; U only uses what lies below
    if np.all(below > -SUPPORT_TOLERANCE * max(1.0, np.abs(heights).max())):
        return corners[None, :]
    scale = -below.min()
    counts = (below < 0.0) | np.any(points > 1.0 - VISITED_TOLERANCE, axis=1)
    points, depths = points[counts], below[counts] / scale
    simplices = _lower_facets(points, depths)
    rows = np.linalg.solve(points[simplices], depths[simplices][..., None])[..., 0]
    if float(np.max(rows @ points.T - depths)) > SUPPORT_TOLERANCE:
        raise NotConvergedError("qhull's lower hull is not below all visited values.")
    return np.unique(corners + scale * rows, axis=0).reshape(-1, n_objectives)


def unit_row(*, preferences: Visited, upper_values: Heights) -> ByObjective:
    """The upper bound that the unit vectors alone give: one row; weaker, for any dimension.

    Raises:
        NotCertifiedError: a unit vector is missing.
    """
    is_unit = preferences > 1.0 - VISITED_TOLERANCE  # [visited, objectives]
    is_visited = np.any(is_unit, axis=0)
    if not np.all(is_visited):
        raise NotCertifiedError(
            f"Nothing is known at the unit vector of objective {int(np.argmin(is_visited))}, so "
            "the best value has no upper bound there; add a policy or an optimum for every "
            "objective alone."
        )
    return np.min(np.where(is_unit, upper_values[:, None], np.inf), axis=0)


def _lowest(
    preferences: Visited, upper_values: Heights
) -> tuple[Float[np.ndarray, "points objectives"], Float[np.ndarray, " points"]]:
    """Each visited preference once, with its lowest value."""
    order = np.argsort(upper_values, kind="stable")
    _, first = np.unique(np.round(preferences[order], 12), axis=0, return_index=True)
    return preferences[order[first]], upper_values[order[first]]


def _lower_facets(
    points: Float[np.ndarray, "points objectives"], heights: Float[np.ndarray, " points"]
) -> np.ndarray:
    """Index sets `[facets, objectives]` of the lower hull of `(w, height)`, heights in [-1, 0]."""
    n_objectives = points.shape[1]
    lifted = np.column_stack([points[:, :-1], heights])
    apex = np.append(np.full(n_objectives - 1, 1.0 / n_objectives), 1.0)
    try:
        hull = ConvexHull(np.vstack([lifted, apex]))
    except QhullError as error:
        raise NotConvergedError(f"qhull could not build the upper bound ({error}).") from error
    facets = hull.simplices[~np.any(hull.simplices == len(points), axis=1)]
    volumes = np.abs(np.linalg.det(points[facets]))  # shares of the simplex
    facets, volumes = facets[volumes > VERTICAL], volumes[volumes > VERTICAL]
    if abs(float(volumes.sum()) - 1.0) > VOLUME_TOLERANCE:
        raise NotConvergedError(
            f"qhull's upper bound covers {volumes.sum():.6f} of the simplex instead of all of it.",
            gap=abs(float(volumes.sum()) - 1.0),
        )
    return facets
