"""What the figures show, from paired rows: matrix, fronts, gain by comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.evaluate.catalogue import BASE, parse_name
from palate.evaluate.cells import Cells
from palate.evaluate.compare import Compared, Pair, adjusted, difference_of
from palate.evaluate.scoreboard import TIE_MARGIN
from palate.metrics.differences import Difference
from palate.metrics.win_rates import win_rate_matrix


@dataclass(frozen=True, eq=False)
class Matrix:
    """Every method against every other, where the preference is stated."""

    methods: tuple[str, ...]  # rows and columns
    rates: Float[ndarray, "methods methods"]  # share of cells the row wins, ties half
    compared: Mapping[Pair, Compared]  # row less column, row before column; Holm over all of them

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
    differences = {pair: difference_of(cells, *pair) for pair in combinations(methods, 2)}
    return Matrix(methods, win_rate_matrix(scores, tie_margin=TIE_MARGIN), adjusted(differences))


@dataclass(frozen=True)
class CurvePoint:
    """What users gain who are known by so many comparisons."""

    method: str
    n_comparisons: int
    difference: Difference  # from the base
    worst: float  # the worst user's

    @property
    def name(self) -> str:
        """Of the entrant."""
        return f"{self.method}@{self.n_comparisons}"


def gain_by_comparisons(cells: Cells) -> list[CurvePoint]:
    """What users gain over the base when they are known by N comparisons, by method and N."""
    points: list[CurvePoint] = []
    for method in cells.methods:
        name = parse_name(method)
        if name.n_comparisons is None or name.n_candidates is not None:
            continue
        gains = cells.by_user(cells.utility(method) - cells.utility(BASE))
        difference = difference_of(cells, method, BASE)
        points.append(CurvePoint(name.method, name.n_comparisons, difference, min(gains.values())))
    return sorted(points, key=lambda point: (point.method, point.n_comparisons))


@dataclass(frozen=True)
class Front:
    """Two objectives that pull against each other, and how far each method gets towards both."""

    objectives: tuple[str, str]  # on the two axes
    points: Mapping[str, tuple[tuple[float, float], ...]]  # of who wants the first, the second


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
        pair
        for pair in combinations(objectives, 2)
        if not any(set(pair) <= some for some in wanted.values())
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
