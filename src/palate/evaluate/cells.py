"""Rows as paired arrays: one value per cell, the same cells in every way.

A cell is one answer to one prompt for one person with one seed. Only cells that every way has are
compared, so that no way is judged on easier prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.evaluate.rows import AnswerRow

Cell = tuple[str, str, int, int]  # person, prompt, seed, copy


@dataclass(frozen=True, eq=False)
class Cells:
    """Answers of all ways to the same cells.

    Attributes:
        ways: In the order of the tables.
        cells: What every way has, sorted.
        rows: Way to rows, in the order of the cells.
        n_left_out: Rows whose cell some way lacks.
    """

    ways: tuple[str, ...]
    cells: tuple[Cell, ...]
    rows: dict[str, tuple[AnswerRow, ...]]
    n_left_out: int

    @property
    def people(self) -> list[str]:
        """`[cells]`: who each is for."""
        return [cell[0] for cell in self.cells]

    @property
    def prompts(self) -> list[str]:
        """`[cells]`: what each answers; a prompt is one cluster in all seeds."""
        return [cell[1] for cell in self.cells]

    @property
    def seeds(self) -> list[int]:
        """`[cells]`."""
        return [cell[2] for cell in self.cells]

    def utility(self, way: str) -> Float[ndarray, " cells"]:
        """`[cells]`: what each answer is worth to its person."""
        return self.values(way, lambda row: row.utility)

    def values(self, way: str, of: Callable[[AnswerRow], float]) -> Float[ndarray, " cells"]:
        """`[cells]`: a number of each row."""
        return np.array([of(row) for row in self.rows[way]], dtype=np.float64)

    def by_person(self, values: Float[ndarray, " cells"]) -> dict[str, float]:
        """Mean per person."""
        people = np.array(self.people)
        return {str(one): float(values[people == one].mean()) for one in dict.fromkeys(self.people)}

    def by_person_and_seed(self, values: Float[ndarray, " cells"]) -> Float[ndarray, " groups"]:
        """Mean per person and seed."""
        groups: dict[tuple[str, int], list[float]] = {}
        for cell, value in zip(self.cells, values.tolist(), strict=True):
            groups.setdefault((cell[0], cell[2]), []).append(value)
        return np.array([np.mean(group) for group in groups.values()])


def pair_up(answers: Sequence[AnswerRow], *, ways: Sequence[str]) -> Cells:
    """The ways' rows on the cells that all of them have.

    Raises:
        InvalidInputError: a way has no rows, or no cell is common to all.
    """
    by_way: dict[str, dict[Cell, AnswerRow]] = {way: {} for way in ways}
    for row in answers:
        if row.way in by_way:
            by_way[row.way].setdefault((row.person, row.prompt, row.seed, row.copy), row)
    empty = [way for way, rows in by_way.items() if not rows]
    if empty:
        raise InvalidInputError(f"The way {empty[0]!r} has no answers; run the evaluation.")
    common = set.intersection(*(set(rows) for rows in by_way.values()))
    if not common:
        raise InvalidInputError("The ways have no answer in common; finish the evaluation first.")
    cells = tuple(sorted(common))
    n_rows = sum(len(rows) for rows in by_way.values())
    return Cells(
        ways=tuple(ways),
        cells=cells,
        rows={way: tuple(rows[cell] for cell in cells) for way, rows in by_way.items()},
        n_left_out=n_rows - len(cells) * len(by_way),
    )
