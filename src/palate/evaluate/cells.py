"""Rows as paired arrays: one value per cell, the same cells for every method.

A cell is one answer to one prompt for one user with one seed. Only cells that every method has are
compared, so that no method is judged on easier prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.evaluate.rows import AnswerRow

Cell = tuple[str, str, int, int]  # user, prompt, seed, copy


class Clusters(TypedDict, total=False):
    """What intervals are clustered by."""

    clusters: Sequence[str]
    second_clusters: Sequence[str]


@dataclass(frozen=True, eq=False)
class Cells:
    """Answers of all methods to the same cells."""

    methods: tuple[str, ...]  # in the order of the tables
    cells: tuple[Cell, ...]  # what every method has, sorted
    rows: dict[str, tuple[AnswerRow, ...]]  # method to rows, in the order of the cells
    n_left_out: int = 0  # rows whose cell some method lacks

    @property
    def users(self) -> list[str]:
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

    @property
    def shapes(self) -> tuple[str, ...]:
        """Different shapes of the users' preferences; empty where none is named."""
        named = dict.fromkeys(row.shape for row in self.rows[self.methods[0]])
        return tuple(name for name in named if name)

    @property
    def clusters(self) -> Clusters:
        """Labels for intervals: users that resemble each other, and prompts.

        A kind of which there is only one says nothing of its spread and is left out; then the
        interval is about the other kind alone.
        """
        users = [row.cluster or row.user for row in self.rows[self.methods[0]]]
        kinds = [labels for labels in (users, self.prompts) if len(set(labels)) > 1]
        names = ("clusters", "second_clusters")
        return Clusters(**dict(zip(names, kinds, strict=False)))  # type: ignore[typeddict-item]

    def utility(self, method: str) -> Float[np.ndarray, " cells"]:
        """`[cells]`: what each answer is worth to its user."""
        return self.values(method, lambda row: row.utility)

    def values(self, method: str, of: Callable[[AnswerRow], float]) -> Float[np.ndarray, " cells"]:
        """`[cells]`: a number of each row."""
        return np.array([of(row) for row in self.rows[method]], dtype=np.float64)

    def by_user(self, values: Float[np.ndarray, " cells"]) -> dict[str, float]:
        """Mean per user."""
        users = np.array(self.users)
        return {str(one): float(values[users == one].mean()) for one in dict.fromkeys(self.users)}

    def by_user_and_seed(self, values: Float[np.ndarray, " cells"]) -> Float[np.ndarray, " groups"]:
        """Mean per user and seed."""
        groups: dict[tuple[str, int], list[float]] = {}
        for cell, value in zip(self.cells, values.tolist(), strict=True):
            groups.setdefault((cell[0], cell[2]), []).append(value)
        return np.array([np.mean(group) for group in groups.values()])

    def where(self, is_kept: Sequence[bool]) -> "Cells":
        """Some of the cells."""

        def some(rows: tuple[AnswerRow, ...]) -> tuple[AnswerRow, ...]:
            return tuple(row for row, is_in in zip(rows, is_kept, strict=True) if is_in)

        cells = tuple(cell for cell, is_in in zip(self.cells, is_kept, strict=True) if is_in)
        return replace(self, cells=cells, rows={m: some(rows) for m, rows in self.rows.items()})


def pair_up(answers: Sequence[AnswerRow], *, methods: Sequence[str]) -> Cells:
    """The methods' rows on the cells that all of them have.

    Raises:
        InvalidInputError: a method has no rows, or no cell is common to all.
    """
    by_method: dict[str, dict[Cell, AnswerRow]] = {method: {} for method in methods}
    for row in answers:
        if row.method in by_method:
            by_method[row.method].setdefault((row.user, row.prompt, row.seed, row.copy), row)
    empty = [method for method, rows in by_method.items() if not rows]
    if empty:
        raise InvalidInputError(f"The method {empty[0]!r} has no answers; run the evaluation.")
    common = set[Cell].intersection(*(set(rows) for rows in by_method.values()))
    if not common:
        raise InvalidInputError(
            "The methods have no answer in common; finish the evaluation first."
        )
    cells = tuple(sorted(common))
    n_rows = sum(len(rows) for rows in by_method.values())
    return Cells(
        methods=tuple(methods),
        cells=cells,
        rows={method: tuple(rows[cell] for cell in cells) for method, rows in by_method.items()},
        n_left_out=n_rows - len(cells) * len(by_method),
    )
