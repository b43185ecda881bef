"""Comparisons of methods on the same cells, with their intervals, adjusted for the whole table.

Intervals and p-values are clustered by users and by prompts at once (`palate.metrics`): the prompts
stand for prompts not measured, the users for users not there; users that resemble each other are
one cluster. The p-values of a table are adjusted together (Holm). Seeds are repetitions within
these clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.core.seeds import generator_for
from palate.evaluate.catalogue import entry_of
from palate.evaluate.cells import Cells
from palate.evaluate.entrant_name import BASE, PROMPT, parse_name
from palate.metrics.differences import Difference, holm, paired_difference
from palate.metrics.intervals import Interval, bootstrap_interval

LEVEL = 0.05
Pair = tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """One method less another.

    Attributes:
        difference: Of utility, paired.
        p_adjusted: Holm over the table that it stands in.
    """

    difference: Difference
    p_adjusted: float

    @property
    def interval(self) -> Interval:
        """Of the difference."""
        return self.difference.interval

    @property
    def is_significant(self) -> bool:
        """Whether the adjusted test and the interval both say that the two differ."""
        is_outside = self.interval.low > 0 or self.interval.high < 0
        return is_outside and self.p_adjusted <= LEVEL

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.difference.to_json(), "p_adjusted": self.p_adjusted}


def adjusted(differences: Mapping[Pair, Difference]) -> dict[Pair, Compared]:
    """The differences of one table with p-values adjusted together."""
    p_values = holm([one.p_value for one in differences.values()]) if differences else []
    return {
        pair: Compared(one, float(p_value))
        for (pair, one), p_value in zip(differences.items(), p_values, strict=True)
    }


def difference_of(cells: Cells, first: str, second: str) -> Difference:
    """How much more the first method's answers are worth than the second's, on the same cells."""
    return paired_difference(
        cells.utility(first),
        cells.utility(second),
        generator=generator_for(0, "difference", first, second),
        **cells.clusters,
    )


def utility_of(cells: Cells, method: str) -> Interval:
    """A method's mean utility, over users and prompts not measured."""
    return bootstrap_interval(
        cells.utility(method), generator=generator_for(0, "utility", method), **cells.clusters
    )


def passes_of(cells: Cells, method: str) -> float:
    """Mean passes of the base per sampled token, candidates included."""
    return float(cells.values(method, lambda row: row.n_passes).mean())


def is_choice(method: str) -> bool:
    """Whether the method competes: it costs no training per user and knows what the others know."""
    return not entry_of(method).is_ceiling and parse_name(method).n_comparisons is None


@dataclass(frozen=True)
class ShapeRow:
    """One method for users of one shape.

    Attributes:
        method: Name.
        utility: Mean with its interval.
        versus: Against `base` and against `prompt`, as far as they are there.
    """

    method: str
    utility: Interval
    versus: Mapping[str, Compared]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        versus = {name: one.to_json() for name, one in self.versus.items()}
        return {"method": self.method, "utility": self.utility.to_json(), "versus": versus}


@dataclass(frozen=True)
class ShapeTable:
    """All methods for users of one shape; `all` for everybody.

    Attributes:
        shape: Name.
        n_users: How many.
        rows: In the order of the methods.
    """

    shape: str
    n_users: int
    rows: tuple[ShapeRow, ...]

    def row(self, method: str) -> ShapeRow | None:
        """The method's row, or `None`."""
        return next((row for row in self.rows if row.method == method), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "shape": self.shape,
            "n_users": self.n_users,
            "methods": [row.to_json() for row in self.rows],
        }


def shape_tables(cells: Cells) -> list[ShapeTable]:
    """The table of everybody, then one per shape of the users' preferences."""
    return [_shape_table(one, shape) for shape, one in by_shape(cells).items()]


def by_shape(cells: Cells) -> dict[str, Cells]:
    """All cells, and those of each shape where there are several."""
    shapes = cells.shapes if len(cells.shapes) > 1 else ()
    return {"all": cells, **{shape: cells.of_shape(shape) for shape in shapes}}


def _shape_table(cells: Cells, shape: str) -> ShapeTable:
    compared = versus(cells, [name for name in (BASE, PROMPT) if name in cells.methods])
    rows = [
        ShapeRow(
            method,
            utility_of(cells, method),
            {pair[1]: one for pair, one in compared.items() if pair[0] == method},
        )
        for method in cells.methods
    ]
    return ShapeTable(shape, len(set(cells.users)), tuple(rows))


def versus(cells: Cells, rivals: Sequence[str]) -> dict[Pair, Compared]:
    """Every method against each of these, as one table; the rivals' own pair counts once."""
    pairs = [(method, rival) for rival in rivals for method in cells.methods if method != rival]
    once = {
        pair: difference_of(cells, *pair)
        for place, pair in enumerate(pairs)
        if (pair[1], pair[0]) not in pairs[:place]
    }
    return adjusted(once)
