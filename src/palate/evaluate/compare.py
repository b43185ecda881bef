"""Comparisons of methods on the same cells, adjusted for the whole table, and utility against cost.

Intervals and p-values are clustered by users and by prompts at once (`palate.metrics`): the prompts
stand for prompts not measured, the users for users not there; users that resemble each other are
one cluster. The p-values of a table are adjusted together (Holm). Seeds are repetitions within
these clusters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from palate.core.seeds import generator_for
from palate.evaluate.catalogue import BASE, PROMPT, entry_of, parse_name
from palate.evaluate.cells import Cells
from palate.metrics.differences import Difference, holm, paired_difference
from palate.metrics.intervals import Interval, bootstrap_interval

LEVEL = 0.05
SAME_PASSES = 0.05  # numbers of passes that are closer are one
Pair = tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """One method less another."""

    difference: Difference  # of utility, paired
    p_adjusted: float  # Holm over the table that it stands in

    @property
    def interval(self) -> Interval:
        """Of the difference."""
        return self.difference.interval

    @property
    def is_significant(self) -> bool:
        """Whether the adjusted test and the interval both say that the two differ."""
        is_outside = self.interval.low > 0 or self.interval.high < 0
        return is_outside and self.p_adjusted <= LEVEL

    @property
    def is_gain(self) -> bool:
        """Whether the first method is significantly better."""
        return self.is_significant and self.interval.low > 0

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
    """One method for users of one shape."""

    method: str
    utility: Interval
    versus: Mapping[str, Compared]  # against `base` and `prompt`, as far as they are there


@dataclass(frozen=True)
class ShapeTable:
    """All methods for users of one shape; `all` for everybody."""

    shape: str
    n_users: int
    methods: tuple[ShapeRow, ...]


def shape_tables(cells: Cells) -> list[ShapeTable]:
    """The table of everybody, then one per shape of the users' preferences."""
    tables: list[ShapeTable] = []
    for shape, one in by_shape(cells).items():
        rows = [ShapeRow(method, utility_of(one, method), other) for method, other in versus(one)]
        tables.append(ShapeTable(shape, len(set(one.users)), tuple(rows)))
    return tables


def by_shape(cells: Cells) -> dict[str, Cells]:
    """All cells, and those of each shape where there are several."""
    own = [row.shape for row in cells.rows[cells.methods[0]]]
    shapes = cells.shapes if len(cells.shapes) > 1 else ()
    return {"all": cells} | {one: cells.where([other == one for other in own]) for one in shapes}


def versus(cells: Cells) -> Iterator[tuple[str, dict[str, Compared]]]:
    """Every method against base and system prompt, in one table; their own pair counts once."""
    rivals = [name for name in (BASE, PROMPT) if name in cells.methods]
    pairs = [(method, rival) for rival in rivals for method in cells.methods if method != rival]
    once = {
        pair: difference_of(cells, *pair)
        for place, pair in enumerate(pairs)
        if (pair[1], pair[0]) not in pairs[:place]
    }
    compared = adjusted(once)
    for method in cells.methods:
        yield method, {pair[1]: one for pair, one in compared.items() if pair[0] == method}


@dataclass(frozen=True)
class Budget:
    """What is best within a number of passes.

    The choice rests on the same answers, so the lead of the best is flattered.
    """

    passes: float  # of the base per sampled token, candidates included
    best: str  # method of the highest mean utility
    utility: Interval
    others: dict[str, Compared]  # within the passes: the best less each, Holm within the row

    @property
    def equals(self) -> tuple[str, ...]:
        """Methods that are not significantly different from the best."""
        return tuple(name for name in self.others if name not in self.worse)

    @property
    def worse(self) -> tuple[str, ...]:
        """Methods that are significantly worse."""
        return tuple(name for name, one in self.others.items() if one.is_significant)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **{part.name: getattr(self, part.name) for part in fields(self)},
            "not_significantly_different": self.equals,
        }


def frontier(cells: Cells) -> list[Budget]:
    """One row per number of passes that some method takes, fewest first."""
    passes = {method: passes_of(cells, method) for method in cells.methods if is_choice(method)}
    limits: list[float] = []  # the larger of those numbers that are one
    for value in sorted(passes.values()):
        if limits and value - limits[-1] <= SAME_PASSES:
            limits[-1] = value
        else:
            limits.append(value)
    return [_budget(cells, passes, limit) for limit in limits]


def best_within(cells: Cells, methods: Sequence[str]) -> str | None:
    """The method of the highest mean utility; the first of equals."""
    return max(methods, key=lambda method: float(cells.utility(method).mean()), default=None)


def _budget(cells: Cells, passes: dict[str, float], limit: float) -> Budget:
    within = [method for method, value in passes.items() if value <= limit + 1e-9]
    best = best_within(cells, within) or BASE
    differences = {
        (best, method): difference_of(cells, best, method) for method in within if method != best
    }
    others = {pair[1]: one for pair, one in adjusted(differences).items()}
    return Budget(limit, best, utility_of(cells, best), others)


def range_text(interval: Interval) -> str:
    """An estimate with its interval."""
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def signed_text(interval: Interval) -> str:
    """A difference with its interval."""
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def change_text(compared: Compared | None) -> str:
    """A difference with its interval, starred where it is significant."""
    if compared is None:
        return ""
    return signed_text(compared.interval) + (" *" if compared.is_significant else "")
