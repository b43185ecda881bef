"""Cells: the simplex cut into small simplices whose vertices lie on a lattice.

A member whose loss is within tolerance at every vertex of a cell is within tolerance in the whole
cell (its coverage set is convex), so covers of cells are guarantees for everybody. Within a cell a
preference is a mixture of the `d` vertices; its shares are the barycentric coordinates.

Source:
    Kuhn 1960 (the triangulation); palm.md 3.3, P7.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice


@dataclass(frozen=True, eq=False)
class Cell:
    """The cell around a preference.

    Attributes:
        vertices: `[objectives, objectives]`, one lattice preference a row.
        barycentric: `[objectives]`, shares with `barycentric @ vertices` the preference.
    """

    vertices: Float[ndarray, "vertices objectives"]
    barycentric: Float[ndarray, " vertices"]


def kuhn_cell(preference: Float[ndarray, " objectives"], *, denominator: int) -> Cell:
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
    steps = [corner.copy()]
    for index in order:
        steps.append(steps[-1].copy())
        steps[-1][index] += 1.0
    falls = np.concatenate([[1.0], rest[order], [0.0]])
    return Cell(
        vertices=_preferences(np.array(steps), denominator=denominator),
        barycentric=falls[:-1] - falls[1:],
    )


def all_cells(
    *, n_objectives: int, denominator: int
) -> tuple[Float[ndarray, "points objectives"], Int[ndarray, "cells vertices"]]:
    """The lattice points, in the order of `palate.core.simplex.lattice`, and every cell's indices.

    There are `denominator ** (n_objectives - 1)` cells; each lists its points in ascending order.
    """
    points = lattice(n_objectives=n_objectives, denominator=denominator)
    index = {tuple(row): i for i, row in enumerate(np.rint(points * denominator).astype(int))}
    free = n_objectives - 1
    cells: list[list[int]] = []
    for corner in product(range(denominator), repeat=free):
        for order in permutations(range(free)):
            cell = _chain(corner=corner, order=order, denominator=denominator, index=index)
            if cell is not None:
                cells.append(sorted(cell))
    return points, np.array(sorted(cells), dtype=np.int64).reshape(-1, n_objectives)


def _chain(
    *,
    corner: tuple[int, ...],
    order: tuple[int, ...],
    denominator: int,
    index: dict[tuple[int, ...], int],
) -> list[int] | None:
    """Point indices of the cell reached from a corner in this order, if it is in the simplex."""
    reach = list(corner)
    cell: list[int] = []
    for step in range(len(order) + 1):
        if step:
            reach[order[step - 1]] += 1
        counts = np.diff([0, *reach, denominator])
        if np.any(counts < 0):
            return None
        cell.append(index[tuple(counts.tolist())])
    return cell


def _preferences(
    reach: Float[ndarray, "vertices cumulative"], *, denominator: int
) -> Float[ndarray, "vertices objectives"]:
    n_vertices = len(reach)
    full = np.column_stack([np.zeros(n_vertices), reach / denominator, np.ones(n_vertices)])
    return np.diff(full, axis=1)
