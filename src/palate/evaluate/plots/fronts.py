"""Objectives that pull against each other: how far each way gets towards both ends."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from palate.evaluate.plots.forest import PALE
from palate.evaluate.plots.theme import CYCLE, MARKERS, theme

Points = Mapping[str, Sequence[tuple[float, float]]]


def front_panels(panels: Sequence[tuple[tuple[str, str], Points]]) -> Figure:
    """The figure: one panel per pair of objectives, one line per way.

    Args:
        panels: Names of the two axes, and way to points.
    """
    with theme():
        figure = Figure(figsize=(3.7 * len(panels), 4.0))
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, ((first, second), points) in zip(grid, panels, strict=True):
            for place, (method, ends) in enumerate(points.items()):
                axes.plot(
                    [x for x, _ in ends],
                    [y for _, y in ends],
                    color=CYCLE[place % len(CYCLE)],
                    marker=MARKERS[place % len(MARKERS)],
                    lw=1.6,
                    ms=6,
                    label=method,
                )
            axes.set_xlabel(f"mean reward: {first}")
            axes.set_ylabel(f"mean reward: {second}")
            axes.set_xlim(-0.03, 1.03)
            axes.set_ylim(-0.03, 1.03)
            axes.grid(color=PALE, alpha=0.25, lw=0.7)
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="upper center", ncols=7, fontsize=9)
        figure.subplots_adjust(wspace=0.32, top=0.88)
    return figure
