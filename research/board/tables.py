"""Rows as paired arrays of utilities, and comparisons of methods on the cells that both have.

An answer's utility is the user's truth times the judges: each judge's number less the mean of the
base's answers, in deviations of the base's answers (of a tenth at least: the base is hardly ever
rude, and one rude word must not outweigh everything); an objective with two judges counts their
mean.

A cell is one answer to one prompt after so many turns for one user with one seed on one library; a
method that needs no training has one library's cells, which stand for all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.core.types import Interval
from palate.metrics.differences import Difference, holm, paired_difference
from palate.metrics.intervals import bootstrap_interval
from palate.metrics.win_rates import WinRates, verdicts_from_scores, win_rates
from research.board.rows import Row
from research.board.users import BoardUser

LEVEL = 0.05
LEAST_DEVIATION = 0.1  # of a judge in [0, 1]: one that the base hardly moves must not outweigh all
TIE_MARGIN = 0.1  # deviations: utilities that are closer are a tie
JUDGES = ("meaning", "form")
Cell = tuple[str, str, int, int, int]  # user, prompt, turns, seed, library
Keep = Callable[[Cell], bool]


@dataclass(frozen=True)
class Scale:
    """Of one judge of one objective: the base's answers to single prompts."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Compared:
    """One method less another, in deviations of utility."""

    difference: Difference
    p_adjusted: float  # Holm over the table that it stands in
    n_cells: int

    @property
    def interval(self) -> Interval:
        """Of the mean difference, 95 %."""
        return self.difference.interval

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not significantly different`."""
        if self.p_adjusted > LEVEL or self.interval.low <= 0.0 <= self.interval.high:
            return "not significantly different"
        return "better" if self.interval.estimate > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **self.difference.to_json(),
            "p_adjusted": self.p_adjusted,
            "n_cells": self.n_cells,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, eq=False)
class Tables:
    """All rows, with utilities."""

    rows: Sequence[Row]
    users: Mapping[str, BoardUser]
    scales: Mapping[tuple[str, str], Scale]  # by judge and objective
    cells: Mapping[str, Mapping[Cell, float]]  # method to cell to utility
    by_method: Mapping[str, Sequence[Row]] = field(repr=False)

    def __contains__(self, method: str) -> bool:
        """Whether the method has rows."""
        return method in self.cells

    def pairs(
        self, first: str, second: str, keep: Keep
    ) -> tuple[Float[ndarray, " cells"], Float[ndarray, " cells"], list[Cell]]:
        """`[cells]` utilities of both methods on the cells that both have, and the cells."""
        mine, theirs = self.cells[first], self.cells[second]
        places = sorted({cell for cell in (*mine, *theirs) if keep(cell)})
        values: list[tuple[float, float]] = []
        shared: list[Cell] = []
        for cell in places:
            own, other = at(mine, cell), at(theirs, cell)
            if own is not None and other is not None:
                values.append((own, other))
                shared.append(cell)
        array = np.array(values, dtype=np.float64).reshape(-1, 2)
        return array[:, 0], array[:, 1], shared

    def difference(self, first: str, second: str, keep: Keep) -> Difference | None:
        """The first method less the second; `None` without cells of two users or two prompts."""
        mine, theirs, cells = self.pairs(first, second, keep)
        clusters = clusters_of(cells)
        if not clusters:
            return None
        generator = generator_for(0, "board", first, second)
        return paired_difference(mine, theirs, generator=generator, **clusters)

    def compare(
        self, pairs: Sequence[tuple[str, str]], keep: Keep
    ) -> dict[tuple[str, str], Compared]:
        """Comparisons of one table, their p-values adjusted together (Holm)."""
        raw = {pair: self.difference(*pair, keep) for pair in pairs if set(pair) <= set(self.cells)}
        return adjusted({pair: one for pair, one in raw.items() if one is not None})

    def mean(self, method: str, keep: Keep) -> Interval | None:
        """A method's mean utility; `None` without cells of two users or two prompts."""
        own = {cell: value for cell, value in sorted(self.cells[method].items()) if keep(cell)}
        clusters = clusters_of(list(own))
        if not clusters:
            return None
        generator = generator_for(0, "board mean", method)
        return bootstrap_interval(list(own.values()), generator=generator, **clusters)

    def wins(self, first: str, second: str, keep: Keep) -> WinRates | None:
        """Win rates of the first method, ties in three ways."""
        mine, theirs, cells = self.pairs(first, second, keep)
        clusters = clusters_of(cells)
        if not clusters:
            return None
        verdicts = verdicts_from_scores(mine, theirs, tie_margin=TIE_MARGIN)
        return win_rates(verdicts, **clusters)

    def shape(self, user: str) -> str:
        """The shape of a user's preference."""
        return self.users[user].shape


def at(cells: Mapping[Cell, float], cell: Cell) -> float | None:
    """The utility of a cell, or of the first library's where the method was measured there only."""
    return cells.get(cell, cells.get((*cell[:4], 0)) if cell[4] else None)


class Clusters(TypedDict, total=False):
    """What intervals are clustered by."""

    clusters: list[str]
    second_clusters: list[str]


def clusters_of(cells: Sequence[Cell]) -> Clusters:
    """Labels for intervals, by user and prompt; a kind of which there is one is left out."""
    kinds = [[cell[0] for cell in cells], [cell[1] for cell in cells]]
    several = [labels for labels in kinds if len(set(labels)) > 1]
    if len(several) == 2:
        return Clusters(clusters=several[0], second_clusters=several[1])
    return Clusters(clusters=several[0]) if several else Clusters()


def adjusted(differences: Mapping[Any, Difference]) -> dict[Any, Compared]:
    """The differences of one table with p-values adjusted together (Holm)."""
    p_values = holm([one.p_value for one in differences.values()]) if differences else []
    return {
        pair: Compared(one, float(p_value), one.interval.n)
        for (pair, one), p_value in zip(differences.items(), p_values, strict=True)
    }


def tables_of(
    rows: Sequence[Row], users: Sequence[BoardUser], *, judges: Sequence[str] = JUDGES
) -> Tables:
    """Utilities of all rows, by these judges alone.

    Raises:
        InvalidInputError: the base has no answers to single prompts, which the scale rests on.
    """
    by_name = {user.name: user for user in users}
    rows = [row for row in rows if row.user in by_name]
    scales = scales_of(rows, judges)
    cells: dict[str, dict[Cell, float]] = {}
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        cell = (row.user, row.prompt, row.turns, row.seed, row.library)
        cells.setdefault(row.method, {})[cell] = utility(row, by_name[row.user], scales)
        by_method.setdefault(row.method, []).append(row)
    return Tables(rows, by_name, scales, cells, by_method)


def scales_of(rows: Sequence[Row], judges: Sequence[str] = JUDGES) -> dict[tuple[str, str], Scale]:
    """Mean and deviation of each judge of each objective over the base's answers."""
    answers = [row for row in rows if row.method == "base" and row.turns == 0]
    if not answers:
        raise InvalidInputError(
            "The base has no answers to single prompts, which utilities are scaled by; run the "
            "board with the method 'base'."
        )
    scales: dict[tuple[str, str], Scale] = {}
    for judge in judges:
        for objective in getattr(answers[0], judge):
            values = np.array([getattr(row, judge)[objective] for row in answers])
            spread = float(values.std())
            scales[judge, objective] = Scale(float(values.mean()), max(spread, LEAST_DEVIATION))
    return scales


def utility(row: Row, user: BoardUser, scales: Mapping[tuple[str, str], Scale]) -> float:
    """The user's truth times the judges, in deviations of the base's answers."""
    total = 0.0
    for objective, weight in user.truth.items():
        judged = [
            (getattr(row, judge)[objective] - scales[judge, objective].mean)
            / scales[judge, objective].deviation
            for judge in JUDGES
            if (judge, objective) in scales
        ]
        total += weight * float(np.mean(judged))
    return total


def alone(cell: Cell) -> bool:
    """Cells of single prompts."""
    return cell[2] == 0
