"""`skal list` and `skal doctor`: what there is, and what is wrong."""

from __future__ import annotations

import json
from typing import Any

import click

from .app import console, main

LISTED = ("datasets", "models", "strategies", "stream-strategies", "trackers")


def registry(kind: str) -> Any:
    from ..datasets import DATASETS
    from ..models import MODELS
    from ..runs.trackers import TRACKERS
    from ..strategies import STRATEGIES
    from ..strategies.streams import STREAM_STRATEGIES

    return {
        "datasets": DATASETS,
        "models": MODELS,
        "strategies": STRATEGIES,
        "stream-strategies": STREAM_STRATEGIES,
        "trackers": TRACKERS,
    }[kind]


@main.command(name="list")
@click.argument("kind", type=click.Choice(LISTED))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
@click.pass_context
def list_command(ctx: click.Context, kind: str, as_json: bool) -> None:
    """List what can be named."""
    with console(ctx):
        rows = [{"name": entry.name, **entry.facts} for entry in registry(kind).listed()]
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    columns = [
        c for c in ("name", "needs", "summary", "cost", "paper") if any(c in r for r in rows)
    ]
    echo_table(columns, [[str(row.get(column, "")) for column in columns] for row in rows])


def echo_table(columns: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@main.command()
@click.option("--data-dir", metavar="DIR", help="Where data are looked for.")
@click.pass_context
def doctor(ctx: click.Context, data_dir: str | None) -> None:
    """Say what skal finds here: versions, devices, data; and what is wrong."""
    from .doctor import examine

    with console(ctx):
        checks = examine(data_dir)
    for check in checks:
        click.echo(f"{'ok' if check.fine else 'PROBLEM':<8} {check.name}: {check.found}")
    if not all(check.fine for check in checks):
        ctx.exit(1)
