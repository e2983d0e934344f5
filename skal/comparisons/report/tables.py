"""Comparisons as tables: CSV for programs, text for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...runs.record import METRICS, SECONDS
from ..pairs import tell_apart
from ..panels import Analysis, entries_of
from ..results import Result, Setting
from ..sentences import FEWEST, plural

FIRST = ("strategy", "seed", "round", "n_labeled", "accuracy")
FIGURES = (
    "accuracy",
    "less {}'s",
    "p (Holm)",
    "area",
    "area less {}'s",
    "p (Holm)",
    "efficiency",
)
"""What `figures` returns, with a place for the baseline's name."""
NONE = "-"


def results_csv(results: Sequence[Result]) -> str:
    """Return the rounds of all runs as one CSV table in long form, a row a round.

    It is sorted by setting, strategy, seed and round. The columns are strategy, seed, round,
    n_labeled, accuracy; the setting; the other metrics; last the seconds, which alone differ when
    the same runs are made again.
    """
    rows = [
        {**row, **result.setting._asdict(), "strategy": result.strategy, "seed": result.config.seed}
        for result in tell_apart(results)
        for row in result.rounds
    ]
    rows.sort(key=lambda row: tuple(row[name] for name in (*Setting._fields, *FIRST[:3])))
    leading = (*FIRST, *Setting._fields, *METRICS)
    others = {name for row in rows for name in row} - {*leading, *SECONDS}
    columns = list(dict.fromkeys((*leading, *sorted(others), *SECONDS)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def text_table(analysis: Analysis) -> str:
    """Return the figures, the verdicts and the warnings as text for a terminal.

    There is a table for each setting, then a sentence for each strategy, and where there are
    several models or rates of noise for each pair of those.
    """
    return "\n".join(_lines(analysis))


def _lines(analysis: Analysis) -> Iterator[str]:
    for group in analysis["groups"]:
        yield f"{group['name']}, {group['n_labeled'][-1]} labels at the end"
        own = entries_of(analysis, group)
        head = ["strategy", *(title.format(analysis["baseline"]) for title in FIGURES)]
        yield from _aligned([head, *([name, *figures(entry)] for name, entry in own.items())])
        yield ""
    for entry in analysis["strategies"].values():
        yield entry["verdict"]
    for family in ("models", "noise"):
        if analysis[family]:
            yield ""
            yield from (row["sentence"] for row in analysis[family])
    for warning in warnings(analysis):
        yield f"Beware: {warning}"


def warnings(analysis: Analysis) -> dict[str, list[str]]:
    """Return each warning once, with the names of the settings that it is about."""
    groups = analysis["groups"]
    found: dict[str, list[str]] = {}
    failed = analysis["failed"]
    if failed:
        more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
        runs = f"{len(failed)} {plural(len(failed), 'run that', 'runs that')} failed"
        names = f"{', '.join(failed[:10])}{more}"
        found[f"nothing is known of {runs}: {names}"] = [group["name"] for group in groups]
    for group in groups:
        for warning in group["warnings"]:
            found.setdefault(warning, []).append(group["name"])
    return found


def figures(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is said of a strategy in a row of a table, as text, in the order of `FIGURES`.

    Final accuracy and area under the curve each have their standard deviation over seeds, the
    difference from the baseline's, that of areas with its interval where there are seeds enough,
    and the corrected p; label efficiency is that at the baseline's final accuracy.
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
    """Return a paired difference, with its interval if it shall be shown, and its p, as text."""
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


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
