"""Curves for Plotly: plain values that its script draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..panels import DASHES, MARKERS, Analysis, Look, entries_of, looks
from ..sentences import name_spread, spread


def curves(analysis: Analysis, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's curves and bands as `data` and `layout` for ``Plotly.newPlot``; the page
    sets the colours of text and grid.
    """
    styles = looks(analysis)
    traces: list[dict[str, Any]] = []
    for name, entry in entries_of(analysis, group).items():
        traces += [*_band(entry, styles[name]), _line(entry, styles[name])]
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
        "text": [_told(point, entry["n_seeds"]) for point in points],
        "hovertemplate": "%{x} labels: %{y:.4f}%{text}",
        "line": {"color": look.color, "dash": DASHES[look.dash], "width": 2},
        "marker": {"symbol": MARKERS.get(look.marker, "circle"), "size": 7},
    }


def _told(point: Mapping[str, Any], n_seeds: int) -> str:
    if n_seeds < 2:
        return ""
    low, high = spread(point, n_seeds)
    return f"<br>{name_spread(n_seeds)} {low:.4f} to {high:.4f}"


def _band(entry: Mapping[str, Any], look: Look) -> list[dict[str, Any]]:
    if entry["n_seeds"] < 2:
        return []
    points = entry["curve"]
    labels = [point["n_labeled"] for point in points]
    low, high = zip(*(spread(point, entry["n_seeds"]) for point in points), strict=True)
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "legendgroup": entry["strategy"],
            "showlegend": False,
            "hoverinfo": "skip",
            "x": labels + labels[::-1],
            "y": [*low, *reversed(high)],
            "fill": "toself",
            "fillcolor": _transparent(look.color, 0.14),
            "line": {"width": 0},
        }
    ]


def _transparent(color: str, alpha: float) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
