"""What all pictures share: style, titles, and names that fit."""

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
"""A picture's bytes by format, "png" and "svg"; equal for equal input."""

FORMS: Mapping[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
"""What is left out of each."""
# of Okabe and Ito, told apart by the colour-blind too; without black and yellow, which a dark and a
# light page swallow
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
NEUTRAL = "#808080"
LONGEST_NAME = 34


@contextmanager
def style() -> Iterator[None]:
    """Draw without dates and random ids, so that equal runs leave equal files."""
    settings: Any = {
        "svg.hashsalt": "skal",
        # a dataset is called as its folder is: dollars are no formula
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
    """Return a figure of so many inches, without pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def label_curves(axes: Axes) -> None:
    """Say what the axes of learning curves are."""
    axes.set(xlabel="labelled images", ylabel="test accuracy")
    # without steps of 4 and 8, between which labels seldom come
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 2.5, 5, 10]))


def set_title(axes: Axes, title: str, below: str = "", room: int = 70) -> None:
    """Write above, cut to so many characters."""
    lines = [shorten(title, room), below]
    axes.set_title("\n".join(filter(None, lines)), fontsize=10 if below else 11)


def slant(names: Sequence[str]) -> dict[str, Any]:
    """Say how names stand below columns: upright if they are short."""
    return {"rotation": 45, "ha": "right"} if max(map(len, names)) > 3 else {}


def draw_shares(
    axes: Axes, shares: NDArray[Any], form: str, size: float, values: NDArray[Any] | None = None
) -> None:
    """Draw shares from 0 to 1 as a heat map, with the values, or the shares themselves, on it."""
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
    """Return text that can be drawn: a folder's name may hold bytes that are no UTF-8."""
    return text.encode(errors="replace").decode()


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """Leave out the middle of a long name."""
    name = plain(name)
    if len(name) <= longest:
        return name
    head = longest // 2
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def shorten_all(names: Iterable[str]) -> dict[str, str]:
    """Leave out the middle of long names, unless they then look like another."""
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
        # it takes as long as drawing, and is done; "none" would draw twice all the same
        figure.set_layout_engine(None)
    # its parts refer to each other: what was drawn would stay until garbage is looked for
    figure.clear()
    FigureCanvasBase(figure)
    return pictures
