"""Everything on the report, computed from rows and the suite, and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.evaluate.catalogue import entry_of
from palate.evaluate.cells import Cells, pair_up
from palate.evaluate.rows import FactRow, Results
from palate.evaluate.scoreboard import BASE, WayScore, score_ways
from palate.evaluate.tables import (
    CurvePoint,
    Front,
    Matrix,
    fronts,
    gain_by_comparisons,
    gap_by_size,
    win_matrix,
)

FRONT_WAYS = ("base", "prompting", "portfolio-3", "soup", "soup-told", "mixture", "conditioned")
SHOWN_WAYS = ("base", "prompting", "portfolio-8", "soup", "soup-told", "mixture", "conditioned")
LEAST_WELL_FORMED = 0.95
LEVEL = 0.05
QUIET = 0.95  # share of a core from which speeds are compared
FALLBACKS = 0.01  # share of an implicit soup's tokens from which it is worth a word


@dataclass(frozen=True)
class Example:
    """One person's answers to one prompt.

    Attributes:
        person: Name.
        taste: Wanted objectives.
        answers: Way to text and utility.
    """

    person: str
    taste: str
    answers: Mapping[str, tuple[str, float]]


@dataclass(frozen=True, eq=False)
class Report:
    """What the rows say together.

    Attributes:
        suite: As resolved.
        cells: Paired answers.
        scores: One per way.
        matrix: Pairs of ways.
        gap: By portfolio size.
        learning: By comparisons.
        fronts: Of opposed objectives.
        prompt: Of the examples.
        examples: One per person.
        tokens: Detail of the mixture's traced answer, or `None`.
        core_share: Least part of a core that a race for speed had; `None` where nothing was timed.
        facts: All facts.
        failures: What fell short, in sentences.
        notes: What was repaired.
    """

    suite: Mapping[str, Any]
    cells: Cells
    scores: tuple[WayScore, ...]
    matrix: Matrix
    gap: tuple[CurvePoint, ...]
    learning: tuple[CurvePoint, ...]
    fronts: tuple[Front, ...]
    prompt: str
    examples: tuple[Example, ...]
    tokens: Mapping[str, Any] | None
    core_share: float | None
    facts: tuple[FactRow, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    def score(self, way: str) -> WayScore | None:
        """The way's score, or `None`."""
        return next((score for score in self.scores if score.way == way), None)

    @property
    def has_quiet_speeds(self) -> bool:
        """Whether speeds were measured while nothing else took the core."""
        return self.core_share is not None and self.core_share >= QUIET

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "suite": dict(self.suite),
            "n_cells": len(self.cells.cells),
            "n_people": len(set(self.cells.people)),
            "n_prompts": len(set(self.cells.prompts)),
            "seeds": sorted(set(self.cells.seeds)),
            "n_left_out": self.cells.n_left_out,
            "ways": [score.to_json() for score in self.scores],
            "matrix": self.matrix.to_json(),
            "gap_by_size": [point.to_json() for point in self.gap],
            "gain_by_comparisons": [point.to_json() for point in self.learning],
            "fronts": [front.to_json() for front in self.fronts],
            "speeds": {"core_share": self.core_share, "are_comparable": self.has_quiet_speeds},
            "failures": list(self.failures),
            "notes": list(self.notes),
        }


def make_report(suite: Mapping[str, Any], results: Results) -> Report:
    """The report of a results file.

    Args:
        suite: As `suite.json` holds it: people with their preferences, ways, judge.
        results: All rows.

    Raises:
        InvalidInputError: a way has no rows, or the ways share no cell.
    """
    preferences = {person["name"]: person["preference"] for person in suite["people"]}
    cells = pair_up(results.answers, ways=suite["ways"])
    facts = sorted(results.facts, key=lambda fact: [str(part) for part in fact.key])
    scores = tuple(score_ways(cells, facts, preferences=preferences))
    front_ways = [way for way in FRONT_WAYS if way in cells.ways]
    prompt = cells.cells[0][1]
    traced = [fact for fact in facts if fact.name == "shares_per_token"]
    core_shares = [float(f.detail["core_share"]) for f in facts if "core_share" in f.detail]
    return Report(
        suite=suite,
        cells=cells,
        scores=scores,
        matrix=win_matrix(cells),
        gap=tuple(gap_by_size(cells, facts)),
        learning=tuple(gain_by_comparisons(cells)),
        fronts=tuple(fronts(cells, front_ways, preferences=preferences)),
        prompt=prompt,
        examples=tuple(_examples(cells, prompt, preferences)),
        tokens=traced[0].detail if traced else None,
        core_share=min(core_shares, default=None),
        facts=tuple(facts),
        failures=tuple(failures_of(scores, cells, facts)),
        notes=tuple(results.notes),
    )


def failures_of(scores: Sequence[WayScore], cells: Cells, facts: Sequence[FactRow]) -> list[str]:
    """What fell short, each in a sentence with its number."""
    worse: list[str] = []
    doubtful: list[str] = []
    broken: list[str] = []
    for score in scores:
        title, gain = entry_of(score.way).title, score.gain.interval
        text = f"{title} {gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        if score.way != BASE and gain.high < 0:
            worse.append(text)
        elif score.way != BASE and (gain.low <= 0 or score.p_adjusted > LEVEL):
            doubtful.append(text)
        if score.well_formed is not None and score.well_formed < LEAST_WELL_FORMED:
            broken.append(f"{title} {score.well_formed:.1%}")
    groups = {
        "Worse than the base": worse,
        "No gain over the base beyond doubt": doubtful,
        f"Fewer than {LEAST_WELL_FORMED:.0%} of answers well-formed": broken,
    }
    found = [f"{name}: {', '.join(some)}." for name, some in groups.items() if some]
    found += [
        f"Implicit soup, seed {fact.seed}: {fact.value:.1f} proposals per token, and "
        f"{fact.detail['fallback_share']:.1%} of tokens reached the cap and were drawn from the "
        "explicit soup."
        for fact in facts
        if fact.name == "proposals_per_token" and fact.detail["fallback_share"] > FALLBACKS
    ]
    if cells.n_left_out:
        found.append(
            f"{cells.n_left_out} answers were left out, because another way has none to the same "
            "prompt."
        )
    return found


def _examples(
    cells: Cells, prompt: str, preferences: Mapping[str, Mapping[str, float]]
) -> list[Example]:
    seed = min(cells.seeds)
    ways = [way for way in SHOWN_WAYS if way in cells.ways]
    found: list[Example] = []
    for person, shares in preferences.items():
        answers: dict[str, tuple[str, float]] = {}
        for way in ways:
            for row in cells.rows[way]:
                if (row.person, row.prompt, row.seed, row.copy) == (person, prompt, seed, 0):
                    answers[way] = (row.text.strip(), row.utility)
        wanted = ", ".join(name for name, share in shares.items() if share > 0)
        found.append(Example(person, wanted, answers))
    return found
