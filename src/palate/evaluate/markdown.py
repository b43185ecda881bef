"""The report as Markdown: tables by shape, cost, `auto`, what to choose, what failed."""

from collections.abc import Sequence

from palate.evaluate.advice import advice
from palate.evaluate.auto import AutoReport
from palate.evaluate.catalogue import entry_of
from palate.evaluate.compare import Budget, ShapeTable, change_text, range_text, signed_text
from palate.evaluate.report import Report
from palate.evaluate.scoreboard import MethodScore
from palate.evaluate.tables import CurvePoint

_MORE_HEADS = ("worst tenth", "well-formed", "KL", "passes", "kept per user")


def render_markdown(report: Report) -> str:
    """The text; every number is in `report.json` too."""
    cells = report.cells
    seeds = ", ".join(str(seed) for seed in sorted(set(cells.seeds)))
    lines = [
        "# Which method of personalising, when",
        "",
        f"{len(set(cells.users))} users ({report.n_clusters} that do not resemble each other), "
        f"{len(set(cells.prompts))} prompts, seeds {seeds}: {len(cells.cells)} answers per method. "
        f"Judge: {report.suite['judge']['kind']}. Brackets: 95 % intervals clustered by user and "
        "prompt; p-values are Holm's over the table. An asterisk: significant after that "
        "adjustment.",
        "",
        "## Which method to choose",
        "",
        *(f"{place}. {sentence}" for place, sentence in enumerate(advice(report), start=1)),
        "",
        *_board(report),
    ]
    for table in report.shapes:
        lines += _shape(table)
    lines += _frontier(report.frontier)
    if report.auto is not None:
        lines += _auto(report.auto)
    if report.learning:
        lines += ["## Gain over the base by number of comparisons", ""]
        lines += _curve(report.learning)
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


def _board(report: Report) -> list[str]:
    heads = ["method", "utility", "over base", "over prompt", "of bespoke", "worst user"]
    return [
        "## Scoreboard",
        "",
        *table_of([*heads, *_MORE_HEADS], [_score(score) for score in report.scores]),
        "## Against the base",
        "",
        *table_of(
            ["method", "ties out", "ties half", "ties lost", "at equal length", "decided after"],
            [_wins(score) for score in report.scores if score.wins is not None],
        ),
    ]


def _score(score: MethodScore) -> list[str]:
    return [
        entry_of(score.method).title,
        range_text(score.utility),
        change_text(score.gain),
        change_text(score.versus_prompt),
        f"{score.percent_of_bespoke.gain.estimate:.0%}"
        if score.percent_of_bespoke is not None
        else "",
        f"{score.worst_user:.3f}",
        f"{score.worst_tenth:.3f}",
        f"{score.well_formed:.1%}" if score.well_formed is not None else "",
        nats_text(score.kl.estimate) if score.kl is not None else "",
        f"{score.passes_per_token:.1f}",
        f"{score.facts.get('bytes_per_user', 0):,.0f} B",
    ]


def _wins(score: MethodScore) -> list[str]:
    if score.wins is None:
        return []
    rates, n = score.wins.rates, score.wins.n_to_decide
    return [
        entry_of(score.method).title,
        range_text(rates.ties_out) if rates.ties_out is not None else "",
        range_text(rates.ties_half),
        range_text(rates.ties_lost),
        range_text(score.wins.length_controlled),
        f"{n} prompts" if n is not None else "undecided",
    ]


def _shape(table: ShapeTable) -> list[str]:
    rows = [
        [
            entry_of(row.method).title,
            range_text(row.utility),
            change_text(row.versus.get("prompt")),
            change_text(row.versus.get("base")),
        ]
        for row in table.methods
    ]
    whom = "all users" if table.shape == "all" else f"preferences of the shape {table.shape}"
    heads = ["method", "utility", "over prompt", "over base"]
    return [f"## By shape: {whom} ({table.n_users})", "", *table_of(heads, rows)]


def _frontier(budgets: Sequence[Budget]) -> list[str]:
    rows = [
        [
            f"{budget.passes:.1f}",
            entry_of(budget.best).title,
            range_text(budget.utility),
            ", ".join(entry_of(one).title for one in budget.equals) or "none",
            ", ".join(entry_of(one).title for one in budget.worse) or "none",
        ]
        for budget in budgets
    ]
    heads = [
        "passes, at most",
        "best method",
        "utility",
        "not significantly different",
        "significantly worse",
    ]
    return [
        "## Utility against cost",
        "",
        "The best method within so many passes of the base per sampled token, candidates included. "
        "It is chosen by these same answers, which flatters it.",
        "",
        *table_of(heads, rows),
    ]


def _auto(auto: AutoReport) -> list[str]:
    rows = [
        [
            row.shape,
            f"{row.passes:.1f}",
            change_text(row.versus_prompt),
            "" if row.best_of_equal_passes is None else entry_of(row.best_of_equal_passes).title,
            change_text(row.versus_best),
        ]
        for row in auto.rows
    ]
    heads = ["users", "passes", "over prompt", "best of equal passes", "over that"]
    lines = ["## Auto", "", *table_of(heads, rows), *(f"- {one}" for one in auto.sentences)]
    lines += ["", "What auto took, answers by method:", ""]
    lines += [
        f"- {shape}: {', '.join(f'{name} {n}' for name, n in counts.items())}"
        for shape, counts in auto.taken.items()
    ]
    if auto.calibration:
        promised = [
            [one.group, f"{one.predicted:+.3f}", f"{one.measured:+.3f}", range_text(one.difference)]
            for one in auto.calibration
        ]
        heads = ["answers", "predicted gain", "measured gain", "measured less predicted"]
        lines += ["", "Predicted and measured gain over the base:", ""]
        lines += table_of(heads, promised)
    return [*lines, ""]


def _curve(points: Sequence[CurvePoint]) -> list[str]:
    rows = [
        [
            entry_of(point.method).title,
            str(point.n_comparisons),
            signed_text(point.difference.interval),
            f"{point.worst:+.3f}",
        ]
        for point in points
    ]
    return table_of(["method", "comparisons", "mean", "worst user"], rows)


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)] + [""]
