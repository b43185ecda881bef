"""How `auto` fares: against the system prompt, against the best method of as many passes.

And what it took, and whether the library's promise for what it took was kept.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.core.seeds import generator_for
from palate.core.templates import render_sentences
from palate.evaluate import compare
from palate.evaluate.catalogue import AUTO, BASE, PROMPT, entry_of
from palate.evaluate.cells import Cells
from palate.evaluate.rows import AnswerRow
from palate.metrics.intervals import Interval, bootstrap_interval


@dataclass(frozen=True)
class AutoRow:
    """`auto` for users of one shape, `all` for everybody."""

    shape: str
    passes: float  # of `auto` per sampled token
    versus_prompt: compare.Compared | None  # auto less the system prompt, where that was measured
    best_of_equal_passes: str | None  # other method that palate serves; flattered by the choice
    versus_best: compare.Compared | None  # auto less that method


@dataclass(frozen=True)
class Promise:
    """Whether the promised gain over the base was measured."""

    group: str  # a shape, or a method that was taken
    predicted: float  # mean promised gain, from `methods.json`
    measured: float  # mean measured gain on the same cells
    difference: Interval  # measured less predicted


@dataclass(frozen=True)
class AutoReport:
    """Everything said of `auto`."""

    rows: tuple[AutoRow, ...]  # one per shape
    taken: Mapping[str, Mapping[str, int]]  # shape to method taken to number of answers
    calibration: tuple[Promise, ...]  # by shape and by method taken
    sentences: tuple[str, ...]  # where `auto` is not the best, and what to use there


def auto_report(cells: Cells) -> AutoReport | None:
    """What the rows say of `auto`; `None` where it did not take part."""
    if AUTO not in cells.methods:
        return None
    shapes = compare.by_shape(cells)
    rows = _rows(shapes)
    groups, everything = dict(shapes), shapes["all"]
    taken = [taken_of(row) for row in everything.rows[AUTO]]
    for method in dict.fromkeys(taken):
        groups[f"took {method}"] = everything.where([other == method for other in taken])
    promises = [_group(name, some) for name, some in groups.items()]
    return AutoReport(
        rows=tuple(rows),
        taken={
            shape: dict(Counter(taken_of(row) for row in one.rows[AUTO]).most_common())
            for shape, one in shapes.items()
        },
        calibration=tuple(one for one in promises if one is not None),
        sentences=tuple(
            render_sentences(
                Path(__file__).parent / "templates/auto.txt.jinja",
                {"signed": compare.signed_text},
                rows=rows,
            )
        ),
    )


def taken_of(row: AnswerRow) -> str:
    """What was taken, with its number of candidates."""
    return f"{row.taken}+best-of-{row.n_candidates}" if row.n_candidates > 1 else row.taken


def _rows(shapes: Mapping[str, Cells]) -> list[AutoRow]:
    """All shapes, their p-values adjusted as one table."""
    passes = {shape: compare.passes_of(cells, AUTO) for shape, cells in shapes.items()}
    best = {shape: _best(cells, passes[shape]) for shape, cells in shapes.items()}
    differences = {
        (shape, kind): compare.difference_of(cells, AUTO, rival)
        for shape, cells in shapes.items()
        for kind, rival in (("prompt", PROMPT), ("best", best[shape]))
        if rival is not None and rival in cells.methods
    }
    both = compare.adjusted(differences)
    return [
        AutoRow(one, passes[one], both.get((one, "prompt")), best[one], both.get((one, "best")))
        for one in shapes
    ]


def _best(cells: Cells, passes: float) -> str | None:
    """The best other method that a library serves, of no more passes than `auto` took."""
    limit = passes + compare.SAME_PASSES
    rivals = [
        method
        for method in cells.methods
        if method != AUTO
        and compare.is_choice(method)
        and not entry_of(method).is_rival
        and compare.passes_of(cells, method) <= limit
    ]
    return compare.best_within(cells, rivals)


def _group(name: str, cells: Cells) -> Promise | None:
    """Promise and measurement; nothing where nothing was promised or one cell stands alone."""
    known = cells.where([row.predicted is not None for row in cells.rows[AUTO]])
    if not known.cells or not known.clusters:
        return None
    promised = np.array([row.predicted[0] for row in known.rows[AUTO] if row.predicted is not None])
    gained = known.utility(AUTO) - known.utility(BASE)
    difference = bootstrap_interval(
        gained - promised, generator=generator_for(0, "promise", name), **known.clusters
    )
    return Promise(name, float(promised.mean()), float(gained.mean()), difference)
