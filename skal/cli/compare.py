"""`skal compare` and `skal report`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..comparisons.config import AXES, GRID, GRID_SETTINGS, NOT_OF_A_GRID, GridConfig, base_config
from ..core.lazy import importing, require_drawing
from ..core.settings import override
from ..runs.config import SETTINGS, RunConfig
from .app import console, main, say
from .settings import PATH, RunCommand, file_options, given_settings, options, track_option


@main.command(cls=RunCommand)
@options(GRID_SETTINGS.values())
@options(setting for name, setting in SETTINGS.items() if name not in NOT_OF_A_GRID)
@file_options
@track_option
@click.pass_context
def compare(
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
    """Compare strategies with random, in runs paired by seed.

    The verdict says which is better, by how much, and how sure that is. Run it again to resume it,
    or with more strategies or seeds to add them.

    \b
    skal compare --dataset digits --strategies margin,badge --seeds 10
    skal compare --dataset photos --models small-cnn,resnet18 --strategies random --out networks
    """  # noqa: D301 (click wants the character)
    with console(ctx, quiet):
        of_grid = {name: given.pop(name) for name in GRID_SETTINGS}
        settings, table = given_settings(given, config_file, ignored=NOT_OF_A_GRID)
        flags = {name: value for name, value in of_grid.items() if value is not None}
        grid = GridConfig(**override(GRID_SETTINGS, table, flags))
        data = settings.pop("dataset", SETTINGS["dataset"].default)
        config = base_config(data, grid, settings)
        if print_config:
            click.echo(_toml(config, grid), nl=False)
            return
        from ..comparisons.folder import check_place
        from ..runs.names import check_names

        out = out or Path("runs") / f"compare-{Path(data).name}"
        check_names(config, grid.strategies, grid.models)
        check_place(out, for_runs=True)
        with importing():
            require_drawing()
            from ..comparisons.compare import RunsFailedError
            from ..comparisons.compare import compare as compare_strategies

        ctx.obj["comparison"] = out
        try:
            done = compare_strategies(data, **grid.as_dict(), **settings, out=out, trackers=track)
        except RunsFailedError as error:
            if error.comparison is not None:  # the other runs are still valid
                _echo(error.comparison.analysis, error.comparison.table(), as_json, quiet)
            raise
        _echo(done.analysis, done.table(), as_json, quiet)
        _echo_folder(out, grid.html, quiet)


def _toml(config: RunConfig, grid: GridConfig) -> str:
    import tomli_w

    decided = {"strategy", *(of for axis, of in AXES.items() if getattr(grid, axis))}
    settings = {name: value for name, value in config.as_dict().items() if name not in decided}
    return tomli_w.dumps({**settings, GRID: grid.as_dict()})


@main.command()
@click.argument("folders", nargs=-1, required=True, type=PATH)
@click.option("--html", is_flag=True, help="Also write report.html.")
@click.option(
    "--out",
    metavar="DIR",
    type=PATH,
    help="Folder to write to; by default FOLDERS if it is one comparison, else report/.",
)
@click.option("--json", "as_json", is_flag=True, help="Print comparison.json.")
@click.option("--quiet", is_flag=True, help="Show only warnings and errors.")
@click.pass_context
def report(
    ctx: click.Context,
    folders: tuple[Path, ...],
    html: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare finished runs with tables, tests and plots.

    FOLDERS are run folders, or folders that contain them.

    \b
    skal report runs
    skal report versus networks --html --out both
    """  # noqa: D301 (click wants the character)
    with console(ctx, quiet):
        from ..comparisons.folder import choose_place
        from ..comparisons.results import read_results

        results = read_results(folders)
        out = choose_place(folders, out)
        with importing():
            require_drawing()
            from ..comparisons.report import text_table, write_report

        analysis = write_report(results, out, html=html)
        _echo(analysis, text_table(analysis), as_json, quiet)
        _echo_folder(out, html, quiet)


def _echo(analysis: Mapping[str, Any], table: str, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(analysis))
    elif not quiet:
        say(table)


def _echo_folder(folder: Path, html: bool, quiet: bool) -> None:
    if not quiet:
        what = "report.html" if html else "curves.png, results.csv, comparison.json"
        say(f"done: {folder} ({what}, ...)", err=True)
