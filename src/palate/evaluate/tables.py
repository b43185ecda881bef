"""What the figures show, from paired rows: matrix, fronts, gain by comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.evaluate.cells import Cells
from palate.evaluate.compare import Compared, Pair, adjusted, difference_of
from palate.evaluate.entrant_name import BASE, parse_name
from palate.evaluate.scoreboard import TIE_MARGIN
from palate.metrics.differences import Difference
from palate.metrics.win_rates import win_rate_matrix


@dataclass(frozen=True, eq=False)
class Matrix:
    """Every method against every other, where the preference is stated.

    Attributes:
        methods: Rows and columns.
        rates: `[methods, methods]`, share of cells the row wins, ties half.
        compared: Row less column, for each pair `(row, column)` with row before column; Holm over
            the whole table.
    """

    methods: tuple[str, ...]
    rates: Float[ndarray, "methods methods"]
    compared: Mapping[Pair, Compared]

    def is_significant(self, first: str, second: str) -> bool:
        """Whether the adjusted test and the interval say that the two differ."""
        if (first, second) not in self.compared:
            first, second = second, first
        return first != second and self.compared[first, second].is_significant

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "methods": list(self.methods),
            "rates": self.rates.tolist(),
            "comparisons": [
                {"first": first, "second": second, **one.to_json()}
                for (first, second), one in self.compared.items()
            ],
        }


def win_matrix(cells: Cells) -> Matrix:
    """All pairs of methods whose users state their preference."""
    methods = tuple(method for method in cells.methods if parse_name(method).n_comparisons is None)
    scores = np.stack([cells.utility(method) for method in methods])
    pairs = [(first, second) for k, first in enumerate(methods) for second in methods[k + 1 :]]
    return Matrix(
        methods,
        win_rate_matrix(scores, tie_margin=TIE_MARGIN),
        adjusted({pair: difference_of(cells, *pair) for pair in pairs}),
    )


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve.

    Attributes:
        method: That is learned for.
        n_comparisons: It was learned from.
        difference: From the base, with its interval.
        worst: The worst user's.
    """

    method: str
    n_comparisons: int
    difference: Difference
    worst: float

    @property
    def name(self) -> str:
        """Of the entrant."""
        return f"{self.method}@{self.n_comparisons}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "method": self.method,
            "n_comparisons": self.n_comparisons,
            "difference": self.difference.to_json(),
            "worst": self.worst,
        }


def gain_by_comparisons(cells: Cells) -> list[CurvePoint]:
    """What users gain over the base when they are known by N comparisons, by method and N."""
    found: list[CurvePoint] = []
    for method in cells.methods:
        name = parse_name(method)
        if name.n_comparisons is None or name.n_candidates is not None:
            continue
        gains = cells.by_user(cells.utility(method) - cells.utility(BASE))
        difference = difference_of(cells, method, BASE)
        found.append(CurvePoint(name.method, name.n_comparisons, difference, min(gains.values())))
    return sorted(found, key=lambda point: (point.method, point.n_comparisons))


@dataclass(frozen=True)
class Front:
    """Two objectives that pull against each other, and where each method gets.

    Attributes:
        objectives: On the two axes.
        points: Method to points: mean rewards of the users who want the first, then of those who
            want the second.
    """

    objectives: tuple[str, str]
    points: Mapping[str, tuple[tuple[float, float], ...]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "objectives": list(self.objectives),
            "points": {
                method: [list(point) for point in some] for method, some in self.points.items()
            },
        }


def fronts(
    cells: Cells, methods: Sequence[str], *, preferences: Mapping[str, Mapping[str, float]]
) -> list[Front]:
    """One front per pair of objectives that nobody wants together, at most three."""
    wanted = {
        user: {name for name, share in shares.items() if share > 0}
        for user, shares in preferences.items()
    }
    objectives = list(dict.fromkeys(name for shares in preferences.values() for name in shares))
    pairs = [
        (first, second)
        for k, first in enumerate(objectives)
        for second in objectives[k + 1 :]
        if not any({first, second} <= some for some in wanted.values())
    ]
    return [
        Front(pair, {one: _ends(cells, one, pair, wanted) for one in methods}) for pair in pairs[:3]
    ]


def _ends(
    cells: Cells, method: str, pair: tuple[str, str], wanted: Mapping[str, set[str]]
) -> tuple[tuple[float, float], ...]:
    rows = cells.rows[method]
    points: list[tuple[float, float]] = []
    for end in pair:
        own = [row for row in rows if end in wanted[row.user]]
        means = [float(np.mean([row.rewards[name] for row in own])) for name in pair]
        points.append((means[0], means[1]))
    return tuple(points)
