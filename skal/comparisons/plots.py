"""Plots of comparisons.

Each public plot takes an analysis, as `skal.comparisons.verdicts.analyse` returns it, and returns
the picture's bytes by format ("png", "svg"), equal for equal input, or None if there is nothing to
draw. It has one panel per group, that is, per setting in which strategies are compared.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..runs import drawing
from .sentences import FEWEST, name_settings, name_spread, spread

Analysis: TypeAlias = Mapping[str, Any]
"""The result of `skal.comparisons.verdicts.analyse`."""

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
"""Plotly's names of matplotlib's dashes and markers."""
MOST_COLUMNS = 3
TITLE_ROOM = (70, 46)
"""Maximum title length in characters: of a single panel, and of one of several."""
SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c")
NOISES = {"noise_rate": "rate of image noise", "label_noise": "rate of wrong labels"}
MEASURES = {"accuracy": "test accuracy at the end", "aulc": "area under the curve"}

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Look:
    """Name and matplotlib style of a strategy, the same in every panel."""

    name: str
    color: str
    marker: str
    dash: str


def looks(analysis: Analysis) -> dict[str, Look]:
    """Give each strategy a unique combination of colour, marker and dash; the baseline is grey."""
    baseline = analysis["baseline"]
    names = [name for group in analysis["groups"] for name in group["strategies"]]
    shown = drawing.shorten_all([baseline, *names])
    found = {baseline: Look(shown[baseline], drawing.NEUTRAL, "o", "-")}
    for name in dict.fromkeys(names):
        number = len(found) - 1
        color, marker = (
            drawing.COLORS[number % len(drawing.COLORS)],
            list(MARKERS)[number % len(MARKERS)],
        )
        dash = list(DASHES)[number // len(drawing.COLORS) % len(DASHES)]
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
) -> drawing.Pictures:
    """Draw one panel per group, titled by its name and the result of `draw`; for `layout` see
    `new_panels`.
    """
    with drawing.style():
        figure, panels = new_panels(len(groups), **layout)
        for axes, group in zip(panels, groups, strict=True):
            drawing.set_title(
                axes, group["name"], draw(axes, group) or "", TITLE_ROOM[len(groups) > 1]
            )
        if legend:
            add_legend(figure, panels)
        return drawing.to_pictures(figure)


def new_panels(
    n: int,
    *,
    width: float | None = None,
    height: float | None = None,
    sharey: bool = False,
    grid: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and `n` panels of `width` by `height` inches, at most three per row."""
    rows = math.ceil(n / MOST_COLUMNS)
    columns = math.ceil(n / rows)
    width = width or (6.8 if n == 1 else 4.2)
    figure = drawing.new_figure(width * columns, (height or (4.4 if n == 1 else 3.4)) * rows)
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
    """Draw means with bands; a point is (x, a result of `statistics.describe`, n_seeds)."""
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
    """Add one legend for all panels below them."""
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
    """Estimate a legend's width in inches; matplotlib fills it column by column."""
    return sum(0.85 + 0.082 * max(map(len, part)) for part in np.array_split(names, columns))


def comparison_curves(analysis: Analysis) -> drawing.Pictures:
    """Draw mean accuracy against labels, with the bands of `sentences.spread`."""
    styles = looks(analysis)

    def draw(axes: Axes, group: Mapping[str, Any]) -> str:
        entries = entries_of(analysis, group)
        for name, entry in entries.items():
            points = [(point["n_labeled"], point, entry["n_seeds"]) for point in entry["curve"]]
            draw_line(axes, points, styles[name])
        drawing.label_curves(axes)
        return _seeds([entry["n_seeds"] for entry in entries.values()], "seeds")

    return draw_panels(analysis["groups"], draw, sharey=True)


def difference_curves(analysis: Analysis) -> drawing.Pictures | None:
    """Draw each strategy's paired difference from the baseline. The bands are narrower than those
    of the curves, which include effects of splits and initial sets that all strategies share.
    """
    if not any(entry["differences"] for entry in analysis["strategies"].values()):
        return None
    styles = looks(analysis)
    baseline = styles[analysis["baseline"]]

    def draw(axes: Axes, group: Mapping[str, Any]) -> str:
        axes.axhline(0, color=baseline.color, linewidth=1.8, label=baseline.name)
        n_pairs = []
        for name, entry in entries_of(analysis, group).items():
            if entry["differences"]:
                n_pairs.append(entry["difference"]["aulc"]["n_pairs"])
                points = [(p["n_labeled"], p, n_pairs[-1]) for p in entry["differences"]]
                draw_line(axes, points, styles[name], 100)
        drawing.label_curves(axes)
        axes.set_ylabel(f"percentage points above {baseline.name}")
        return _seeds(n_pairs, "paired differences") if n_pairs else "nothing to compare"

    return draw_panels(analysis["groups"], draw, sharey=True)


def _seeds(numbers: Sequence[int], what: str) -> str:
    fewest, most = min(numbers), max(numbers)
    if most == 1:
        return "one seed"
    found = f"{fewest} to {most}" if fewest < most else str(most)
    band = name_spread(most)
    if fewest < FEWEST <= most:
        band += f"; with fewer than {FEWEST} {name_spread(fewest)}"
    return f"mean of {found} {what}, {band}"


def noise_curves(analysis: Analysis) -> drawing.Pictures | None:
    """Draw final accuracy and area against the noise rate, one column per dataset and model."""
    series = list(_noise_series(analysis["groups"]))
    if not series:
        return None
    styles = looks(analysis)
    with drawing.style():
        figure = drawing.new_figure(max(6.4, 4.2 * len(series)), 6.4)
        grid = figure.subplots(
            len(MEASURES), len(series), squeeze=False, sharex="col", sharey="row"
        )
        for column, (title, noise, groups) in zip(grid.T, series, strict=True):
            entries = [entries_of(analysis, group) for group in groups]
            rates = [group[noise] for group in groups]
            for axes, measure in zip(column, MEASURES, strict=True):
                for name in dict.fromkeys(name for of_group in entries for name in of_group):
                    found = [
                        (rate, of_group[name][measure], of_group[name]["n_seeds"])
                        for rate, of_group in zip(rates, entries, strict=True)
                        if name in of_group
                    ]
                    draw_line(axes, found, styles[name])
                axes.set_xticks(rates)
            drawing.set_title(column[0], title, room=TITLE_ROOM[len(series) > 1])
            column[-1].set_xlabel(NOISES[noise])
        for axes, words in zip(grid[:, 0], MEASURES.values(), strict=True):
            axes.set_ylabel(words)
        add_legend(figure, list(grid.flat))
        return drawing.to_pictures(figure)


def _noise_series(
    groups: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    """Yield a title, the kind of noise that varies, and the groups that differ only in its rate."""
    for noise in NOISES:
        others = [name for name in ("dataset", "model", *NOISES) if name != noise]
        rows: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for group in groups:
            rows.setdefault(tuple(group[name] for name in others), []).append(group)
        several = [row for row in rows.values() if len(row) > 1]
        titles = name_settings([{**row[0], noise: 0.0} for row in several])
        for title, row in zip(titles, several, strict=True):
            yield title, noise, sorted(row, key=lambda group: float(group[noise]))


def efficiency_bars(analysis: Analysis) -> drawing.Pictures | None:
    """Draw the labels that the baseline needs divided by those that each strategy needs, for each
    target. The 95% interval is left out with fewer than `sentences.FEWEST` seeds; an arrow replaces
    its lower end if more than 2.5% of the resamples miss the target.
    """
    groups = analysis["groups"]
    most = max(sum(bool(e["efficiency"]) for e in entries_of(analysis, g).values()) for g in groups)
    if not most:
        return None
    styles = looks(analysis)
    baseline = styles[analysis["baseline"]]

    def draw(axes: Axes, group: Mapping[str, Any]) -> None:
        entries = entries_of(analysis, group)
        rows = {name: entry for name, entry in entries.items() if entry["efficiency"]}
        for number, entry in enumerate(rows.values()):
            sure = entry["difference"]["aulc"]["n_pairs"] >= FEWEST
            _draw_efficiency(axes, number, entry["efficiency"], sure)
        axes.axvline(1, color=drawing.NEUTRAL, linewidth=1.2, zorder=3)
        axes.set_yticks(range(len(rows)), [styles[name].name for name in rows])
        axes.set_ylim(most - 0.5, -0.5)
        axes.set_xlim(left=0, right=max(1.25, axes.get_xlim()[1] * 1.08))
        axes.set_xlabel(f"labels {baseline.name} needs / labels the strategy needs")
        axes.grid(axis="y", visible=False)
        if not rows:
            axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)

    return draw_panels(groups, draw, height=max(2.2, 0.9 + (0.85 if most < 7 else 0.62) * most))


def _draw_efficiency(
    axes: Axes, number: int, targets: Sequence[Mapping[str, Any]], sure: bool
) -> None:
    height = 0.8 / max(len(targets), 1)
    for place, target in enumerate(targets):
        y = number - 0.4 + height * (place + 0.5)
        color = SHADES[min(place, len(SHADES) - 1)]
        name = f"{target['share']:.0%} of the baseline's gain"
        ratio = target["ratio"]
        axes.barh(y, ratio or 0, height * 0.9, color=color, label=name)
        if ratio is None:
            axes.text(0.02, y, "not reached", va="center", fontsize=8, color="#b04000")
            continue
        end = _draw_interval(axes, y, target) if sure else ratio
        how: dict[str, Any] = {"textcoords": "offset points", "xytext": (4, 0), "va": "center"}
        axes.annotate(f"{ratio:.2f}", (end, y), fontsize=8, **how)


def _draw_interval(axes: Axes, y: float, target: Mapping[str, Any]) -> float:
    """Draw the interval of an efficiency and return its right end."""
    low, high, ratio = target["low"], target["high"], target["ratio"]
    missed = not low  # resamples that miss the target count as 0, which is not an interval's end
    axes.plot(
        [0.8 * min(ratio, high) if missed else low, high],
        [y, y],
        color="#333333",
        linewidth=1,
        marker="<" if missed else None,
        markersize=4,
        markevery=[0],
        # visible even on the darkest bar
        path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
    )
    return float(max(ratio, high))


def penalty_heatmap(analysis: Analysis) -> drawing.Pictures | None:
    """Draw the penalty matrix and its column means; see `statistics.penalty_matrix`."""
    groups = [group for group in analysis["groups"] if group["penalty"]]
    if not groups:
        return None
    styles = looks(analysis)

    def draw(axes: Axes, group: Mapping[str, Any]) -> None:
        penalty = group["penalty"]
        names = [styles[name].name for name in penalty["strategies"]]
        shown = np.array([*penalty["matrix"], column_means(penalty["matrix"])], dtype=float)
        np.fill_diagonal(shown, np.nan)
        drawing.draw_shares(axes, shown, "{:.2f}", 9)
        axes.axhline(len(names) - 0.5, color="white", linewidth=6)
        axes.set_xticks(range(len(names)), names, **drawing.slant(names))
        axes.set_yticks(range(len(names) + 1), [*names, "mean of column"])
        axes.set_xlabel(f"share of {penalty['n']} budgets at which\nthe row beats the column")

    size = max(4.2, 1.9 + 0.62 * max(len(group["penalty"]["strategies"]) for group in groups))
    return draw_panels(groups, draw, legend=False, width=size, height=size, grid=False)


def column_means(matrix: Sequence[Sequence[float]]) -> list[float]:
    """Return the share of budgets at which others beat each strategy, on average; low is good."""
    n = len(matrix)
    return [sum(row[j] for i, row in enumerate(matrix) if i != j) / max(n - 1, 1) for j in range(n)]


def ranks_diagram(analysis: Analysis) -> drawing.Pictures | None:
    """Draw the critical-difference diagram (Demšar, JMLR 7, 2006) of mean ranks over datasets. Bars
    join strategies that Nemenyi's test at 5% cannot tell apart. Without scikit-posthocs, log a
    warning and draw nothing.
    """
    ranks = analysis["ranks"]
    if ranks is None or len(ranks["strategies"]) < 2:
        return None
    try:
        import pandas as pd
        from scikit_posthocs import critical_difference_diagram, posthoc_nemenyi_friedman
    except ImportError:
        _log.warning(
            "skipped the critical-difference diagram: it needs scikit-posthocs; "
            "pip install 'skal[report]'"
        )
        return None
    styles = looks(analysis)
    names = [styles[name].name for name in ranks["strategies"]]
    values = np.array([ranks["values"][name] for name in ranks["strategies"]], dtype=float).T
    p_values = np.asarray(posthoc_nemenyi_friedman(values))
    with drawing.style():
        figure = drawing.new_figure(7.2, 1.4 + 0.22 * len(names))
        axes = figure.subplots()
        critical_difference_diagram(
            pd.Series([ranks["mean_rank"][n] for n in ranks["strategies"]], index=names),
            pd.DataFrame(p_values, index=names, columns=names),
            ax=axes,
            color_palette={styles[n].name: styles[n].color for n in ranks["strategies"]},
            text_h_margin=0.02 * (len(names) - 1),
            crossbar_props={"marker": "o", "markersize": 4},  # bars of equal ranks have no length
        )
        axes.grid(visible=False)
        # show the whole range of ranks, so that close ranks look close
        margin = 0.01 * (len(names) - 1)
        axes.set_xlim(1 - margin, len(names) + margin)
        axes.set_xticks(range(1, len(names) + 1))
        title = f"mean rank by area over {len(ranks['settings'])} datasets (1 is best)"
        axes.set_title(title, fontsize=11)
        return drawing.to_pictures(figure)
