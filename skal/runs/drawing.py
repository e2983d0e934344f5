"""What all pictures share: style, panels, lines, legends, and names that fit."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
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
MOST_COLUMNS = 3


@dataclass(frozen=True)
class Look:
    """How a strategy is named and drawn in every panel, in the terms of matplotlib."""

    name: str
    color: str
    marker: str
    dash: str


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


def new_panels(
    n: int,
    *,
    width: float | None = None,
    height: float | None = None,
    sharey: bool = False,
    grid: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its `n` panels, at most three in a row."""
    rows = math.ceil(n / MOST_COLUMNS)
    columns = math.ceil(n / rows)
    width = width or (6.8 if n == 1 else 4.2)
    figure = new_figure(width * columns, (height or (4.4 if n == 1 else 3.4)) * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    panels = list(axes.flat)
    for axis in panels[n:]:
        axis.remove()
    for axis in panels[:n]:
        axis.grid(visible=grid)
        axis.tick_params(labelleft=True)
    return figure, panels[:n]


def draw_line(
    axes: Axes,
    x: Sequence[float],
    means: Sequence[float],
    bands: Sequence[tuple[float, float]],
    look: Look,
) -> None:
    """Draw means, with the band between the ends of each."""
    low, high = zip(*bands, strict=True)
    axes.fill_between(x, low, high, color=look.color, alpha=0.13, linewidth=0)
    axes.plot(
        x,
        means,
        color=look.color,
        marker=look.marker,
        markersize=4.5,
        linestyle=look.dash,
        linewidth=1.8,
        label=look.name,
    )


def label_curves(axes: Axes) -> None:
    """Say what the axes of learning curves are."""
    axes.set(xlabel="labelled images", ylabel="test accuracy")
    # without steps of 4 and 8, between which labels seldom come
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 2.5, 5, 10]))


def set_title(axes: Axes, title: str, below: str = "", room: int = 70) -> None:
    """Write above, cut to so many characters."""
    lines = [shorten(title, room), below]
    axes.set_title("\n".join(filter(None, lines)), fontsize=10 if below else 11)


def add_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Put one legend for all panels below them, with as many columns as the names leave room."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if not entries:
        return
    width, height = figure.get_size_inches()
    fitting = [n for n in range(1, len(entries) + 1) if _width(list(entries), n) < width]
    rows = math.ceil(len(entries) / max(fitting, default=1))
    columns = math.ceil(len(entries) / rows)
    figure.set_size_inches(width, height + 0.24 * rows)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _width(names: list[str], columns: int) -> float:
    """Estimate the inches that a legend takes; matplotlib fills its columns one by one."""
    return sum(0.85 + 0.082 * max(map(len, part)) for part in np.array_split(names, columns))


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
        # it takes as long as drawing, and is done
        figure.set_layout_engine("none")
    return pictures
