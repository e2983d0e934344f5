"""Comparisons as tables: CSV for programs, text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core.tables import aligned, csv_of
from ...core.text import counted
from ...runs.record import METRICS, SECONDS
from ..pairs import tell_apart
from ..plots import Analysis, entries_of
from ..results import Result, Setting
from ..sentences import FEWEST

FIRST = ("strategy", "seed", "round", "n_labeled", "accuracy")
FIGURES = (
    "accuracy",
    "vs {}",
    "p (Holm)",
    "area",
    "area vs {}",
    "p (Holm)",
    "efficiency",
)
"""Headings of `figures`, to be formatted with the baseline's name."""
NONE = "-"


def results_csv(results: Sequence[Result]) -> str:
    """Return a row for each round, sorted by setting, strategy, seed and round. The columns of
    seconds, the only ones that differ between repeated runs, are last.
    """
    rows = [
        {**row, **result.setting._asdict(), "strategy": result.strategy, "seed": result.config.seed}
        for result in tell_apart(results)
        for row in result.rounds
    ]
    rows.sort(key=lambda row: tuple(row[name] for name in (*Setting._fields, *FIRST[:3])))
    leading = (*FIRST, *Setting._fields, *METRICS)
    others = {name for row in rows for name in row} - {*leading, *SECONDS}
    return csv_of((*leading, *sorted(others), *SECONDS), rows)


def text_table(analysis: Analysis) -> str:
    """Return figures, verdicts and warnings as text for a terminal."""
    return "\n".join(_lines(analysis))


def _lines(analysis: Analysis) -> Iterator[str]:
    for group in analysis["groups"]:
        yield f"{group['name']}, {counted(group['n_labeled'][-1], 'label')} at the end"
        own = entries_of(analysis, group)
        head = ["strategy", *(title.format(analysis["baseline"]) for title in FIGURES)]
        yield from aligned([head, *([name, *figures(entry)] for name, entry in own.items())])
        yield ""
    for entry in analysis["strategies"].values():
        yield entry["verdict"]
    for family in ("models", "noise"):
        if analysis[family]:
            yield ""
            yield from (row["sentence"] for row in analysis[family])
    for warning in warnings(analysis):
        yield f"Warning: {warning}"


def warnings(analysis: Analysis) -> dict[str, list[str]]:
    """Return the warnings, each with the names of its settings."""
    groups = analysis["groups"]
    found: dict[str, list[str]] = {}
    failed = analysis["failed"]
    if failed:
        more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
        runs = counted(len(failed), "run failed and is", "runs failed and are")
        names = f"{', '.join(failed[:10])}{more}"
        found[f"{runs} not included: {names}"] = [group["name"] for group in groups]
    for group in groups:
        for warning in group["warnings"]:
            found.setdefault(warning, []).append(group["name"])
    return found


def figures(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Format a strategy's row in the order of `FIGURES`, with corrected p, and label efficiency at
    the baseline's final accuracy.
    """
    found = entry["difference"] or {}
    return (
        _with_spread(entry["accuracy"]),
        *difference(found.get("accuracy"), interval=False),
        _with_spread(entry["aulc"]),
        *difference(found.get("aulc")),
        _efficiency(entry["efficiency"]),
    )


def _with_spread(value: Mapping[str, Any]) -> str:
    spread = "" if value["sd"] is None else f" ± {value['sd']:.4f}"
    return f"{value['mean']:.4f}{spread}"


def difference(found: Mapping[str, Any] | None, interval: bool = True) -> tuple[str, str]:
    """Format a paired difference, its interval if there are enough seeds, and its p."""
    if found is None or found["mean"] is None:
        return NONE, NONE
    known = interval and found["n_pairs"] >= FEWEST
    ends = f" [{found['low']:+.4f}, {found['high']:+.4f}]" if known else ""
    return f"{found['mean']:+.4f}{ends}", f"{found['p_holm']:.2g}"


def _efficiency(targets: Sequence[Mapping[str, Any]] | None) -> str:
    if not targets:
        return NONE
    ratio = targets[-1]["ratio"]
    return "not reached" if ratio is None else f"{ratio:.2f}"
