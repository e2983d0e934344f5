"""Pictures of comparisons."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes

from ..runs.drawing import (
    COLORS,
    NEUTRAL,
    Look,
    Pictures,
    add_legend,
    draw_line,
    draw_shares,
    label_curves,
    new_figure,
    new_panels,
    set_title,
    shorten_all,
    slant,
    style,
    to_pictures,
)
from .wording import FEWEST, name_settings, name_spread, spread

Analysis: TypeAlias = Mapping[str, Any]
"""What `skal.comparisons.verdicts.analyse` returns."""

DASHES = ("-", "--", ":")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c")
NOISES = {"noise_rate": "rate of image noise", "label_noise": "rate of wrong labels"}

_log = logging.getLogger("skal")


def looks(analysis: Analysis) -> dict[str, Look]:
    """Give each strategy a colour, a marker and a dash that no other has all of.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`.

    Returns
    -------
    dict of str to Look
        By the strategy's name; the baseline is grey.
    """
    baseline = analysis["baseline"]
    names = [name for group in analysis["groups"] for name in group["strategies"]]
    shown = shorten_all([baseline, *names])
    found = {baseline: Look(shown[baseline], NEUTRAL, "o", "-")}
    for name in dict.fromkeys(names):
        number = len(found) - 1
        look = Look(
            shown[name],
            COLORS[number % len(COLORS)],
            MARKERS[number % len(MARKERS)],
            DASHES[number // len(COLORS) % len(DASHES)],
        )
        found.setdefault(name, look)
    return found


def comparison_curves(analysis: Analysis) -> Pictures:
    """Draw mean accuracy against labels, with the bands of `wording.spread`; a panel a group.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`.

    Returns
    -------
    dict
        The picture's bytes by format, "png" and "svg"; equal for equal input.
    """
    groups = analysis["groups"]
    styles = looks(analysis)
    with style():
        figure, panels = new_panels(len(groups), sharey=True)
        for axes, group in zip(panels, groups, strict=True):
            for name, label in group["strategies"].items():
                entry = analysis["strategies"][label]
                _draw_points(axes, entry["curve"], entry["n_seeds"], styles[name])
            label_curves(axes)
            entries = [analysis["strategies"][label] for label in group["strategies"].values()]
            below = _seeds([entry["n_seeds"] for entry in entries], "seeds")
            set_title(axes, group["name"], below, _room(groups))
        add_legend(figure, panels)
        return to_pictures(figure)


def difference_curves(analysis: Analysis) -> Pictures | None:
    """Draw how far each strategy is above the baseline, in pairs of seeds; a panel a group.

    The bands are those of the differences. Those of the curves themselves are wider, for they hold
    what the seeds' splits and initial sets do to all strategies alike.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`.

    Returns
    -------
    dict or None
        The picture's bytes by format, equal for equal input; None where no strategy has a seed in
        common with the baseline.
    """
    groups = analysis["groups"]
    chosen = [
        {
            name: analysis["strategies"][label]
            for name, label in group["strategies"].items()
            if analysis["strategies"][label]["differences"]
        }
        for group in groups
    ]
    if not any(chosen):
        return None
    styles = looks(analysis)
    baseline = styles[analysis["baseline"]]
    with style():
        figure, panels = new_panels(len(groups), sharey=True)
        for axes, group, entries in zip(panels, groups, chosen, strict=True):
            axes.axhline(0, color=baseline.color, linewidth=1.8, label=baseline.name)
            n_pairs = [entry["difference"]["aulc"]["n_pairs"] for entry in entries.values()]
            for (name, entry), n in zip(entries.items(), n_pairs, strict=True):
                _draw_points(axes, entry["differences"], n, styles[name], 100)
            label_curves(axes)
            axes.set_ylabel(f"points above {baseline.name}")
            below = _seeds(n_pairs, "paired differences") if n_pairs else "nothing to compare"
            set_title(axes, group["name"], below, _room(groups))
        add_legend(figure, panels)
        return to_pictures(figure)


def _draw_points(
    axes: Axes, points: Sequence[Mapping[str, Any]], n_seeds: int, look: Look, scale: float = 1
) -> None:
    """Draw what several seeds came to, at each number of labels."""
    ends = [spread(point, n_seeds) for point in points]
    bands = [(scale * low, scale * high) for low, high in ends]
    means = [scale * point["mean"] for point in points]
    draw_line(axes, [point["n_labeled"] for point in points], means, bands, look)


def _room(groups: Sequence[Any]) -> int:
    """Return how many characters a panel's title may have."""
    return 46 if len(groups) > 1 else 70


def _seeds(numbers: Sequence[int], what: str) -> str:
    """Say what is drawn: means of how many seeds, and which bands."""
    fewest, most = min(numbers), max(numbers)
    if most == 1:
        return "one seed"
    found = f"{fewest} to {most}" if fewest < most else str(most)
    band = name_spread(most)
    if fewest < FEWEST <= most:
        band += f"; of fewer than {FEWEST} {name_spread(fewest)}"
    return f"mean of {found} {what}, {band}"


def noise_curves(analysis: Analysis) -> Pictures | None:
    """Draw accuracy at the last budget, and area, against the rate of noise.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`.

    Returns
    -------
    dict or None
        The picture's bytes by format, equal for equal input; a column of panels for each dataset
        and model, a line a strategy. None where no rates are compared.
    """
    series = list(_noise_series(analysis["groups"]))
    if not series:
        return None
    styles = looks(analysis)
    figures = {"accuracy": "test accuracy at the end", "aulc": "area under the curve"}
    with style():
        figure = new_figure(max(6.4, 4.2 * len(series)), 6.4)
        grid = figure.subplots(len(figures), len(series), squeeze=False, sharex="col", sharey="row")
        for column, (title, axis, groups) in zip(grid.T, series, strict=True):
            names = dict.fromkeys(name for group in groups for name in group["strategies"])
            for axes, (figure_name, words) in zip(column, figures.items(), strict=True):
                for name in names:
                    having = [group for group in groups if name in group["strategies"]]
                    entries = [analysis["strategies"][g["strategies"][name]] for g in having]
                    means = [entry[figure_name]["mean"] for entry in entries]
                    bands = [spread(entry[figure_name], entry["n_seeds"]) for entry in entries]
                    draw_line(axes, [group[axis] for group in having], means, bands, styles[name])
                axes.set_xticks([group[axis] for group in groups])
                if axes in grid[:, 0]:
                    axes.set_ylabel(words)
            set_title(column[0], title, room=_room(series))
            column[-1].set_xlabel(NOISES[axis])
        add_legend(figure, list(grid.flat))
        return to_pictures(figure)


def _noise_series(
    groups: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    """Yield a title, the noise that varies, and the groups that differ in it alone, by rate."""
    for axis in NOISES:
        others = [name for name in ("dataset", "model", *NOISES) if name != axis]
        rows: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for group in groups:
            rows.setdefault(tuple(group[name] for name in others), []).append(group)
        several = [row for row in rows.values() if len(row) > 1]
        titles = name_settings([{**row[0], axis: 0.0} for row in several])
        for title, row in zip(titles, several, strict=True):
            yield title, axis, sorted(row, key=lambda group: float(group[axis]))


def efficiency_bars(analysis: Analysis) -> Pictures | None:
    """Draw label efficiency: the labels the baseline needs over those a strategy needs.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`.

    Returns
    -------
    dict or None
        The picture's bytes by format, equal for equal input: a panel a group, a bar for each
        strategy and target, with its 95% interval, which has an arrow in place of its lower end if
        the target is not reached in more than 2.5% of the resamples, and is left out below
        `wording.FEWEST` seeds; "not reached" stands where there is no bar. None where no
        strategy can be compared with the baseline.
    """
    found = {
        label: (entry["efficiency"], entry["difference"]["aulc"]["n_pairs"] >= FEWEST)
        for label, entry in analysis["strategies"].items()
        if entry["efficiency"]
    }
    if not found:
        return None
    groups = analysis["groups"]
    baseline = analysis["baseline"]
    chosen = [
        {name: found[label] for name, label in group["strategies"].items() if label in found}
        for group in groups
    ]
    most = max(map(len, chosen))
    each = 0.85 if most < 7 else 0.62
    styles = looks(analysis)
    with style():
        figure, panels = new_panels(len(groups), height=max(2.2, 0.9 + each * most))
        for axes, group, rows in zip(panels, groups, chosen, strict=True):
            for number, (targets, sure) in enumerate(rows.values()):
                _efficiency(axes, number, targets, sure)
            axes.axvline(1, color=NEUTRAL, linewidth=1.2, zorder=3)
            axes.set_yticks(range(len(rows)), [styles[name].name for name in rows])
            axes.set_ylim(most - 0.5, -0.5)
            axes.set_xlim(left=0, right=max(1.25, axes.get_xlim()[1] * 1.08))
            axes.set_xlabel(f"labels {styles[baseline].name} needs / labels the strategy needs")
            set_title(axes, group["name"], room=_room(groups))
            axes.grid(axis="y", visible=False)
            if not rows:
                axes.text(0.5, 0.5, "nothing to compare", ha="center", transform=axes.transAxes)
        add_legend(figure, panels)
        return to_pictures(figure)


def _efficiency(axes: Axes, number: int, targets: Sequence[Mapping[str, Any]], sure: bool) -> None:
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
        axes.annotate(
            f"{ratio:.2f}",
            (end, y),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=8,
        )


def _draw_interval(axes: Axes, y: float, target: Mapping[str, Any]) -> float:
    """Draw the interval of an efficiency, and return where it ends; open where it has no end."""
    low, high, ratio = target["low"], target["high"], target["ratio"]
    missed = not low  # resamples that do not get there count as 0, which is no end
    axes.plot(
        [0.8 * min(ratio, high) if missed else low, high],
        [y, y],
        color="#333333",
        linewidth=1,
        marker="<" if missed else None,
        markersize=4,
        markevery=[0],
        # seen on the darkest bar, too
        path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
    )
    return float(max(ratio, high))


def penalty_heatmap(analysis: Analysis) -> Pictures | None:
    """Draw the pairwise penalty matrix of the BADGE paper [1]_ with its row of means.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`, and `skal.comparisons.statistics.penalty_matrix`.

    Returns
    -------
    dict or None
        The picture's bytes by format, equal for equal input; a panel a group. None where no
        group has a matrix.

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford, Agarwal. Deep Batch Active Learning by Diverse,
       Uncertain Gradient Lower Bounds. ICLR 2020.
    """
    groups = [group for group in analysis["groups"] if group["penalty"]]
    if not groups:
        return None
    most = max(len(group["penalty"]["strategies"]) for group in groups)
    styles = looks(analysis)
    with style():
        size = max(4.2, 1.9 + 0.62 * most)
        figure, panels = new_panels(len(groups), width=size, height=size, grid=False)
        for axes, group in zip(panels, groups, strict=True):
            penalty = group["penalty"]
            names = [styles[name].name for name in penalty["strategies"]]
            shown = np.array([*penalty["matrix"], column_means(penalty["matrix"])], dtype=float)
            np.fill_diagonal(shown, np.nan)
            draw_shares(axes, shown, "{:.2f}", 9)
            axes.axhline(len(names) - 0.5, color="white", linewidth=6)
            axes.set_xticks(range(len(names)), names, **slant(names))
            axes.set_yticks(range(len(names) + 1), [*names, "mean of column"])
            set_title(axes, group["name"], room=_room(groups))
            axes.set_xlabel(f"how often the row beats\nthe column, of {penalty['n']} budgets")
        return to_pictures(figure)


def column_means(matrix: Sequence[Sequence[float]]) -> list[float]:
    """Return how often each strategy is beaten, in the mean over the others; lower is better."""
    n = len(matrix)
    return [sum(row[j] for i, row in enumerate(matrix) if i != j) / max(n - 1, 1) for j in range(n)]


def ranks_diagram(analysis: Analysis) -> Pictures | None:
    """Draw the critical-difference diagram [1]_ of mean ranks over several datasets.

    Strategies that Nemenyi's test at 5% cannot tell apart are joined by a bar.

    Parameters
    ----------
    analysis : mapping
        See `skal.comparisons.verdicts.analyse`.

    Returns
    -------
    dict or None
        The picture's bytes by format, equal for equal input; None where there are no ranks, or
        the package scikit-posthocs is not installed, which is then said.

    References
    ----------
    .. [1] J. Demšar. Statistical Comparisons of Classifiers over Multiple Data Sets. JMLR 7, 2006.
    """
    ranks = analysis["ranks"]
    if ranks is None or len(ranks["strategies"]) < 2:
        return None
    try:
        import pandas as pd
        from scikit_posthocs import critical_difference_diagram, posthoc_nemenyi_friedman
    except ImportError:
        _log.warning(
            "no critical-difference diagram: it needs scikit-posthocs: pip install 'skal[report]'"
        )
        return None
    styles = looks(analysis)
    names = [styles[name].name for name in ranks["strategies"]]
    values = np.array([ranks["values"][name] for name in ranks["strategies"]], dtype=float).T
    mean_ranks = pd.Series([ranks["mean_rank"][n] for n in ranks["strategies"]], index=names)
    told_apart = pd.DataFrame(
        np.asarray(posthoc_nemenyi_friedman(values)), index=names, columns=names
    )
    with style():
        figure = new_figure(7.2, 1.4 + 0.22 * len(names))
        axes = figure.subplots()
        palette = {styles[name].name: styles[name].color for name in ranks["strategies"]}
        critical_difference_diagram(
            mean_ranks,
            told_apart,
            ax=axes,
            color_palette=palette,
            text_h_margin=0.02 * (len(names) - 1),
            crossbar_props={"marker": "o", "markersize": 4},  # bars of equal ranks have no length
        )
        axes.grid(visible=False)
        _show_all_ranks(axes, len(names))
        axes.set_title(
            f"mean rank by area over {len(ranks['settings'])} datasets (1 is best)", fontsize=11
        )
        return to_pictures(figure)


def _show_all_ranks(axes: Axes, n: int) -> None:
    """Let the axis go from 1 to `n`, whatever the ranks: near ones shall look near."""
    axes.set_xlim(1 - 0.01 * (n - 1), n + 0.01 * (n - 1))
    axes.set_xticks(range(1, n + 1))
