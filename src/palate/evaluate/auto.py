"""How `auto` fares: against the system prompt, against the best method of as many passes.

And what it took, and whether the library's promise for what it took was kept.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.core.seeds import generator_for
from palate.evaluate.catalogue import entry_of
from palate.evaluate.cells import Cells
from palate.evaluate.compare import (
    Compared,
    Pair,
    adjusted,
    by_shape,
    difference_of,
    is_choice,
    passes_of,
)
from palate.evaluate.entrant_name import AUTO, BASE, PROMPT
from palate.evaluate.frontier import SAME_PASSES, best_within
from palate.evaluate.rows import AnswerRow
from palate.metrics.differences import Difference
from palate.metrics.intervals import Interval, bootstrap_interval


@dataclass(frozen=True)
class AutoRow:
    """`auto` for users of one shape.

    Attributes:
        shape: Name; `all` for everybody.
        passes: Of `auto` per sampled token.
        versus_prompt: `auto` less the system prompt; `None` where that was not measured.
        best: Best other method that palate serves, of no more passes; `None` without one. The
            choice rests on the same answers, which flatters it.
        versus_best: `auto` less that method.
    """

    shape: str
    passes: float
    versus_prompt: Compared | None
    best: str | None
    versus_best: Compared | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "shape": self.shape,
            "passes": self.passes,
            "versus_prompt": self.versus_prompt and self.versus_prompt.to_json(),
            "best_of_equal_passes": self.best,
            "versus_best": self.versus_best and self.versus_best.to_json(),
        }


@dataclass(frozen=True)
class Kept:
    """Whether the promised gain over the base was measured.

    Attributes:
        group: A shape, or a method that was taken.
        predicted: Mean promised gain, from `methods.json`.
        measured: Mean measured gain on the same cells.
        difference: Measured less predicted, with its interval.
    """

    group: str
    predicted: float
    measured: float
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "difference": self.difference.to_json()}


@dataclass(frozen=True)
class AutoReport:
    """Everything said of `auto`.

    Attributes:
        rows: One per shape.
        taken: Shape to method taken to number of answers.
        kept: Promise against measurement, by shape and by method taken.
        sentences: Where `auto` is not the best, and what to use there.
    """

    rows: tuple[AutoRow, ...]
    taken: Mapping[str, Mapping[str, int]]
    kept: tuple[Kept, ...]
    sentences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "taken": {shape: dict(counts) for shape, counts in self.taken.items()},
            "calibration": [one.to_json() for one in self.kept],
            "sentences": list(self.sentences),
        }


def auto_report(cells: Cells) -> AutoReport | None:
    """What the rows say of `auto`; `None` where it did not take part."""
    if AUTO not in cells.methods:
        return None
    shapes = by_shape(cells)
    rows = _rows(shapes)
    return AutoReport(
        rows=tuple(rows),
        taken={
            shape: dict(Counter(taken_of(row) for row in one.rows[AUTO]).most_common())
            for shape, one in shapes.items()
        },
        kept=tuple(_kept(shapes)),
        sentences=tuple(sentence for row in rows for sentence in _sentences(row)),
    )


def taken_of(row: AnswerRow) -> str:
    """What was taken, with its number of candidates."""
    return f"{row.taken}+best-of-{row.n_candidates}" if row.n_candidates > 1 else row.taken


def _rows(shapes: Mapping[str, Cells]) -> list[AutoRow]:
    """All shapes, their p-values adjusted as one table."""
    best = {shape: _best(cells) for shape, cells in shapes.items()}
    differences: dict[Pair, Difference] = {}
    for shape, cells in shapes.items():
        rivals = {"prompt": PROMPT if PROMPT in cells.methods else None, "best": best[shape]}
        for kind, rival in rivals.items():
            if rival is not None:
                differences[shape, kind] = difference_of(cells, AUTO, rival)
    found = adjusted(differences)
    return [
        AutoRow(
            shape,
            passes_of(cells, AUTO),
            found.get((shape, "prompt")),
            best[shape],
            found.get((shape, "best")),
        )
        for shape, cells in shapes.items()
    ]


def _best(cells: Cells) -> str | None:
    """The best other method that a library serves, of no more passes than `auto` took."""
    limit = passes_of(cells, AUTO) + SAME_PASSES
    rivals = [
        method
        for method in cells.methods
        if method != AUTO
        and is_choice(method)
        and not entry_of(method).is_rival
        and passes_of(cells, method) <= limit
    ]
    return best_within(cells, rivals)


def _sentences(row: AutoRow) -> list[str]:
    whom = "all users" if row.shape == "all" else f"users of the shape {row.shape!r}"
    found: list[str] = []
    if row.versus_prompt is not None and row.versus_prompt.interval.estimate <= 0:
        found.append(
            f"For {whom} auto does not win against a system prompt: "
            f"{_said(row.versus_prompt)}; "
            + (f"use {row.best}." if row.versus_prompt.is_significant else "either will do.")
        )
    if row.best is None or row.versus_best is None or row.versus_best.interval.estimate > 0:
        return found
    advice = f"use {row.best} there" if row.versus_best.is_significant else "either will do"
    found.append(
        f"For {whom} auto does not win against the best method of equal passes, {row.best}: "
        f"{_said(row.versus_best)}; {advice}."
    )
    return found


def _said(one: Compared) -> str:
    interval = one.interval
    state = "significantly worse" if one.is_significant else "not significantly different"
    return (
        f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}], {state}"
        if interval.estimate != 0 or one.is_significant
        else f"+0.000, {state}"
    )


def _kept(shapes: Mapping[str, Cells]) -> list[Kept]:
    groups = dict(shapes)
    everything = shapes["all"]
    for taken in dict.fromkeys(taken_of(row) for row in everything.rows[AUTO]):
        own = everything.where([taken_of(row) == taken for row in everything.rows[AUTO]])
        groups[f"took {taken}"] = own
    found = [_group(name, cells) for name, cells in groups.items()]
    return [one for one in found if one is not None]


def _group(name: str, cells: Cells) -> Kept | None:
    """Promise and measurement; nothing where nothing was promised or one cell stands alone."""
    known = cells.where([row.predicted is not None for row in cells.rows[AUTO]])
    if not known.cells or not known.clusters:
        return None
    promised = np.array([row.predicted[0] for row in known.rows[AUTO] if row.predicted is not None])
    gained = known.utility(AUTO) - known.utility(BASE)
    difference = bootstrap_interval(
        gained - promised, generator=generator_for(0, "promise", name), **known.clusters
    )
    return Kept(name, float(promised.mean()), float(gained.mean()), difference)
