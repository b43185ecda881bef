"""Who wrote which token: experts' shares along one answer."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from palate.evaluate.plots.theme import SEQUENTIAL, theme

PER_ROW = 26  # tokens side by side; longer answers go on below


def token_heat(
    shares: Float[ndarray, "tokens experts"], *, tokens: Sequence[str], experts: Sequence[str]
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
