"""The report as one self-contained HTML file: no script, no font, no picture from elsewhere."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.evaluate.advice import advice
from palate.evaluate.catalogue import entry_of
from palate.evaluate.markdown import nats_text
from palate.evaluate.plots.forest import forest
from palate.evaluate.plots.fronts import front_panels
from palate.evaluate.plots.heat import heat_table
from palate.evaluate.plots.lines import Line, lines_figure
from palate.evaluate.plots.theme import as_page_svg
from palate.evaluate.plots.tokens import token_heat
from palate.evaluate.report import Report
from palate.evaluate.tables import CurvePoint


def render_page(report: Report) -> str:
    """The page; texts are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    environment.filters["number"] = lambda value: f"{value:.3f}"
    environment.filters["bytes"] = bytes_text
    environment.filters["nats"] = nats_text
    cells = report.cells
    return environment.get_template("evaluation.html.jinja").render(
        report=report,
        advice=advice(report),
        entry_of=entry_of,
        main=[s for s in report.scores if not s.way.startswith("soup@")],
        n_people=len(set(cells.people)),
        n_prompts=len(set(cells.prompts)),
        seeds=sorted(set(cells.seeds)),
        n_cells=len(cells.cells),
        figures=figures(report),
    )


def figures(report: Report) -> dict[str, str]:
    """Name to `<svg>` element."""
    found = {"forest": _forest(report), "matrix": _matrix(report)}
    if report.fronts:
        panels = [(front.objectives, _titled(front.points)) for front in report.fronts]
        found["fronts"] = as_page_svg(
            front_panels(panels), label="Mean rewards of opposed objectives, one line per way"
        )
    if report.gap:
        found["gap"] = _gap(report)
    if report.learning:
        found["learning"] = _learning(report)
    if report.tokens:
        detail = report.tokens
        figure = token_heat(
            np.array(detail["shares"]), tokens=detail["tokens"], experts=detail["experts"]
        )
        found["tokens"] = as_page_svg(figure, label="Each expert's share of every token")
    return found


def bytes_text(value: float) -> str:
    """A number of bytes for people.

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
        (s for s in report.scores if "@" not in s.way), key=lambda s: -s.utility.estimate
    )
    base = report.score("base")
    figure = forest(
        [entry_of(s.way).title for s in scores],
        [s.utility for s in scores],
        is_marked=[not entry_of(s.way).is_ceiling for s in scores],
        label="mean utility, 95 % interval; hollow: costs one training per person",
        zero=base.utility.estimate if base is not None else None,
    )
    return as_page_svg(figure, label="Mean utility of every way with its interval")


def _matrix(report: Report) -> str:
    matrix = report.matrix
    names = [entry_of(way).title for way in matrix.ways]
    is_settled = np.array(
        [[matrix.is_settled(row, column) for column in matrix.ways] for row in matrix.ways]
    )
    figure = heat_table(
        matrix.rates,
        rows=names,
        columns=[_short(name) for name in names],
        is_wanted=is_settled,
        title="share of answers that the row wins against the column",
    )
    figure.axes[0].tick_params(axis="x", rotation=50)
    for label in figure.axes[0].get_xticklabels():
        label.set_horizontalalignment("left")
    figure.axes[0].set_title("", loc="left")
    figure.set_size_inches(0.62 * len(names) + 2.4, 0.36 * len(names) + 1.6)
    return as_page_svg(figure, label="Win rates of every way against every other")


def _gap(report: Report) -> str:
    lines = [_line("mean of all people", report.gap)]
    x = [point.x for point in report.gap]
    lines.append(Line("worst person", x, [point.worst for point in report.gap]))
    if all(point.bound is not None for point in report.gap):
        bounds = [point.bound or 0.0 for point in report.gap]
        lines.append(Line("certified for everybody", x, bounds))
    figure = lines_figure(lines, x_label="members", y_label="utility lost against one's own expert")
    return as_page_svg(figure, label="Loss by portfolio size")


def _learning(report: Report) -> str:
    known = report.score("soup")
    told = report.score("prompting")
    levels = [
        (name, score.gain.interval.estimate)
        for name, score in (("soup, preference known", known), ("told in the prompt", told))
        if score is not None
    ]
    figure = lines_figure(
        [
            _line("soup, preference learned", report.learning),
            Line(
                "its worst person",
                [point.x for point in report.learning],
                [point.worst for point in report.learning],
            ),
        ],
        x_label="comparisons by the person",
        y_label="utility gained over the base",
        levels=levels,
    )
    return as_page_svg(figure, label="Gain by number of comparisons")


def _line(name: str, points: tuple[CurvePoint, ...]) -> Line:
    intervals = [point.difference.interval for point in points]
    return Line(
        name,
        [point.x for point in points],
        [one.estimate for one in intervals],
        [one.low for one in intervals],
        [one.high for one in intervals],
    )


def _titled(
    points: Mapping[str, tuple[tuple[float, float], ...]],
) -> dict[str, list[tuple[float, float]]]:
    return {entry_of(way).title: list(some) for way, some in points.items()}


def _short(name: str) -> str:
    return name.replace("Portfolio of", "Portf.").replace("Personalized Soups", "Pers. Soups")
