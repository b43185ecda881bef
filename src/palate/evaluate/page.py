"""The report as Markdown, and as one HTML file: no script, font or picture from elsewhere.

Its advice is sentences drawn from the scoreboard's numbers: which method to choose when.
"""

import numpy as np

from palate.core.templates import render_sentences, render_template
from palate.evaluate.catalogue import BASE, entry_of, parse_name
from palate.evaluate.compare import change_text, is_choice, range_text, signed_text
from palate.evaluate.plots.charts import (
    Line,
    Point,
    as_page_svg,
    forest,
    front_panels,
    frontier_figure,
    heat_table,
    lines_figure,
    token_heat,
)
from palate.evaluate.report import TEMPLATES, Report

NEARLY_ONE_PASS = 1.01
LEAST_READ = 0.93  # share of well-formed answers below which a method is warned of
MOST_LISTED = 4
LARGE_SHARE = 0.8  # of the gain with the preference stated, that learning should reach


def advice(report: Report) -> list[str]:
    """Sentences, most important first; each carries the numbers that it rests on."""
    rivals = [s for s in report.scores if s.method != BASE and is_choice(s.method)]
    if not rivals:
        return []
    best = max(rivals, key=lambda score: score.utility.estimate)
    badly_formed = [s for s in rivals if s.well_formed is not None and s.well_formed < LEAST_READ]
    return render_sentences(
        TEMPLATES / "advice.txt.jinja",
        {"title": lambda score: entry_of(score.method).title, "range": range_text},
        title_of=lambda method: entry_of(method).title,
        report=report,
        differ=lambda one, other: report.matrix.is_significant(one.method, other.method),
        best=best,
        equals=[
            s
            for s in rivals
            if s is not best and not report.matrix.is_significant(best.method, s.method)
        ],
        cheap=[s for s in rivals if s.passes_per_token <= NEARLY_ONE_PASS],
        silent=[s for s in rivals if not entry_of(s.method).reads_words],
        untrained=[s for s in rivals if parse_name(s.method).method == "prompt"],
        large_share=LARGE_SHARE,
        broken=sorted(badly_formed, key=lambda s: (s.well_formed, s.method))[:MOST_LISTED],
    )


def render_markdown(report: Report) -> str:
    """The text; every number is in `report.json` too."""
    filters = {
        "title_of": lambda method: entry_of(method).title,
        "range": range_text,
        "signed": signed_text,
        "change": change_text,
        "nats": nats_text,
    }
    path = TEMPLATES / "evaluation.md.jinja"
    return render_template(path, filters, report=report, advice=advice(report))


def nats_text(value: float) -> str:
    """Nats with two digits; what rounds to nothing has no sign.

    Example:
        >>> nats_text(-0.0004)
        '0.00'
    """
    return f"{round(value, 2) + 0.0:.2f}"


def render_page(report: Report) -> str:
    """The page; texts are escaped."""
    filters = {
        "signed": lambda value: f"{value:+.3f}",
        "number": lambda value: f"{value:.3f}",
        "bytes": bytes_text,
        "nats": nats_text,
    }
    cells = report.cells
    return render_template(
        TEMPLATES / "evaluation.html.jinja",
        filters,
        report=report,
        advice=advice(report),
        entry_of=entry_of,
        main=[s for s in report.scores if parse_name(s.method).n_comparisons is None],
        choices=[s for s in report.scores if is_choice(s.method)],
        n_users=len(set(cells.users)),
        n_prompts=len(set(cells.prompts)),
        seeds=sorted(set(cells.seeds)),
        n_cells=len(cells.cells),
        figures=figures(report),
    )


def figures(report: Report) -> dict[str, str]:
    """Name to `<svg>` element."""
    drawings = {"forest": _forest(report), "matrix": _matrix(report), "frontier": _frontier(report)}
    if report.fronts:
        panels = [
            (front.objectives, {entry_of(one).title: ends for one, ends in front.points.items()})
            for front in report.fronts
        ]
        drawings["fronts"] = as_page_svg(
            front_panels(panels), label="Mean rewards of opposed objectives, one line per method"
        )
    if report.learning:
        drawings["learning"] = _learning(report)
    if report.tokens:
        detail = report.tokens
        figure = token_heat(
            np.array(detail["shares"]), tokens=detail["tokens"], experts=detail["experts"]
        )
        drawings["tokens"] = as_page_svg(figure, label="Each expert's share of every token")
    return drawings


def bytes_text(value: float) -> str:
    """A number of bytes for users.

    Example:
        >>> bytes_text(315392.0)
        '308 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _forest(report: Report) -> str:
    scores = sorted(
        (s for s in report.scores if parse_name(s.method).n_comparisons is None),
        key=lambda s: -s.utility.estimate,
    )
    base = report.score("base")
    figure = forest(
        [entry_of(s.method).title for s in scores],
        [s.utility for s in scores],
        is_marked=[not entry_of(s.method).is_rival for s in scores],
        label="mean utility, 95 % interval; hollow: palate does not serve it",
        zero=base.utility.estimate if base is not None else None,
    )
    return as_page_svg(figure, label="Mean utility of every method with its interval")


def _matrix(report: Report) -> str:
    matrix = report.matrix
    names = [entry_of(method).title for method in matrix.methods]
    pairs = [[(row, column) for column in matrix.methods] for row in matrix.methods]
    is_framed = np.array([[matrix.is_significant(*pair) for pair in row] for row in pairs])
    figure = heat_table(
        matrix.rates,
        rows=names,
        columns=[n.replace("Personalized", "Pers.").replace(", best of ", ", bo") for n in names],
        is_wanted=is_framed,
        title="share of answers that the row wins against the column",
    )
    figure.axes[0].tick_params(axis="x", rotation=50)
    for label in figure.axes[0].get_xticklabels():
        label.set_horizontalalignment("left")
    figure.axes[0].set_title("", loc="left")
    figure.set_size_inches(0.62 * len(names) + 2.4, 0.36 * len(names) + 1.6)
    return as_page_svg(figure, label="Win rates of every method against every other")


def _frontier(report: Report) -> str:
    points = [
        Point(entry_of(s.method).title, s.passes_per_token, s.utility)
        for s in report.scores
        if is_choice(s.method)
    ]
    best = [(budget.passes, budget.utility.estimate) for budget in report.frontier]
    figure = frontier_figure(points, best, label="mean utility, 95 % interval")
    return as_page_svg(figure, label="Utility of every method against its passes per token")


def _learning(report: Report) -> str:
    levels = [
        (name, score.gain.interval.estimate)
        for name, score in (
            ("soup, preference stated", report.score("soup")),
            ("prompt, preference stated", report.score("prompt")),
        )
        if score is not None and score.gain is not None
    ]
    lines: list[Line] = []
    for method in dict.fromkeys(point.method for point in report.learning):
        points = [point for point in report.learning if point.method == method]
        counts = [point.n_comparisons for point in points]
        intervals = [point.difference.interval for point in points]
        ends = zip(*[(one.estimate, one.low, one.high) for one in intervals], strict=True)
        lines.append(Line(entry_of(method).title, counts, *ends))
    x_label, y_label = "comparisons by the user", "utility gained over the base"
    figure = lines_figure(lines, x_label=x_label, y_label=y_label, levels=levels)
    return as_page_svg(figure, label="Gain by number of comparisons")
