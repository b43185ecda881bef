"""Figures of studies, in the look of the evaluation's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from palate.evaluate.plots.charts import CYCLE, MARKERS, theme

Curve = tuple[Sequence[float], Sequence[float]]  # x, y
Interval = tuple[float, float, float]  # estimate, low, high
_APART = 0.09  # between lines, so that their intervals do not cover each other


def curve_panels(panels: Mapping[str, Mapping[str, Curve]], *, x_label: str, title: str) -> Figure:
    """One panel per quantity, side by side, with the same named curves in each.

    Args:
        panels: Label of the y axis to curves by name.
        x_label: Of every panel.
        title: Above all.
    """
    with theme():
        figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
        for axes, (label, curves) in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
        ):
            for place, (name, (x, y)) in enumerate(curves.items()):
                axes.plot(
                    x,
                    y,
                    label=name,
                    color=CYCLE[place % len(CYCLE)],
                    marker=MARKERS[place % len(MARKERS)],
                    markevery=max(1, len(x) // 6),
                    markersize=5,
                )
            axes.set_xlabel(x_label)
            axes.set_ylabel(label)
            if len(curves) > 1:
                axes.legend(frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def interval_rows(
    rows: Mapping[str, tuple[float, float, float]], *, x_label: str, title: str, line: float
) -> Figure:
    """One line per name: an estimate with its interval, and a line to compare with.

    Args:
        rows: Name to estimate, low, high; drawn from top to bottom.
        x_label: What is estimated.
        title: Above all.
        line: Where the vertical line stands.
    """
    with theme():
        figure = Figure(figsize=(6.4, 0.34 * len(rows) + 1.2), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        for place, (estimate, low, high) in zip(places, rows.values(), strict=True):
            axes.plot([low, high], [place, place], color=CYCLE[0], lw=2)
            axes.plot([estimate], [place], marker=MARKERS[0], color=CYCLE[0])
        axes.axvline(line, color=CYCLE[-1], lw=1, ls="--")
        axes.set_yticks(places, list(rows))
        axes.set_xlabel(x_label)
        axes.set_title(title, loc="left", fontsize=11)
    return figure


def gap_curves(
    curves: Mapping[str, Sequence[Interval]], *, sizes: Sequence[int], y_label: str, title: str
) -> Figure:
    """One line per method over the sizes, with intervals; lower is better.

    Args:
        curves: Method to one interval per size.
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


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure for documents that cannot hold an SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with theme():
        figure.savefig(
            path, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None}
        )
