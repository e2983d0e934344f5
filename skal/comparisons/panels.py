"""What all pictures of comparisons share: a look for each strategy, panels, bands, one legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..runs.drawing import (
    COLORS,
    NEUTRAL,
    Pictures,
    new_figure,
    set_title,
    shorten_all,
    style,
    to_pictures,
)
from .sentences import spread

Analysis: TypeAlias = Mapping[str, Any]
"""What `skal.comparisons.verdicts.analyse` returns."""

DASHES = {"-": "solid", "--": "dash", ":": "dot"}
MARKERS = {
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "h": "hexagon",
    "*": "star",
}
"""Matplotlib's dashes and markers, and what Plotly calls them."""
MOST_COLUMNS = 3


@dataclass(frozen=True)
class Look:
    """How a strategy is named and drawn in every panel, in matplotlib's terms."""

    name: str
    color: str
    marker: str
    dash: str


def looks(analysis: Analysis) -> dict[str, Look]:
    """Give each strategy a unique combination of colour, marker and dash; the baseline is grey."""
    baseline = analysis["baseline"]
    names = [name for group in analysis["groups"] for name in group["strategies"]]
    shown = shorten_all([baseline, *names])
    found = {baseline: Look(shown[baseline], NEUTRAL, "o", "-")}
    for name in dict.fromkeys(names):
        number = len(found) - 1
        color, marker = COLORS[number % len(COLORS)], list(MARKERS)[number % len(MARKERS)]
        dash = list(DASHES)[number // len(COLORS) % len(DASHES)]
        found.setdefault(name, Look(shown[name], color, marker, dash))
    return found


def entries_of(analysis: Analysis, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the analysis of each strategy of a group, by name."""
    return {name: analysis["strategies"][label] for name, label in group["strategies"].items()}


def draw_panels(
    groups: Sequence[Mapping[str, Any]],
    draw: Callable[[Axes, Mapping[str, Any]], str | None],
    legend: bool = True,
    **layout: Any,
) -> Pictures:
    """Draw a panel a group, titled by its name and what `draw` returns; `layout` as in
    `new_panels`.
    """
    with style():
        figure, panels = new_panels(len(groups), **layout)
        for axes, group in zip(panels, groups, strict=True):
            set_title(axes, group["name"], draw(axes, group) or "", title_room(len(groups)))
        if legend:
            add_legend(figure, panels)
        return to_pictures(figure)


def title_room(n_columns: int) -> int:
    """Return how many characters a panel's title may have."""
    return 46 if n_columns > 1 else 70


def new_panels(
    n: int,
    *,
    width: float | None = None,
    height: float | None = None,
    sharey: bool = False,
    grid: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and `n` panels, at most three a row, of `width` by `height` inches each."""
    rows = math.ceil(n / MOST_COLUMNS)
    columns = math.ceil(n / rows)
    width = width or (6.8 if n == 1 else 4.2)
    figure = new_figure(width * columns, (height or (4.4 if n == 1 else 3.4)) * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for axis in panels[n:]:
        axis.remove()
    for axis in panels[:n]:
        axis.grid(visible=grid)
        axis.tick_params(labelleft=True)
    return figure, panels[:n]


def draw_line(
    axes: Axes, points: Sequence[tuple[float, Mapping[str, Any], int]], look: Look, scale: float = 1
) -> None:
    """Draw means with bands; a point is (x, what `statistics.describe` returned, n_seeds)."""
    ends = [spread(point, n_seeds) for _, point, n_seeds in points]
    low, high = ([scale * end for end in side] for side in zip(*ends, strict=True))
    x = [place for place, _, _ in points]
    axes.fill_between(x, low, high, color=look.color, alpha=0.13, linewidth=0)
    axes.plot(
        x,
        [scale * point["mean"] for _, point, _ in points],
        color=look.color,
        marker=look.marker,
        markersize=4.5,
        linestyle=look.dash,
        linewidth=1.8,
        label=look.name,
    )


def add_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Put one legend for all panels below them."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if not entries:
        return
    width, height = figure.get_size_inches()
    fitting = [n for n in range(1, len(entries) + 1) if _width(list(entries), n) < width]
    rows = math.ceil(len(entries) / max(fitting, default=1))
    figure.set_size_inches(width, height + 0.24 * rows)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=math.ceil(len(entries) / rows),
        frameon=False,
        fontsize=9,
    )


def _width(names: list[str], columns: int) -> float:
    """Estimate the inches that a legend takes; matplotlib fills its columns one by one."""
    return sum(0.85 + 0.082 * max(map(len, part)) for part in np.array_split(names, columns))
