"""Ways one below the other: a dot for the mean, a bar for its interval."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from palate.evaluate.plots.theme import CYCLE, theme
from palate.metrics.intervals import Interval

PALE = "#8a8f98"  # a grey that reads on white and on black


def forest(
    names: Sequence[str],
    intervals: Sequence[Interval],
    *,
    is_marked: Sequence[bool],
    label: str,
    zero: float | None = None,
) -> Figure:
    """The figure: names top down, marked ones filled.

    Args:
        names: One per row.
        intervals: The same.
        is_marked: Whether the dot is filled.
        label: Of the horizontal axis.
        zero: Where a vertical line stands, or `None`.
    """
    with theme():
        figure = Figure(figsize=(6.4, 0.27 * len(names) + 0.8))
        axes = figure.subplots()
        if zero is not None:
            axes.axvline(zero, color=PALE, lw=1, ls=":")
        for place, (interval, is_full) in enumerate(zip(intervals, is_marked, strict=True)):
            axes.plot([interval.low, interval.high], [place, place], color=CYCLE[0], lw=2)
            axes.plot(
                interval.estimate,
                place,
                marker="o",
                ms=7,
                color=CYCLE[0],
                mfc=CYCLE[0] if is_full else "white",
                mew=1.8,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(label)
        axes.grid(axis="x", color=PALE, alpha=0.25, lw=0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure
