"""Utility against cost: a dot per method, and a line along the best of every number of passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from palate.evaluate.plots.theme import CYCLE, MARKERS, theme
from palate.metrics.intervals import Interval

PALE = "#8a8f98"  # a grey that reads on white and on black


@dataclass(frozen=True)
class Point:
    """One method.

    Attributes:
        name: In the legend.
        passes: Per sampled token.
        utility: With its interval.
    """

    name: str
    passes: float
    utility: Interval


def frontier_figure(
    points: Sequence[Point], best: Sequence[tuple[float, float]], *, label: str
) -> Figure:
    """The figure; dots of equal passes stand side by side.

    Args:
        points: One per method.
        best: Passes and utility of the best method within them, fewest passes first.
        label: Of the vertical axis.
    """
    with theme():
        figure = Figure(figsize=(7.0, 4.2))
        axes = figure.subplots()
        x, y = [passes for passes, _ in best], [utility for _, utility in best]
        axes.step(x, y, where="post", color=PALE, lw=1.4, ls="--", label="best within the passes")
        for place, point in enumerate(points):
            same = [one for one in points if abs(one.passes - point.passes) < 1e-9]
            shift = 1.0 + 0.05 * (
                same.index(point) - (len(same) - 1) / 2
            )  # the axis is a logarithm
            low, high = point.utility.low, point.utility.high
            color = CYCLE[place % len(CYCLE)]
            axes.plot([point.passes * shift] * 2, [low, high], color=color, lw=1.6)
            axes.plot(
                point.passes * shift,
                point.utility.estimate,
                ls="",
                color=color,
                marker=MARKERS[(place + place // len(CYCLE)) % len(MARKERS)],
                ms=7,
                label=point.name,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sorted({round(p.passes, 1) for p in points})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("passes of the base per sampled token, candidates included")
        axes.set_ylabel(label)
        axes.grid(color=PALE, alpha=0.25, lw=0.7)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure
