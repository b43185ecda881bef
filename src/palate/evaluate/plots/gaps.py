"""What is lost against how many members there are, one line per way of finding them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from palate.evaluate.plots.theme import CYCLE, MARKERS, theme

Interval = tuple[float, float, float]  # estimate, low, high
_APART = 0.09  # between lines, so that their intervals do not cover each other


def gap_curves(
    curves: Mapping[str, Sequence[Interval]], *, sizes: Sequence[int], y_label: str, title: str
) -> Figure:
    """One line per way over the sizes, with intervals; lower is better.

    Args:
        curves: Way to one interval per size.
        sizes: Numbers of members.
        y_label: What is lost, with its unit.
        title: Above all.
    """
    with theme():
        figure = Figure(figsize=(6.8, 4.0), layout="constrained")
        axes = figure.subplots()
        for place, (name, intervals) in enumerate(curves.items()):
            value, low, high = np.array(intervals).T
            axes.errorbar(
                np.array(sizes) + _APART * (place - (len(curves) - 1) / 2),
                value,
                yerr=np.clip([value - low, high - value], 0.0, None),
                label=name,
                color=CYCLE[place % len(CYCLE)],
                marker=MARKERS[place % len(MARKERS)],
                markersize=5,
                lw=1.4,
                elinewidth=0.8,
            )
        axes.set_xticks(list(sizes))
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("members")
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)
        axes.set_title(title, loc="left", fontsize=11)
    return figure
