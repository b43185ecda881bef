"""Grids of preferences: PALM's ratio grid, the uniform lattice and its cells.

The ratio grid spaces the ratios of shares geometrically and drops shares that are small against
the largest: its policies serve every user within a factor `1 + epsilon` and an amount `delta`. The
uniform lattice spaces shares evenly; with KL price `beta` the loss between neighbours is quadratic
in their distance, so far fewer points are enough for an additive guarantee.

Source:
    PALM, arXiv 2604.04144 (mixed multiplicative-additive grid); palm.md 3.1, P5, P6, P9. Cells:
    Kuhn 1960 and palm.md 3.3.
"""

from dataclasses import dataclass
from itertools import product
from math import acos, ceil, comb, inf, pi, sqrt

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.portfolio.shapes import ByObjective

LEVEL_SLACK = 1e-12  # exact powers must not gain a level by rounding
WIDEST = 1000  # thousandths: a tolerance of one; delta stays below it, as two objectives ask


def ratio_levels(
    *, n_objectives: int, epsilon: float, delta: float
) -> Float[np.ndarray, " levels"]:
    """The allowed ratios of a share to the largest share, ascending, zero first.

    Raises:
        InvalidInputError: `epsilon <= 0`, `delta <= 0` or `delta >= n_objectives - 1`.
    """
    limit = max(1, n_objectives - 1)
    if not (0.0 < epsilon < inf and 0.0 < delta < limit):
        raise InvalidInputError(
            f"The tolerances epsilon={epsilon} and delta={delta} are infeasible; "
            f"use epsilon > 0 and 0 < delta < {limit}."
        )
    level = 0  # an integer loop: a quotient of logarithms gains a level at exact powers
    while delta / limit * (1.0 + epsilon) ** level < 1.0 - LEVEL_SLACK:
        level += 1
    return np.array([0.0, *((1.0 + epsilon) ** -k for k in range(level, -1, -1))])


def ratio_grid_size(*, n_objectives: int, epsilon: float, delta: float) -> int:
    """How many preferences `ratio_grid` holds: `n^d - (n - 1)^d` for `n` levels (palm.md P5)."""
    if n_objectives == 1:
        return 1
    n_levels = len(ratio_levels(n_objectives=n_objectives, epsilon=epsilon, delta=delta))
    return n_levels**n_objectives - (n_levels - 1) ** n_objectives


def ratio_grid(
    *, n_objectives: int, epsilon: float, delta: float
) -> Float[np.ndarray, "anchors objectives"]:
    """PALM's grid: all vectors of allowed ratios with largest entry one, scaled to sum one.

    Returns:
        `[anchors, objectives]`, in the order of `itertools.product` over descending ratios.
    """
    if n_objectives == 1:
        return np.ones((1, 1))
    levels = ratio_levels(n_objectives=n_objectives, epsilon=epsilon, delta=delta)[::-1]
    vectors = np.array([u for u in product(levels, repeat=n_objectives) if max(u) == 1.0])
    return vectors / vectors.sum(axis=1, keepdims=True)


def affordable_tolerances(
    *, n_objectives: int, max_calls: int, epsilon: float | None = None, delta: float | None = None
) -> tuple[float, float]:
    """The smallest epsilon and delta, to three digits, whose ratio grid needs at most `max_calls`.

    One that is given stays as it is; where neither is, both are one number.

    Raises:
        InvalidInputError: not even the coarsest grid is affordable.
    """
    if epsilon is not None and delta is not None:
        return epsilon, delta
    size = 0
    for tolerance in range(1, WIDEST + 1):  # thousandths
        wide, far = epsilon or tolerance / 1000, delta or min(tolerance, WIDEST - 1) / 1000
        size = ratio_grid_size(n_objectives=n_objectives, epsilon=wide, delta=far)
        if size <= max_calls:
            return wide, far
    raise InvalidInputError(
        f"Even with tolerances of 1, PALM's grid for {n_objectives} objectives has {size} "
        f"preferences, more than max_policies={max_calls}; allow more, or search adaptively."
    )


def covering_radius(*, n_objectives: int, denominator: int) -> float:
    """Largest L1 distance of a preference to the uniform lattice (palm.md P6)."""
    half = n_objectives // 2
    return 2.0 * half * (n_objectives - half) / n_objectives / denominator


def lattice_size(*, n_objectives: int, denominator: int) -> int:
    """How many preferences the uniform lattice holds."""
    return comb(denominator + n_objectives - 1, n_objectives - 1)


def lattice_denominator(*, n_objectives: int, beta: float, gap: float) -> int:
    """Denominator at which optimal policies of the uniform lattice leave at most this gap.

    For rewards in [0, 1], `beta > 0` and `gap > 0` (palm.md P2 and P6).
    """
    if n_objectives == 1:
        return 1
    reach = covering_radius(n_objectives=n_objectives, denominator=1)
    return max(1, ceil(reach / sqrt(8.0 * beta * gap) - LEVEL_SLACK))


def size_bound(*, n_objectives: int, beta: float, gap: float) -> int | None:
    """How many optimal policies are always enough for this additive gap, rewards in [0, 1].

    The smaller of two guarantees: the uniform lattice (needs `beta > 0`) and the ratio grid with
    `epsilon = delta = gap / (2 - gap)`, whose loss is at most `(epsilon + delta) / (1 + epsilon)`
    of a value in [0, 1]. `None` for a gap of zero, where no finite number is always enough.

    Source: palm.md P5 and P6.
    """
    if gap >= 1.0 or n_objectives == 1:
        return 1
    if gap <= 0.0:
        return None
    tolerance = gap / (2.0 - gap)
    bound = ratio_grid_size(n_objectives=n_objectives, epsilon=tolerance, delta=tolerance)
    if beta > 0.0:
        denominator = lattice_denominator(n_objectives=n_objectives, beta=beta, gap=gap)
        bound = min(bound, lattice_size(n_objectives=n_objectives, denominator=denominator))
    return bound


def size_needed(*, n_objectives: int, epsilon: float) -> int | None:
    """How many members some reward sets need for a multiplicative gap `epsilon`.

    Known for two and three objectives (the front is a piece of a sphere); otherwise `None`.

    Source: palm.md P9.
    """
    if not 0.0 < epsilon < 1.0:
        return 1
    if n_objectives == 2:
        return ceil((pi / 2.0) / (2.0 * acos(1.0 - epsilon)) - LEVEL_SLACK)
    return ceil(1.0 / (4.0 * epsilon) - LEVEL_SLACK) if n_objectives == 3 else None


@dataclass(frozen=True, eq=False)
class Cell:
    """The small simplex of lattice preferences around a preference."""

    vertices: Float[np.ndarray, "vertices objectives"]  # as many as objectives
    barycentric: Float[np.ndarray, " vertices"]  # `barycentric @ vertices` is the preference


def kuhn_cell(preference: ByObjective, *, denominator: int) -> Cell:
    """The cell of the lattice with this denominator that holds the preference.

    Raises:
        InvalidInputError: the denominator is below one.
    """
    if denominator < 1:
        raise InvalidInputError(f"The denominator {denominator} must be one or more.")
    reach = denominator * np.cumsum(preference)[:-1]
    corner = np.minimum(np.floor(reach), denominator - 1)
    rest = np.clip(reach - corner, 0.0, 1.0)
    order = sorted(range(len(rest)), key=lambda i: (-rest[i], -i))
    steps = [corner]
    for index in order:
        steps.append(steps[-1] + np.eye(len(rest))[index])
    n_vertices = len(steps)
    sums = np.column_stack(
        [np.zeros(n_vertices), np.array(steps) / denominator, np.ones(n_vertices)]
    )
    falls = np.concatenate([[1.0], rest[order], [0.0]])
    return Cell(vertices=np.diff(sums, axis=1), barycentric=falls[:-1] - falls[1:])
