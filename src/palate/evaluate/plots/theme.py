"""One look for all plots: readable in grey and by colour-blind users, as plain SVG."""

import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

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
