"""`skal list`, `skal doctor`, and shell completion of names."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..core.tables import aligned
from .app import console, main, say

KINDS: Mapping[str, str] = {
    "datasets": "skal.datasets:DATASETS",
    "models": "skal.models:MODELS",
    "strategies": "skal.strategies:STRATEGIES",
    "stream-strategies": "skal.strategies:STREAM_STRATEGIES",
    "init-strategies": "skal.strategies:INIT_STRATEGIES",
    "oracles": "skal.datasets.oracles:ORACLES",
    "trackers": "skal.runs.trackers:TRACKERS",
    "metrics": "skal.runs.metrics:METRICS",
    "formats": "skal.label:FORMATS",
    "import-formats": "skal.label.formats:READERS",
    "network-formats": "skal.prediction:NETWORK_FORMATS",
}
"""The kinds of names on the command line, and their registries."""

COLUMNS = ("name", "needs", "summary", "cost", "paper")
NARROWEST = 24
"""Least width of wrapped text, however narrow the terminal."""


def registry(kind: str) -> Any:
    from ..core.registry import import_object

    return import_object(KINDS[kind])


def complete(*kinds: str, folders: bool = False) -> Callable[..., list[CompletionItem]]:
    """Return a shell completion function for names of some `KINDS` (in a comma-separated list, the
    last name) and for folders.
    """

    def completions(_ctx: Any, _option: Any, incomplete: str) -> list[CompletionItem]:
        before, comma, start = incomplete.rpartition(",")
        names = [entry.name.removesuffix("NAME") for k in kinds for entry in registry(k).listed()]
        items = [CompletionItem(incomplete, type="dir")] if folders else []
        return items + [
            CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(start)
        ]

    return completions


@main.command(name="list")
@click.argument("kind", type=click.Choice(tuple(KINDS)))
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
@click.pass_context
def list_command(ctx: click.Context, kind: str, pattern: str | None, as_json: bool) -> None:
    """List strategies, models and other names.

    PATTERN, such as 'timm:*dinov2*', restricts the list to names that match.

    \b
    skal list strategies
    skal list models 'timm:*dinov2*' --json
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        entries = registry(kind).listed(pattern)
        rows = [{"name": entry.name, **_plain(entry.facts)} for entry in entries]
    if as_json:
        click.echo(json.dumps(rows, default=str))
    elif rows:
        columns = [c for c in COLUMNS if any(c in row for row in rows)]
        table = [[str(row.get(column, "")) for column in columns] for row in rows]
        click.echo("\n".join(table_lines(columns, table, _width())))
    else:
        click.echo(f"no {kind} match {pattern!r}", err=True)


def _width() -> float:
    """Return the terminal's width; piped output has one line per entry, however long."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return math.inf


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts for display: True for a function, and no recogniser functions at all."""
    kept = {name: value for name, value in facts.items() if name != "recognises"}
    return {name: True if callable(value) else value for name, value in kept.items()}


def table_lines(columns: Sequence[str], rows: list[list[str]], width: float) -> list[str]:
    """Return a table as lines of at most `width` characters.

    If it is wider, the columns after the name (and needs) are joined and wrapped next to the name,
    or below a long one.
    """
    rows = [list(columns), *rows]
    lines = aligned(rows)
    if max(map(len, lines)) <= width:
        return lines
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    n_fixed = 2 if "needs" in columns else 1
    fixed = [min(w, int(max(width - NARROWEST, 8)) // n_fixed) for w in widths[:n_fixed]]
    indent = " " * (sum(fixed) + 2 * n_fixed)
    lines = []
    for row in rows:
        details = "; ".join(filter(None, row[n_fixed:]))
        space = max(int(width) - len(indent), NARROWEST)
        texts = textwrap.wrap(details, space, break_on_hyphens=False) or [""]
        names = "  ".join(t.ljust(w) for t, w in zip(row[:n_fixed], fixed, strict=True)) + "  "
        if len(names) > len(indent):
            lines.append(names.rstrip())
            names = indent
        lines.append((names + texts[0]).rstrip())
        lines += [indent + text for text in texts[1:]]
    return lines


@main.command()
@click.argument("folder", required=False, type=click.Path())
@click.option("--data-dir", metavar="DIR", help="Folder of the datasets.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(ctx: click.Context, folder: str | None, data_dir: str | None, as_json: bool) -> None:
    """Check the installation, or a folder of images.

    Without FOLDER, report versions, devices and the data folder. With FOLDER, report its classes,
    image sizes, modes, value ranges, unreadable files, duplicates and likely mistakes. The exit
    code is 1 if there is a problem.

    \b
    skal doctor
    skal doctor photos --json
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        problems, lines, facts = _findings(folder, data_dir)
    say(json.dumps(facts, indent=2) if as_json else "\n".join(lines))
    if problems:
        ctx.exit(1)


def _findings(folder: str | None, data_dir: str | None) -> tuple[bool, list[str], Any]:
    """Return whether there is a problem, and the findings as lines and as JSON."""
    if folder is None:
        from .doctor import examine

        checks = examine(data_dir)
        lines = [f"{'ok' if c.fine else 'PROBLEM':<8} {c.name}: {c.found}" for c in checks]
        return not all(c.fine for c in checks), lines, [check._asdict() for check in checks]
    from dataclasses import asdict

    from ..datasets import data_folder
    from ..datasets.inspection import inspect_folder, report

    found = inspect_folder(Path(folder), data_folder(data_dir))
    return bool(found.problems), report(found), asdict(found)
