"""The figures of an evaluation: methods below each other, against cost, against each other.

They have one look: readable in grey and by colour-blind users, as plain SVG.
"""

import io
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from palate.metrics.intervals import Interval

SEQUENTIAL = "cividis"  # monotone in lightness, made for colour-blind readers
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#555555")  # Okabe, Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # so that lines differ in grey, too

_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)  # says who drew it; the page does
INK = "#0b0b0d"  # what is replaced by the page's text colour

_RC: dict[Any, Any] = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.titlecolor": INK,
    "legend.frameon": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=CYCLE),
    "figure.dpi": 100,
    "svg.fonttype": "none",  # text stays text: searchable, and it follows the page's font
    "svg.hashsalt": "palate",  # the same figure gives the same file
}


@contextmanager
def theme() -> Generator[None]:
    """While in force, figures have the house's look."""
    with mpl.rc_context(_RC):
        yield


def as_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, without a date, ready to stand in a page."""
    buffer = io.StringIO()
    with theme():
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def as_page_svg(figure: Figure, *, label: str) -> str:
    """The figure as an `<svg>` that takes its text colour from the page and has no background.

    It is made under `theme`; the label says what it shows to those who hear the page.
    """
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    text = _METADATA.sub("", as_svg(figure)).replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


PALE = "#8a8f98"  # a grey that reads on white and on black
PER_ROW = 26  # tokens side by side; longer answers go on below
_DARK = 0.55  # shares below this get light text
Points = Mapping[str, Sequence[tuple[float, float]]]


def forest(
    names: Sequence[str],
    intervals: Sequence[Interval],
    *,
    is_marked: Sequence[bool],
    label: str,
    zero: float | None = None,
) -> Figure:
    """The figure: names top down, marked ones filled; a vertical line at `zero`."""
    with theme():
        figure = Figure(figsize=(6.4, 0.27 * len(names) + 0.8))
        axes = figure.subplots()
        if zero is not None:
            axes.axvline(zero, color=PALE, lw=1, ls=":")
        for place, (interval, is_full) in enumerate(zip(intervals, is_marked, strict=True)):
            color, fill = CYCLE[0], CYCLE[0] if is_full else "white"
            axes.plot([interval.low, interval.high], [place, place], color=color, lw=2)
            axes.plot(interval.estimate, place, "o", ms=7, color=color, mfc=fill, mew=1.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(label)
        axes.grid(axis="x", color=PALE, alpha=0.25, lw=0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure


@dataclass(frozen=True)
class Point:
    """One method."""

    name: str  # in the legend
    passes: float  # per sampled token
    utility: Interval


def frontier_figure(
    points: Sequence[Point], best: Sequence[tuple[float, float]], *, label: str
) -> Figure:
    """The figure; dots of equal passes stand side by side.

    `best` holds passes and utility of the best method within them, fewest passes first.
    """
    with theme():
        figure = Figure(figsize=(7.0, 4.2))
        axes = figure.subplots()
        x, y = [passes for passes, _ in best], [utility for _, utility in best]
        axes.step(x, y, where="post", color=PALE, lw=1.4, ls="--", label="best within the passes")
        for place, point in enumerate(points):
            same = [one for one in points if abs(one.passes - point.passes) < 1e-9]
            shift = 1.0 + 0.05 * (same.index(point) - (len(same) - 1) / 2)  # on a log axis
            x, own, color = point.passes * shift, point.utility, CYCLE[place % len(CYCLE)]
            marker = MARKERS[(place + place // len(CYCLE)) % len(MARKERS)]
            axes.plot([x, x], [own.low, own.high], color=color, lw=1.6)
            axes.plot(x, own.estimate, marker, color=color, ms=7, label=point.name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sorted({round(p.passes, 1) for p in points})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("passes of the base per sampled token, candidates included")
        axes.set_ylabel(label)
        axes.grid(color=PALE, alpha=0.25, lw=0.7)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


def front_panels(panels: Sequence[tuple[tuple[str, str], Points]]) -> Figure:
    """The figure: one panel per pair of objectives, one line per method."""
    with theme():
        figure = Figure(figsize=(3.7 * len(panels), 4.0))
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, ((first, second), points) in zip(grid, panels, strict=True):
            for place, (method, ends) in enumerate(points.items()):
                color, marker = CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]
                x, y = zip(*ends, strict=True)
                axes.plot(x, y, color=color, marker=marker, lw=1.6, ms=6, label=method)
            axes.set(xlabel=f"mean reward: {first}", ylabel=f"mean reward: {second}")
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axes.grid(color=PALE, alpha=0.25, lw=0.7)
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="upper center", ncols=7, fontsize=9)
        figure.subplots_adjust(wspace=0.32, top=0.88)
    return figure


@dataclass(frozen=True)
class Line:
    """One line over counts; the ends of its intervals, or none."""

    name: str  # in the legend
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def lines_figure(
    lines: Sequence[Line], *, x_label: str, y_label: str, levels: Sequence[tuple[str, float]] = ()
) -> Figure:
    """The figure: one colour and marker per line, levels as dashed lines."""
    with theme():
        figure = Figure(figsize=(6.0, 3.5))
        axes = figure.subplots()
        axes.axhline(0, color=PALE, lw=1, ls=":")
        for place, line in enumerate(lines):
            color, marker = CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]
            axes.plot(line.x, line.y, color=color, marker=marker, lw=1.8, label=line.name)
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, lw=0)
        for place, (name, height) in enumerate(levels, start=len(lines)):
            style = ("--", "-.")[place % 2]
            axes.axhline(height, color=CYCLE[place % len(CYCLE)], lw=1.6, ls=style, label=name)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=PALE, alpha=0.25, lw=0.7)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.28), ncols=2, fontsize=9)
    return figure


def heat_table(
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    is_wanted: Bool[np.ndarray, "rows columns"],
    title: str,
) -> Figure:
    """The figure: one cell per number in [0, 1], a frame where the row wants the column."""
    with theme():
        figure = Figure(figsize=(1.15 * len(columns) + 2.6, 0.36 * len(rows) + 1.1))
        axes = figure.subplots()
        axes.imshow(values, cmap=SEQUENTIAL, vmin=0.0, vmax=1.0, aspect="auto")
        for place, value in np.ndenumerate(values):
            color = "white" if value < _DARK else "black"
            axes.text(place[1], place[0], f"{value:.2f}", ha="center", va="center", color=color)
        for row, column in zip(*np.nonzero(is_wanted), strict=True):
            corner = (column - 0.46, row - 0.44)
            axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, lw=2, ec="#D55E00"))
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_title(title, loc="left", fontsize=11, pad=24)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def token_heat(
    shares: Float[np.ndarray, "tokens experts"], *, tokens: Sequence[str], experts: Sequence[str]
) -> Figure:
    """The figure: one column per token, one row per expert; bright is a large share."""
    starts = range(0, len(tokens), PER_ROW)
    with theme():
        height = len(starts) * (0.26 * len(experts) + 0.95) + 0.4
        figure = Figure(figsize=(10.5, height), layout="constrained")
        grid = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
        image = None
        for axes, start in zip(grid, starts, strict=True):
            part = np.full((len(experts), PER_ROW), np.nan)
            some = shares[start : start + PER_ROW].T
            part[:, : some.shape[1]] = some
            image = axes.imshow(part, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
            labels = [_label(token) for token in tokens[start : start + PER_ROW]]
            places = range(len(labels))
            axes.set_xticks(places, labels, rotation=60, ha="right", fontsize=9, parse_math=False)
            axes.set_yticks(range(len(experts)), experts)
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
        if image is not None:
            bar = figure.colorbar(image, ax=list(grid), shrink=0.8)
            bar.set_label("share of the token")
            bar.outline.set_visible(False)
    return figure


def _label(token: str) -> str:
    """A token as it can be drawn; what cannot be seen is a dot."""
    return "".join(sign if sign.isprintable() else "·" for sign in token.strip()) or "·"
