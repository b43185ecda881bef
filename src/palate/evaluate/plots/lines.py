"""A number against a count, with its interval, and what it is to be held against."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from palate.evaluate.plots.forest import PALE
from palate.evaluate.plots.theme import CYCLE, MARKERS, theme


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: In the legend.
        x: Counts.
        y: Numbers.
        low: Lower ends, or none.
        high: Upper ends, or none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def lines_figure(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    levels: Sequence[tuple[str, float]] = (),
) -> Figure:
    """The figure: lines told apart by colour and by marker, levels as dashed lines.

    Args:
        lines: At least one.
        x_label: Below.
        y_label: At the side.
        levels: Names and heights to compare with.
    """
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
