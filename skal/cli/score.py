"""`skal score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..comparisons.config import GRID_SETTINGS
from ..runs.config import SETTINGS
from .app import console, main
from .settings import options

PLACE = ("jobs", "threads", "backend", "scheduler")


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--model",
    metavar="RUN_DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="A run folder, or one of skal train.",
)
@click.option(
    "--out",
    metavar="PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="NAME.parquet for one file, any other name for a folder of shards.",
)
@click.option(
    "--strategy",
    "strategies",
    metavar="NAME",
    multiple=True,
    help="Whose utilities; may be repeated. [least-confidence, margin and entropy]",
)
@click.option("--embeddings", is_flag=True, help="Keep the embeddings, too.")
@click.option(
    "--shard-size",
    metavar="N",
    type=int,
    default=10_000,
    show_default=True,
    help="Images that a worker does at a time.",
)
@options([*(GRID_SETTINGS[name] for name in PLACE), SETTINGS["device"]])
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show warnings and errors alone.")
@click.pass_context
def score(
    ctx: click.Context,
    /,
    folder: Path,
    strategies: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Write what a network says of every image of DIR to Parquet: classes, utilities, embeddings.

    The same command again goes on where it was stopped.
    """
    with console(ctx, quiet):
        from ..prediction.pipeline import MEASURED, score

        given = {name: value for name, value in settings.items() if value is not None}
        try:
            done = score(folder, strategies=strategies or MEASURED, **given)
        except KeyboardInterrupt:
            ctx.obj["go_on"] = "all whole shards are kept; the same command goes on"
            raise
        if as_json:
            click.echo(json.dumps(done.as_dict()))
        elif not quiet:
            unreadable = f", of which {done.n_unreadable} cannot be read" * bool(done.n_unreadable)
            click.echo(f"done: {done.out} ({done.n_images} images{unreadable})", err=True)
