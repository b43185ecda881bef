"""Utility against cost: for every number of passes per token, which method is best within it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palate.evaluate.cells import Cells
from palate.evaluate.compare import (
    Compared,
    adjusted,
    difference_of,
    is_choice,
    passes_of,
    utility_of,
)
from palate.metrics.intervals import Interval

SAME_PASSES = 0.05  # numbers of passes that are closer are one


@dataclass(frozen=True)
class Budget:
    """What is best within a number of passes.

    Attributes:
        passes: Of the base per sampled token, candidates included.
        best: Method of the highest mean utility; the choice rests on the same answers, so its lead
            is flattered.
        utility: Of the best.
        others: Every other method within the passes: the best one less it, Holm within the row.
    """

    passes: float
    best: str
    utility: Interval
    others: dict[str, Compared]

    @property
    def equals(self) -> tuple[str, ...]:
        """Methods that are not significantly different from the best."""
        return tuple(name for name, one in self.others.items() if not one.is_significant)

    @property
    def worse(self) -> tuple[str, ...]:
        """Methods that are significantly worse."""
        return tuple(name for name, one in self.others.items() if one.is_significant)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "passes": self.passes,
            "best": self.best,
            "utility": self.utility.to_json(),
            "not_significantly_different": list(self.equals),
            "others": {name: one.to_json() for name, one in self.others.items()},
        }


def frontier(cells: Cells) -> list[Budget]:
    """One row per number of passes that some method takes, fewest first."""
    passes = {method: passes_of(cells, method) for method in cells.methods if is_choice(method)}
    return [_budget(cells, passes, limit) for limit in _limits(sorted(passes.values()))]


def best_within(cells: Cells, methods: Sequence[str]) -> str | None:
    """The method of the highest mean utility; the first of equals."""
    return max(methods, key=lambda method: float(cells.utility(method).mean()), default=None)


def _limits(passes: Sequence[float]) -> list[float]:
    """Numbers of passes, the larger of those that are one."""
    found: list[float] = []
    for value in passes:
        if found and value - found[-1] <= SAME_PASSES:
            found[-1] = value
        else:
            found.append(value)
    return found


def _budget(cells: Cells, passes: dict[str, float], limit: float) -> Budget:
    within = [method for method, value in passes.items() if value <= limit + 1e-9]
    best = max(within, key=lambda method: float(cells.utility(method).mean()))
    differences = {
        (best, method): difference_of(cells, best, method) for method in within if method != best
    }
    others = {pair[1]: one for pair, one in adjusted(differences).items()}
    return Budget(limit, best, utility_of(cells, best), others)
