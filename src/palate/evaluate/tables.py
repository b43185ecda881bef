"""What the figures show, from paired rows: matrix, fronts, gap by size, gain by comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.evaluate.cells import Cells
from palate.evaluate.rows import FactRow
from palate.evaluate.scoreboard import BASE, BESPOKE, TIE_MARGIN, difference_of
from palate.metrics.differences import Difference
from palate.metrics.multiplicity import holm
from palate.metrics.win_rates import win_rate_matrix

NOT_IN_MATRIX = ("soup@", "portfolio-2", "portfolio-4", "portfolio-5", "portfolio-6", "portfolio-7")


@dataclass(frozen=True, eq=False)
class Matrix:
    """Every main way against every other.

    Attributes:
        ways: Rows and columns.
        rates: `[ways, ways]`, share of cells the row wins, ties half.
        differences: Row minus column, for each pair `(row, column)` with row before column.
        p_adjusted: Of these, Holm over the whole table.
    """

    ways: tuple[str, ...]
    rates: Float[ndarray, "ways ways"]
    differences: dict[tuple[str, str], Difference]
    p_adjusted: dict[tuple[str, str], float]

    def is_settled(self, first: str, second: str, *, level: float = 0.05) -> bool:
        """Whether the adjusted test and the interval say that the two differ."""
        if (first, second) not in self.differences:
            first, second = second, first
        if first == second:
            return False
        difference = self.differences[first, second]
        is_outside = difference.interval.low > 0 or difference.interval.high < 0
        return is_outside and self.p_adjusted[first, second] <= level

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ways": list(self.ways),
            "rates": self.rates.tolist(),
            "comparisons": [
                {
                    "first": first,
                    "second": second,
                    **difference.to_json(),
                    "p_adjusted": self.p_adjusted[first, second],
                }
                for (first, second), difference in self.differences.items()
            ],
        }


def win_matrix(cells: Cells) -> Matrix:
    """All pairs of the main ways."""
    ways = tuple(way for way in cells.ways if not way.startswith(NOT_IN_MATRIX))
    scores = np.stack([cells.utility(way) for way in ways])
    pairs = [(first, second) for k, first in enumerate(ways) for second in ways[k + 1 :]]
    differences = {pair: difference_of(cells, *pair) for pair in pairs}
    adjusted = holm([difference.p_value for difference in differences.values()])
    return Matrix(
        ways,
        win_rate_matrix(scores, tie_margin=TIE_MARGIN),
        differences,
        dict(zip(pairs, adjusted.tolist(), strict=True)),
    )


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve.

    Attributes:
        x: Members, or comparisons.
        difference: With its interval.
        worst: The worst person's.
        bound: What a certificate says, or `None`.
    """

    x: int
    difference: Difference
    worst: float
    bound: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "x": self.x,
            "difference": self.difference.to_json(),
            "worst": self.worst,
            "bound": self.bound,
        }


def gap_by_size(cells: Cells, facts: Sequence[FactRow]) -> list[CurvePoint]:
    """What people lose against their own bespoke expert by having only K members."""
    if BESPOKE not in cells.ways:
        return []
    points: list[CurvePoint] = []
    for way, size in numbered(cells.ways, "portfolio-"):
        losses = cells.utility(BESPOKE) - cells.utility(way)
        bounds = [f.value for f in facts if (f.way, f.name) == (way, "worst_case_loss")]
        points.append(
            CurvePoint(
                size,
                difference_of(cells, BESPOKE, way),
                max(cells.by_person(losses).values()),
                float(np.mean(bounds)) if bounds else None,
            )
        )
    return points


def gain_by_comparisons(cells: Cells) -> list[CurvePoint]:
    """What people gain over the base when their preference is learned from N comparisons."""
    return [
        CurvePoint(
            n,
            difference_of(cells, way, BASE),
            min(cells.by_person(cells.utility(way) - cells.utility(BASE)).values()),
        )
        for way, n in numbered(cells.ways, "soup@")
    ]


def numbered(ways: Sequence[str], stem: str) -> list[tuple[str, int]]:
    """Ways that carry a number after the stem, by number."""
    found = [(way, int(way.removeprefix(stem))) for way in ways if way.startswith(stem)]
    return sorted(found, key=lambda pair: pair[1])


@dataclass(frozen=True)
class Front:
    """Two objectives that pull against each other, and where each way gets.

    Attributes:
        objectives: On the two axes.
        points: Way to points: mean rewards of the people who want the first, then of those who want
            the second.
    """

    objectives: tuple[str, str]
    points: Mapping[str, tuple[tuple[float, float], ...]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "objectives": list(self.objectives),
            "points": {way: [list(point) for point in some] for way, some in self.points.items()},
        }


def fronts(
    cells: Cells, ways: Sequence[str], *, preferences: Mapping[str, Mapping[str, float]]
) -> list[Front]:
    """One front per pair of objectives that nobody wants together, at most three."""
    wanted = {
        person: {name for name, share in shares.items() if share > 0}
        for person, shares in preferences.items()
    }
    objectives = list(dict.fromkeys(name for shares in preferences.values() for name in shares))
    pairs = [
        (first, second)
        for k, first in enumerate(objectives)
        for second in objectives[k + 1 :]
        if not any({first, second} <= some for some in wanted.values())
    ]
    return [
        Front(pair, {way: _ends(cells, way, pair, wanted) for way in ways}) for pair in pairs[:3]
    ]


def _ends(
    cells: Cells, way: str, pair: tuple[str, str], wanted: Mapping[str, set[str]]
) -> tuple[tuple[float, float], ...]:
    rows = cells.rows[way]
    points: list[tuple[float, float]] = []
    for end in pair:
        own = [row for row in rows if end in wanted[row.person]]
        means = [float(np.mean([row.rewards[name] for row in own])) for name in pair]
        points.append((means[0], means[1]))
    return tuple(points)
