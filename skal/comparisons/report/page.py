"""`report.html`: one self-contained file that opens offline."""

from __future__ import annotations

import os
import shlex
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ...core.text import counted
from ...datasets.loading import load_as
from ...runs.drawing import Pictures
from ...runs.metrics import pool_errors
from ...runs.plots import calibration_picture, confusion_picture
from ..curves import MEASURES
from ..folder import GRID_FILE
from ..pairs import group_by_setting
from ..plots import DASHES, MARKERS, Analysis, Look, column_means, entries_of, looks
from ..results import Result, Setting
from ..sentences import FEWEST, name_part, name_spread, spread
from .picks import (
    MOST_ROUNDS,
    MOST_SEEDS,
    class_balance,
    load_images,
    room_for_each,
    show_picks,
)
from .tables import FIGURES, difference, figures, warnings

LARGEST_SVG = 400_000
"""Limit in bytes; a larger picture is embedded as PNG, which browsers draw faster."""
MOST_CLASSES = 20
MOST_VALUES = 12


def make_page(
    results: Sequence[Result],
    analysis: Analysis,
    pictures: Mapping[str, Pictures | None],
    folder: Path,
) -> str:
    """Return self-contained HTML to write to `folder`; paths of runs are relative to it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("skal.comparisons.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_uri=_data_uri,
        interval=efficiency_interval,
        # differences of both measures, each with its p
        both=lambda row: [word for measure in MEASURES for word in difference(row[measure])],
        setting=_describe_setting,
        compared=_describe_compared,
        column_means=column_means,
        seen=partial(_seen_from, folder),
    )
    groups = analysis["groups"]
    datasets = dict.fromkeys(group["dataset"] for group in groups)
    few = [entry["n_seeds"] < FEWEST for entry in analysis["strategies"].values()]
    records = [result.environment for result in results]
    return environment.get_template("report.html").render(
        analysis=analysis,
        baseline=analysis["baseline"],
        title=f"{', '.join(datasets)}: which strategies beat {analysis['baseline']}?",
        groups=[_describe_group(analysis, group, number) for number, group in enumerate(groups)],
        warnings=warnings(analysis),
        fewest=FEWEST,
        fewer=any(few),
        all_fewer=all(few),
        figure_titles=[title.format(analysis["baseline"]) for title in FIGURES],
        colors={name: look.color for name, look in looks(analysis).items()},
        pictures={name: _inline(picture) for name, picture in pictures.items()},
        strategies=list(_describe_strategies(results, analysis)),
        most_rounds=MOST_ROUNDS,
        settings=_in_common(result.config.as_dict() for result in results),
        versions=_in_common(map(_versions, records)),
        commands=_commands(records),
        runs=results,
        compare_file=(folder / GRID_FILE).is_file(),
        plotly=get_plotlyjs(),
    )


def _describe_group(analysis: Analysis, group: Mapping[str, Any], number: int) -> dict[str, Any]:
    entries = entries_of(analysis, group)
    return {
        **group,
        "id": f"curves-{number}",
        "entries": entries,
        "figures": {name: figures(entry) for name, entry in entries.items()},
        "chart": chart(analysis, group),
    }


def chart(analysis: Analysis, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's curves and bands as `data` and `layout` for ``Plotly.newPlot``; the page
    sets the colours of text and grid.
    """
    styles = looks(analysis)
    traces: list[dict[str, Any]] = []
    for name, entry in entries_of(analysis, group).items():
        if entry["n_seeds"] > 1:
            traces.append(_band(entry, styles[name]))
        traces.append(_line(entry, styles[name]))
    return {
        "data": traces,
        "layout": {
            "height": 460,
            "margin": {"l": 60, "r": 12, "t": 12, "b": 50},
            "xaxis": {"title": {"text": "labelled images"}, "automargin": True, "zeroline": False},
            "yaxis": {"title": {"text": "test accuracy"}, "automargin": True, "zeroline": False},
            "legend": {"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"},
            "hovermode": "closest",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "modebar": {"orientation": "h", "bgcolor": "rgba(0,0,0,0)"},
        },
    }


def _line(entry: Mapping[str, Any], look: Look) -> dict[str, Any]:
    points = entry["curve"]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": look.name,
        "legendgroup": entry["strategy"],
        "x": [point["n_labeled"] for point in points],
        "y": [point["mean"] for point in points],
        "text": [_hover_text(point, entry["n_seeds"]) for point in points],
        "hovertemplate": "%{x} labels: %{y:.4f}%{text}",
        "line": {"color": look.color, "dash": DASHES[look.dash], "width": 2},
        "marker": {"symbol": MARKERS.get(look.marker, "circle"), "size": 7},
    }


def _hover_text(point: Mapping[str, Any], n_seeds: int) -> str:
    if n_seeds < 2:
        return ""
    low, high = spread(point, n_seeds)
    return f"<br>{name_spread(n_seeds)} {low:.4f} to {high:.4f}"


def _band(entry: Mapping[str, Any], look: Look) -> dict[str, Any]:
    points = entry["curve"]
    labels = [point["n_labeled"] for point in points]
    low, high = zip(*(spread(point, entry["n_seeds"]) for point in points), strict=True)
    red, green, blue = bytes.fromhex(look.color[1:])
    return {
        "type": "scatter",
        "mode": "lines",
        "legendgroup": entry["strategy"],
        "showlegend": False,
        "hoverinfo": "skip",
        "x": labels + labels[::-1],
        "y": [*low, *reversed(high)],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.14)",
        "line": {"width": 0},
    }


def efficiency_interval(target: Mapping[str, Any], n_pairs: int) -> str:
    """Format the interval of a label efficiency, which may lack a lower end."""
    if target["low"] is None or n_pairs < FEWEST:
        reached = target["reached"]
        return "–" if reached in (None, 1) else f"– (not reached in {1 - reached:.0%} of resamples)"
    if target["low"]:
        return f"{target['low']:.2f} to {target['high']:.2f}"
    return f"to {target['high']:.2f}; not reached in {1 - target['reached']:.0%} of resamples"


def _describe_setting(row: Mapping[str, Any]) -> str:
    """Return the common setting of a pair of models or noise rates."""
    compared = "model" if "models" in row else row["noise"]
    fields = [name for name in Setting._fields if name != compared and row[name] != 0]
    return ", ".join(name_part(name, row[name]) for name in fields)


def _describe_compared(row: Mapping[str, Any]) -> str:
    if "models" in row:
        name, other = row["models"]
        return f"{name} − {other}"
    one, other = (name_part(row["noise"], row[key]) for key in (row["noise"], "lowest_rate"))
    return f"{one} − {other}"


def _inline(picture: Pictures | None) -> str | None:
    if picture is None:
        return None
    if "png" not in picture or len(picture["svg"]) <= LARGEST_SVG:
        return _data_uri(picture["svg"], "image/svg+xml")
    return _data_uri(picture["png"], "image/png")


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def _describe_strategies(results: Sequence[Result], analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Yield the picks, their classes, and the errors of each strategy and setting."""
    by_setting = group_by_setting(results)
    by_label = {}
    for group in analysis["groups"]:
        setting = Setting(*(group[name] for name in Setting._fields))
        for name, label in group["strategies"].items():
            by_seed = by_setting[setting][name]
            by_label[label] = [by_seed[seed] for seed in sorted(by_seed)]
    n_shown = sum(min(MOST_SEEDS, len(runs)) for runs in by_label.values())
    longest = max(min(MOST_ROUNDS, len(result.rounds)) for result in results)
    most = room_for_each(n_shown, longest)
    # the split of folders and of digits depends on the seed
    load = lru_cache(maxsize=MOST_SEEDS)(load_as)
    for label, runs in by_label.items():
        picks = [show_picks(run, load, most) for run in runs[:MOST_SEEDS]]
        try:
            pool = load_images(runs[0], load)
        except Exception:  # loaders may raise anything; `show_picks` reports the reason
            pool = None
        balance = class_balance(runs, pool)
        shown = sorted(balance, key=lambda e: abs(e.picked - (e.pool or 0)), reverse=True)
        yield {
            "label": label,
            "strategy": analysis["strategies"][label]["strategy"],
            "picks": picks,
            "n_seeds": len(runs),
            "noisy": runs[0].setting.noise_rate > 0,
            "balance": [entry for entry in balance if entry in shown[:MOST_CLASSES]],
            "n_classes": len(balance),
            "errors": _describe_errors(runs),
        }


def _describe_errors(runs: Sequence[Result]) -> dict[str, Any] | None:
    """Return the errors of the runs' last networks, pooled, None without evaluations."""
    found = [run.evaluation for run in runs if run.evaluation]
    if not found or any(evaluation["classes"] != found[0]["classes"] for evaluation in found):
        return None
    pooled = pool_errors(found)
    names, counts = pooled["classes"], pooled["confusion"]
    pairs = [
        (count, names[i], names[j])
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    mistakes = sorted(pairs, key=lambda pair: -pair[0])[:5]
    return {
        "n_networks": len(found),
        "n_images": sum(map(sum, counts)),
        "n_wrong": sum(count for count, _, _ in pairs),
        "mistakes": [f"{true} as {taken} ({count})" for count, true, taken in mistakes],
        "confusion": _inline(confusion_picture(pooled, ["svg"])),
        "calibration": _inline(calibration_picture(pooled, ["svg"])),
        "bins": _describe_bins(pooled["calibration"]),
    }


def _describe_bins(bins: Mapping[str, Any]) -> str:
    columns = (bins["count"], bins["confidence"], bins["accuracy"])
    return "; ".join(
        f"confidence {confidence:.2f}, accuracy {accuracy:.2f} ({count})"
        for count, confidence, accuracy in zip(*columns, strict=True)
        if count
    )


def _in_common(tables: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the distinct values of each name in several tables."""
    found, rows = {}, list(tables)
    for name in dict.fromkeys(name for row in rows for name in row):
        values = dict.fromkeys("-" if row.get(name) is None else str(row[name]) for row in rows)
        found[name] = (
            ", ".join(values) if len(values) <= MOST_VALUES else counted(len(values), "value")
        )
    return found


def _versions(record: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in record.items() if name not in ("packages", "command")}
    return {**facts, **record.get("packages", {})}


def _commands(records: Iterable[Mapping[str, Any]], most: int = 10) -> list[str]:
    found: dict[str, None] = {}
    for record in records:
        if command := record.get("command"):
            program = Path(command[0]).name
            words = ["python", program] if program.endswith(".py") else [program]
            found[shlex.join([*words, *command[1:]])] = None
    return list(found)[:most]


def _seen_from(folder: Path, path: Path | None) -> str | None:
    """Return a relative path, so that the page can be moved together with its runs."""
    if path is None:
        return None
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return str(path)
