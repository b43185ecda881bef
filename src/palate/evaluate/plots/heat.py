"""A table of numbers as a heat map with the numbers in it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy import ndarray

from palate.evaluate.plots.theme import SEQUENTIAL, theme

_DARK = 0.55  # shares below this get light text


def heat_table(
    values: Float[ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    is_wanted: Bool[ndarray, "rows columns"],
    title: str,
) -> Figure:
    """The figure: one cell per number in [0, 1], a frame where the row wants the column.

    Args:
        values: `[rows, columns]` in [0, 1].
        rows: Names.
        columns: Names.
        is_wanted: `[rows, columns]`, cells to frame.
        title: Above the map.
    """
    with theme():
        figure = Figure(figsize=(1.15 * len(columns) + 2.6, 0.36 * len(rows) + 1.1))
        axes = figure.subplots()
        axes.imshow(values, cmap=SEQUENTIAL, vmin=0.0, vmax=1.0, aspect="auto")
        for place, value in np.ndenumerate(values):
            color = "white" if value < _DARK else "black"
            axes.text(place[1], place[0], f"{value:.2f}", ha="center", va="center", color=color)
        for row, column in zip(*np.nonzero(is_wanted), strict=True):
            frame = Rectangle(
                (column - 0.46, row - 0.44), 0.92, 0.88, fill=False, lw=2, ec="#D55E00"
            )
            axes.add_patch(frame)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_title(title, loc="left", fontsize=11, pad=24)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure
