"""Yardstick B's table: cells with intervals, the recorded table beside it, and what must hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.core.errors import CheckFailedError
from palate.core.seeds import generator_for
from palate.metrics.intervals import Interval, bootstrap_interval

Cell = tuple[str, int, int]
"""Way, number of experts, number of comparisons."""

_SIZES = (4, 7, 15, 30)
_VOTES = (10, 30, 100, 300)
_LEARNED = {
    "ridge": ((41, 66, 64, 59), (38, 72, 73, 78), (31, 73, 82, 88), (12, 65, 84, 90)),
    "prior": ((52, 68, 70, 63), (64, 82, 86, 87), (66, 85, 89, 91), (66, 85, 90, 91)),
}
_KNOWN = {
    "reward space": (38, 80, 90, 93),
    "Q space": (79, 94, 99, 99.9),
    "Q space, simplex": (40, 68, 86, 95),
    "sum of absolute coefficients": (2.9, 3.5, 5.4, 10.6),
}
RECORDED: dict[Cell, float] = {
    **{
        (method, size, n): float(values[row][column])
        for method, values in _LEARNED.items()
        for row, size in enumerate(_SIZES)
        for column, n in enumerate(_VOTES)
    },
    **{
        (method, size, 0): float(values[row])
        for method, values in _KNOWN.items()
        for row, size in enumerate(_SIZES)
    },
    ("ridge, stage 1", 7, 100): 75.0,
    ("ridge, stage 2", 7, 100): 88.0,
    ("ridge, stage 1", 7, 300): 77.0,
    ("ridge, stage 2", 7, 300): 92.0,
    ("ridge, stage 1", 15, 30): 84.0,
    ("ridge, stage 2", 15, 30): 68.0,
    ("ridge, stage 1", 15, 100): 87.0,
    ("ridge, stage 2", 15, 100): 89.0,
    ("ridge, stage 1", 15, 300): 90.0,
    ("ridge, stage 2", 15, 300): 96.0,
    ("prior, stage 1", 15, 100): 91.0,
    ("prior, stage 2", 15, 100): 94.0,
    ("prior, stage 1", 15, 300): 92.0,
    ("prior, stage 2", 15, 300): 97.0,
    ("no budget", 15, 5): 32.0,
    ("budget 0.1", 15, 5): 48.0,
    ("budget 0.2", 15, 5): 46.0,
    ("no budget", 15, 10): 41.0,
    ("budget 0.1", 15, 10): 61.0,
    ("budget 0.2", 15, 10): 62.0,
    ("no budget", 15, 30): 62.0,
    ("budget 0.1", 15, 30): 75.0,
    ("budget 0.2", 15, 30): 82.0,
    ("no budget", 15, 100): 82.0,
    ("budget 0.1", 15, 100): 78.0,
    ("budget 0.2", 15, 100): 87.0,
}
"""Percent of the possible gain, from other implementations; sums as they are."""

TOLERANCE = 1.0  # points; the recorded numbers are rounded to whole ones


@dataclass(frozen=True)
class Row:
    """One user's result in one cell.

    Attributes:
        seed: Of the world.
        method: How the coefficients were found.
        n_experts: How many there were.
        n_comparisons: Zero where none were needed.
        value: Percent of the possible gain.
    """

    seed: int
    method: str
    n_experts: int
    n_comparisons: int
    value: float


@dataclass(frozen=True)
class YardstickReport:
    """Every cell, and what must hold of them.

    Attributes:
        cells: Mean over users with an interval that resamples worlds.
        worst: Lowest user of every cell.
        ranks: Effective ranks of the 30 experts' tilts, one mapping per world.
        failures: One sentence per check that failed.
    """

    cells: dict[Cell, Interval]
    worst: dict[Cell, float]
    ranks: tuple[dict[float, int], ...]
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "cells": [
                {
                    "way": method,
                    "n_experts": size,
                    "n_comparisons": n,
                    **interval.to_json(),
                    "worst": self.worst[method, size, n],
                    "recorded": RECORDED.get((method, size, n)),
                }
                for (method, size, n), interval in self.cells.items()
            ],
            "effective_rank": [
                {str(share): rank for share, rank in ranks.items()} for ranks in self.ranks
            ],
            "largest_difference_to_recorded": self.largest_difference(),
            "failures": list(self.failures),
        }

    def largest_difference(self) -> float:
        """Largest distance of a cell from the recorded one, in points."""
        return max(
            abs(interval.estimate - RECORDED[cell])
            for cell, interval in self.cells.items()
            if cell in RECORDED
        )

    def require_met(self) -> None:
        """Return when every check holds.

        Raises:
            CheckFailedError: one does not; the message says which.
        """
        if self.failures:
            raise CheckFailedError(" ".join(self.failures))

    def to_markdown(self) -> str:
        """The report as a page."""
        lines = [
            "# Yardstick B: coefficients on token trees with known answers",
            "",
            "Percent of the gain from the base model to a policy made for the user: mean over n "
            "users, 95 % interval over worlds in brackets, and what other implementations "
            "recorded. Made by `python -m research.soup.yardstick`.",
            "",
            "| way | experts | comparisons | n | percent | recorded | lowest user |",
            "|---|---|---|---|---|---|---|",
        ]
        for (method, size, n), interval in self.cells.items():
            recorded = RECORDED.get((method, size, n))
            lines.append(
                f"| {method} | {size} | {n or ''} | {interval.n} | {interval.estimate:.1f} "
                f"[{interval.low:.1f}, {interval.high:.1f}] | "
                f"{'' if recorded is None else f'{recorded:g}'} | "
                f"{self.worst[method, size, n]:.1f} |"
            )
        named = {share: sorted(ranks[share] for ranks in self.ranks) for share in self.ranks[0]}
        lines += [
            "",
            *(
                f"Directions that carry {100 * share:g} % of the tilts' energy: "
                f"{values[0]} to {values[-1]}."
                for share, values in named.items()
            ),
            "",
            f"Largest difference to a recorded value: {self.largest_difference():.2f} points.",
            "",
            *(self.failures or ("All checks hold.",)),
        ]
        return "\n".join(lines) + "\n"


def make_report(rows: Sequence[Row], ranks: Sequence[dict[float, int]]) -> YardstickReport:
    """The table of the rows, checked."""
    grouped: dict[Cell, list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.method, row.n_experts, row.n_comparisons), []).append(row)
    cells = {
        cell: bootstrap_interval(
            np.array([row.value for row in found]),
            clusters=[row.seed for row in found],
            generator=generator_for(0, *cell),
        )
        for cell, found in grouped.items()
    }
    worst = {cell: min(row.value for row in found) for cell, found in grouped.items()}
    return YardstickReport(cells, worst, tuple(ranks), tuple(_failures(cells, worst)))


def _failures(cells: dict[Cell, Interval], worst: dict[Cell, float]) -> list[str]:
    wrong = [
        f"{method} with {size} experts and {n} comparisons is "
        f"{cells[method, size, n].estimate:.1f}, not {value:g} within {TOLERANCE:g}."
        for (method, size, n), value in RECORDED.items()
        if abs(cells[method, size, n].estimate - value) > TOLERANCE
    ]
    above = [
        *((("Q space", k, 0), ("reward space", k, 0)) for k in _SIZES),
        *((("prior", k, n), ("ridge", k, n)) for k in _SIZES for n in (10, 30)),
        *(
            ((f"{method}, stage 2", k, n), (f"{method}, stage 1", k, n))
            for method, k in (("ridge", 7), ("ridge", 15), ("prior", 15))
            for n in (100, 300)
        ),
    ]
    wrong += [
        f"{better} ({cells[better].estimate:.1f}) is not above {other} "
        f"({cells[other].estimate:.1f})."
        for better, other in above
        if cells[better].estimate <= cells[other].estimate
    ]
    wrong += [
        f"The gate lets stage 2 spoil {method} with {size} experts at {n} comparisons."
        for method, size, n in (("ridge", 7, 30), ("ridge", 15, 30))
        if cells[f"{method}, gated", size, n].estimate
        < cells[f"{method}, stage 1", size, n].estimate - TOLERANCE
    ]
    wrong += [
        f"A budget of {budget} does not help the worst user at {n} comparisons."
        for budget in (0.1, 0.2)
        for n in (5, 10, 30, 100)
        if worst[f"budget {budget}", 15, n] <= worst["no budget", 15, n]
    ]
    wrong += [
        f"The corrected soup of {k} experts reaches {cells['reward space, corrected', k, 0].low}."
        for k in _SIZES
        if abs(cells["reward space, corrected", k, 0].low - 100) > 1e-6
    ]
    return wrong
