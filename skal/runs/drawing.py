"""Drawing helpers shared by all plots: style, titles, shortened names."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Pictures: TypeAlias = dict[str, bytes]
"""A picture's bytes by format ("png", "svg"); equal input gives equal bytes."""

FORMS: Mapping[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
"""Picture formats, with the metadata to leave out for reproducible files."""
# colour-blind safe palette of Okabe and Ito, without black and yellow, which are invisible on dark
# and on light pages
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
NEUTRAL = "#808080"
LONGEST_NAME = 34


@contextmanager
def style() -> Iterator[None]:
    """Set the style inside the block; fixed ids make equal runs give equal files."""
    settings: Any = {
        "svg.hashsalt": "skal",
        # dollar signs in folder names are not formulas
        "text.parse_math": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.3,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure, with width and height in inches, without using pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def label_curves(axes: Axes) -> None:
    """Label the axes of learning curves."""
    axes.set(xlabel="labelled images", ylabel="test accuracy")
    # without steps of 4 and 8, which seldom match numbers of labels
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 2.5, 5, 10]))


def set_title(axes: Axes, title: str, below: str = "", room: int = 70) -> None:
    """Set the title, shortened to `room` characters, and a second line `below` it."""
    lines = [shorten(title, room), below]
    axes.set_title("\n".join(filter(None, lines)), fontsize=10 if below else 11)


def slant(names: Sequence[str]) -> dict[str, Any]:
    """Return the text style for names below columns: slanted unless they are short."""
    return {"rotation": 45, "ha": "right"} if max(map(len, names)) > 3 else {}


def draw_shares(
    axes: Axes, shares: NDArray[Any], form: str, size: float, values: NDArray[Any] | None = None
) -> None:
    """Draw shares from 0 to 1 as a heat map, annotated with `values`, by default the shares."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(shares if values is None else values):
        if not math.isnan(value) and (value or values is None):
            color = "white" if shares[i, j] > 0.6 else "black"
            words = form.format(value)
            axes.text(j, i, words, ha="center", va="center", fontsize=size, color=color)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def plain(text: str) -> str:
    """Replace undrawable characters, since folder names may hold bytes that are not UTF-8."""
    return text.encode(errors="replace").decode()


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """Leave out the middle of a long name."""
    name = plain(name)
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def shorten_all(names: Iterable[str]) -> dict[str, str]:
    """Leave out the middle of long names, except where two would then look the same."""
    short = {name: shorten(name) for name in names}
    times = Counter(short.values())
    return {name: plain(name) if times[found] > 1 else found for name, found in short.items()}


def to_pictures(figure: Figure, forms: Iterable[str] = FORMS) -> Pictures:
    """Return the bytes of a figure, without dates."""
    pictures: Pictures = {}
    for form in forms:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata=FORMS[form])
        pictures[form] = buffer.getvalue()
        # the layout is done and takes as long as drawing; "none" instead of None still draws twice
        figure.set_layout_engine(None)
    # the parts refer to each other, so that their memory would wait for the garbage collector
    figure.clear()
    FigureCanvasBase(figure)
    return pictures
