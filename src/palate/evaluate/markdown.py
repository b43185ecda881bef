"""The report as Markdown: the headline table, what to choose, what failed."""

from palate.evaluate.advice import advice
from palate.evaluate.catalogue import entry_of
from palate.evaluate.report import Report
from palate.evaluate.scoreboard import WayScore
from palate.evaluate.tables import CurvePoint
from palate.metrics.intervals import Interval

_MORE_HEADS = ("worst tenth", "well-formed", "KL", "passes", "kept per person")


def render_markdown(report: Report) -> str:
    """The text; every number is in `report.json` too."""
    cells = report.cells
    seeds = ", ".join(str(seed) for seed in sorted(set(cells.seeds)))
    lines = [
        "# Which way of personalising, when",
        "",
        f"{len(set(cells.people))} people, {len(set(cells.prompts))} prompts, seeds {seeds}: "
        f"{len(cells.cells)} answers per way. Judge: {report.suite['judge']['kind']}. Brackets: "
        "95 % intervals clustered by person and prompt; p-values are Holm's over the table.",
        "",
        "## Which way to choose",
        "",
        *(f"{place}. {sentence}" for place, sentence in enumerate(advice(report), start=1)),
        "",
        "## Scoreboard",
        "",
        _row(
            ["way", "utility", "gain over base", "p", "of bespoke", "worst person", *_MORE_HEADS],
        ),
        _row(["---"] * 11),
        *(_score(score) for score in report.scores),
        "",
        "## Against the base",
        "",
        _row(["way", "ties out", "ties half", "ties lost", "at equal length", "decided after"]),
        _row(["---"] * 6),
        *(_wins(score) for score in report.scores if score.wins is not None),
        "",
    ]
    if report.gap:
        lines += ["## Loss by portfolio size, against an expert of one's own", ""]
        lines += _curve(report.gap, x="members", bound="certified for everybody")
    if report.learning:
        lines += ["## Gain over the base by number of comparisons", ""]
        lines += _curve(report.learning, x="comparisons")
    lines += ["## What failed", ""]
    lines += [f"- {sentence}" for sentence in (*report.failures, *report.notes)] or ["Nothing."]
    return "\n".join(lines) + "\n"


def nats_text(value: float) -> str:
    """Nats with two digits; what rounds to nothing has no sign.

    Example:
        >>> nats_text(-0.0004)
        '0.00'
    """
    return f"{round(value, 2) + 0.0:.2f}"


def _score(score: WayScore) -> str:
    is_base = score.wins is None
    return _row(
        [
            entry_of(score.way).title,
            _range(score.utility),
            "" if is_base else _signed(score.gain.interval),
            "" if is_base else f"{score.p_adjusted:.3f}",
            f"{score.share.gain.estimate:.0%}" if score.share is not None else "",
            f"{score.worst_person:.3f}",
            f"{score.worst_tenth:.3f}",
            f"{score.well_formed:.1%}" if score.well_formed is not None else "",
            nats_text(score.kl.estimate) if score.kl is not None else "",
            f"{score.passes:.1f}",
            f"{score.facts.get('bytes_per_person', 0):,.0f} B",
        ]
    )


def _wins(score: WayScore) -> str:
    if score.wins is None:
        return ""
    rates = score.wins.rates
    n = score.wins.n_to_decide
    return _row(
        [
            entry_of(score.way).title,
            _range(rates.ties_out) if rates.ties_out is not None else "",
            _range(rates.ties_half),
            _range(rates.ties_lost),
            _range(score.wins.length_controlled),
            f"{n} prompts" if n is not None else "undecided",
        ]
    )


def _curve(points: tuple[CurvePoint, ...], *, x: str, bound: str = "") -> list[str]:
    heads = [x, "mean", "worst person", *([bound] if bound else [])]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for point in points:
        cells = [str(point.x), _signed(point.difference.interval), f"{point.worst:+.3f}"]
        if bound:
            cells.append("" if point.bound is None else f"{point.bound:.3f}")
        lines.append(_row(cells))
    return [*lines, ""]


def _range(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
