"""Everything on the report, computed from rows and the suite, and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.templates import render_sentences
from palate.evaluate.auto import AutoReport, auto_report
from palate.evaluate.catalogue import entry_of
from palate.evaluate.cells import Cells, pair_up
from palate.evaluate.compare import Budget, ShapeTable, frontier, shape_tables, signed_text
from palate.evaluate.rows import FactRow, Results, plain
from palate.evaluate.scoreboard import (
    CurvePoint,
    Front,
    Matrix,
    MethodScore,
    fronts,
    gain_by_comparisons,
    score_methods,
    win_matrix,
)

TEMPLATES = Path(__file__).parent / "templates"
FRONT_METHODS = ("base", "prompt", "portfolio", "soup", "prompted-soup", "mixture", "conditioned")
SHOWN_METHODS = ("base", "prompt", "auto", "soup", "prompted-soup", "mixture", "conditioned")
LEAST_WELL_FORMED = 0.95
QUIET = 0.95  # share of a core from which speeds are compared
FALLBACKS = 0.01  # share of an implicit soup's tokens from which it is worth a word


@dataclass(frozen=True)
class Example:
    """One user's answers to one prompt."""

    user: str
    wanted: str  # objectives
    answers: Mapping[str, tuple[str, float]]  # method to text and utility


@dataclass(frozen=True, eq=False)
class Report:
    """What the rows say together."""

    suite: Mapping[str, Any]  # as resolved
    cells: Cells
    scores: tuple[MethodScore, ...]
    shapes: tuple[ShapeTable, ...]
    frontier: tuple[Budget, ...]
    auto: AutoReport | None  # None where `auto` did not take part
    matrix: Matrix
    learning: tuple[CurvePoint, ...]
    fronts: tuple[Front, ...]
    prompt: str  # of the examples
    examples: tuple[Example, ...]  # one per user
    tokens: Mapping[str, Any] | None  # of the mixture's traced answer
    core_share: float | None  # least part of a core that a race for speed had
    facts: tuple[FactRow, ...]
    failures: tuple[str, ...]  # what fell short
    notes: tuple[str, ...]  # what was repaired, and what has to be said of the judge

    def score(self, method: str) -> MethodScore | None:
        """The method's score, or `None`."""
        return next((score for score in self.scores if score.method == method), None)

    @property
    def has_quiet_speeds(self) -> bool:
        """Whether speeds were measured while nothing else took the core."""
        return self.core_share is not None and self.core_share >= QUIET

    @property
    def n_clusters(self) -> int:
        """Users that do not resemble each other."""
        return len({row.cluster or row.user for row in self.cells.rows[self.cells.methods[0]]})

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "suite": dict(self.suite),
            "n_cells": len(self.cells.cells),
            "n_users": len(set(self.cells.users)),
            "n_clusters": self.n_clusters,
            "n_prompts": len(set(self.cells.prompts)),
            "seeds": sorted(set(self.cells.seeds)),
            "n_left_out": self.cells.n_left_out,
            "methods": plain(self.scores),
            **{name: plain(getattr(self, name)) for name in ("shapes", "frontier", "auto")},
            "matrix": plain(self.matrix),
            "gain_by_comparisons": plain(self.learning),
            "fronts": plain(self.fronts),
            "speeds": {"core_share": self.core_share, "are_comparable": self.has_quiet_speeds},
            "failures": list(self.failures),
            "notes": list(self.notes),
        }


def make_report(suite: Mapping[str, Any], results: Results) -> Report:
    """The report of all rows of a suite, which is as `suite.json` holds it.

    Raises:
        InvalidInputError: a method has no rows, or the methods share no cell.
    """
    preferences = {user["name"]: user["preference"] for user in suite["users"]}
    cells = pair_up(results.answers, methods=suite["methods"])
    facts = sorted(results.facts, key=lambda fact: [str(part) for part in fact.key])
    scores = tuple(score_methods(cells, facts, preferences=preferences))
    shown = [method for method in FRONT_METHODS if method in cells.methods]
    prompt = cells.cells[0][1]
    traced = [fact for fact in facts if fact.name == "shares_per_token"]
    core_shares = [float(f.detail["core_share"]) for f in facts if "core_share" in f.detail]
    return Report(
        suite=suite,
        cells=cells,
        scores=scores,
        shapes=tuple(shape_tables(cells)),
        frontier=tuple(frontier(cells)),
        auto=auto_report(cells),
        matrix=win_matrix(cells),
        learning=tuple(gain_by_comparisons(cells)),
        fronts=tuple(fronts(cells, shown, preferences=preferences)),
        prompt=prompt,
        examples=tuple(_examples(cells, prompt, preferences)),
        tokens=traced[0].detail if traced else None,
        core_share=min(core_shares, default=None),
        facts=tuple(facts),
        failures=tuple(failures_of(scores, cells, facts)),
        notes=tuple(results.notes),
    )


def failures_of(scores: Sequence[MethodScore], cells: Cells, facts: Sequence[FactRow]) -> list[str]:
    """What fell short, each in a sentence with its number."""
    gains = [(score, score.gain) for score in scores if score.gain is not None]
    fallen = [(score, gain.is_significant) for score, gain in gains if not gain.is_gain]
    formed = [(score, score.well_formed) for score in scores if score.well_formed is not None]
    return render_sentences(
        TEMPLATES / "failures.txt.jinja",
        {"title": lambda score: entry_of(score.method).title, "signed": signed_text},
        worse=[score for score, is_significant in fallen if is_significant],
        doubtful=[score for score, is_significant in fallen if not is_significant],
        broken=[score for score, share in formed if share < LEAST_WELL_FORMED],
        least_well_formed=LEAST_WELL_FORMED,
        fallbacks=[
            fact
            for fact in facts
            if fact.name == "proposals_per_token" and fact.detail["fallback_share"] > FALLBACKS
        ],
        n_left_out=cells.n_left_out,
    )


def _examples(
    cells: Cells, prompt: str, preferences: Mapping[str, Mapping[str, float]]
) -> list[Example]:
    seed = min(cells.seeds)
    methods = [method for method in SHOWN_METHODS if method in cells.methods]
    examples: list[Example] = []
    for user, shares in preferences.items():
        answers: dict[str, tuple[str, float]] = {}
        for method in methods:
            for row in cells.rows[method]:
                if (row.user, row.prompt, row.seed, row.copy) == (user, prompt, seed, 0):
                    answers[method] = (row.text.strip(), row.utility)
        examples.append(Example(user, wanted_text(shares), answers))
    return examples


def wanted_text(shares: Mapping[str, float]) -> str:
    """The wanted objectives, with their shares where these differ.

    Example:
        >>> wanted_text({"short": 0.7, "kind": 0.3})
        'short 70 %, kind 30 %'
    """
    wanted = {name: share for name, share in shares.items() if share > 0}
    if max(wanted.values()) - min(wanted.values()) < 1e-6:
        return ", ".join(wanted)
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in wanted.items())
