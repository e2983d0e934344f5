"""`skal run` and `skal resume`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..core.lazy import importing
from ..core.progress import hidden
from ..core.trust import foreign_names
from ..runs.config import SETTINGS, RunConfig
from .app import console, main, say
from .settings import (
    PATH,
    RunCommand,
    file_options,
    given_settings,
    options,
    track_option,
    trust_option,
)

_log = logging.getLogger("skal")


@main.command(cls=RunCommand, name="run")
@options(SETTINGS.values())
@file_options
@track_option
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    out: Path | None,
    config_file: Path | None,
    print_config: bool,
    as_json: bool,
    quiet: bool,
    track: tuple[str, ...],
    **given: Any,
) -> None:
    """Simulate active learning: train, query, label, repeat.

    The run is recorded in a folder, and can be resumed if it is stopped.

    \b
    skal run --dataset digits --strategy badge
    skal run --dataset photos --n-init 50 --n-query 50 --out first
    """  # noqa: D301 (click wants the character)
    with console(ctx, quiet):
        settings, _ = given_settings(given, config_file)
        config = RunConfig(**settings)
        if print_config:
            click.echo(config.to_toml(), nl=False)
            return
        from ..runs.names import check_names
        from ..runs.record import check_free

        check_names(config)
        if out is not None:
            check_free(out)
        with importing():
            from ..runs.run import run

        settings.pop("dataset", None)
        result = run(config.dataset, **settings, out=out or True, trackers=[progress(ctx), *track])
        _echo_result(result, as_json, quiet)


@main.command()
@click.argument("run_dir", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show only warnings and errors.")
@trust_option
@track_option
@click.pass_context
def resume(
    ctx: click.Context,
    run_dir: Path,
    as_json: bool,
    quiet: bool,
    trust: bool,
    track: tuple[str, ...],
) -> None:
    """Resume a stopped run from its last complete round.

    \b
    skal resume runs/digits-badge-small-cnn-s0
    skal resume first --track tensorboard
    """  # noqa: D301 (click wants the character)
    with console(ctx, quiet):
        from ..runs.record import check_run_folder

        check_run_folder(run_dir)
        with importing():
            from ..runs.run import resume

        result = resume(run_dir, trackers=[progress(ctx), *track], trust=trust)
        _echo_result(result, as_json, quiet)


def progress(ctx: click.Context) -> Any:
    """Return a tracker that shows a progress bar of rounds and remembers the run's folder."""
    from tqdm import tqdm

    from ..runs.trackers import Tracker

    class Progress(Tracker):
        def on_start(self, config: Any, folder: Path | None) -> None:
            ctx.obj["folder"] = folder
            ctx.obj["trust"] = bool(foreign_names(config))
            _log.info("%s on %s; writing to %s", config.strategy, config.dataset, folder)
            self.bar = tqdm(total=config.n_rounds + 1, unit="round", disable=hidden(), leave=False)

        def on_phase(self, round_number: int, phase: str) -> None:
            self.bar.n = round_number
            self.bar.set_description(phase)

        def on_round(self, row: Mapping[str, Any]) -> None:
            self.bar.update(1)

        def on_close(self) -> None:
            self.bar.close()

    return Progress()


def _echo_result(result: Any, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.summary))
    elif not quiet:
        say(result.table())
    _log.info("done: %s (learning_curve.png, rounds.csv, queries.csv, ...)", result.folder)
