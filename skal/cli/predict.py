"""`skal predict`."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import click

from ..comparisons.config import GRID_SETTINGS
from ..core.lazy import importing
from ..runs.config import SETTINGS
from .app import console, main
from .settings import PATH, options, trust_option

WORKERS = ("jobs", "threads", "backend", "scheduler")

_log = logging.getLogger("skal")


@main.command()
@click.argument("run_dir", type=PATH)
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option(
    "--out",
    metavar="PATH",
    type=PATH,
    help="FILE.csv or FILE.parquet, or a folder of Parquet files. [CSV to stdout]",
)
@click.option("--embeddings", is_flag=True, help="Also write the embeddings.")
@click.option(
    "--utilities",
    metavar="A,B,...",
    help="Also write how much these strategies want each image labelled. "
    "[least-confidence,margin,entropy to Parquet, none to CSV]",
)
@click.option(
    "--shard-size",
    metavar="N",
    type=int,
    default=10_000,
    show_default=True,
    help="Images per shard: what a job classifies at a time.",
)
@options([*(GRID_SETTINGS[name] for name in WORKERS), SETTINGS["device"]])
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show only warnings and errors.")
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    run_dir: Path,
    paths: tuple[Path, ...],
    out: Path | None,
    utilities: str | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Classify images with the network of a run or `skal train`.

    PATHS are images and folders of images. Repeat an interrupted command to resume it.

    \b
    skal predict model photos --out classes.csv
    skal predict model photos --out classes.parquet --embeddings --utilities margin
    """  # noqa: D301 (click wants the character)
    with console(ctx, quiet), tempfile.TemporaryDirectory() as scratch:
        from ..core.text import counted
        from ..core.workers import Workers
        from ..prediction.checks import check_network, check_places, check_utilities

        given = {name: value for name, value in settings.items() if value is not None}
        if utilities is not None:
            given["utilities"] = [name for name in utilities.split(",") if name]
        target = out or Path(scratch) / "out.csv"
        check_places(target, paths)
        check_utilities(given.get("utilities", ()), given.get("shard_size", 1))
        Workers(**{name: given[name] for name in WORKERS if name in given})
        check_network(run_dir, given.get("device", SETTINGS["device"].default), trust)
        try:
            with importing():
                from ..prediction import pipeline

            done = pipeline.predict(run_dir, paths, target, trust=trust, **given)
        except KeyboardInterrupt:
            if out is not None:
                ctx.obj["go_on"] = "finished shards are saved; repeat the command to resume"
            raise
        if out is None and not as_json:
            with done.out.open("rb") as file:
                for block in iter(lambda: file.read(2**20), b""):
                    click.echo(block, nl=False)
        if as_json:
            click.echo(json.dumps({**done.as_dict(), "out": str(out) if out else None}))
        _log.info("%s classified", counted(done.n_images - done.n_unreadable, "image"))
        if done.n_unreadable:
            rows = "its row is empty" if done.n_unreadable == 1 else "their rows are empty"
            _log.warning("%s cannot be read; %s", counted(done.n_unreadable, "image"), rows)
        if out is not None:
            _log.info("written to %s", out)
