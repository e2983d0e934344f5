"""The command line: it parses, calls, and echoes."""

from __future__ import annotations

import ast
import json
import logging
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import Field
from pathlib import Path
from shlex import quote
from typing import Any

import click

from . import __version__

EXIT_INTERRUPTED = 130
LISTED = ("datasets", "models", "strategies", "stream-strategies")

_log = logging.getLogger("skal")


class Cli(click.Group):
    """Turns errors into one line and an exit code; `--debug` shows tracebacks before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `--debug` wherever it stands, for it is remembered last."""
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            args = ["--debug", *(a for a in options if a != "--debug"), *args[len(options) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do with these
        except KeyboardInterrupt:
            _say_error(f"interrupted{_resume_advice(ctx)}")
            ctx.exit(EXIT_INTERRUPTED)
        except Exception as error:  # the border of the program: whatever it is, one clear line
            if ctx.params.get("debug"):
                traceback.print_exc()
            code = getattr(error, "exit_code", 1)
            _say_error(_one_line(error) + (_resume_advice(ctx) if code == 1 else ""))
            ctx.exit(code)


def _one_line(error: Exception) -> str:
    from .errors import SkalError

    if isinstance(error, SkalError):
        return str(error)
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}{error.strerror or error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; a smaller --train-batch-size or --image-size needs less"
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text} (a defect of skal? --debug shows where)"


def _say_error(message: str) -> None:
    click.echo(f"Error: {message}", err=True)


def _resume_advice(ctx: click.Context) -> str:
    """Say how to go on, if a run had begun and did not fail for what was asked of it."""
    folder = (ctx.obj or {}).get("folder")
    if folder is None or (folder / "summary.json").exists():
        return ""
    return f"\n{folder} holds all whole rounds; go on with: skal resume {quote(str(folder))}"


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is shown on stderr.",
)
@click.pass_context
def main(ctx: click.Context, debug: bool, log_level: str) -> None:
    """Active learning for folders of images.

    First steps: skal run --dataset digits --strategy badge
    """
    ctx.obj = {"log_level": log_level}


class ConsoleHandler(logging.Handler):
    """Writes to stderr, around progress bars; results are left to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        if getattr(record, "result", False):
            return
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(f"{prefix}{record.getMessage()}", file=sys.stderr)


@contextmanager
def _console(ctx: click.Context, quiet: bool = False) -> Iterator[None]:
    """Show the logger `skal` on stderr while a command runs."""
    level = "warning" if quiet else ctx.obj["log_level"]
    with suppress(ValueError):  # not in the main thread: then nobody sends signals here
        # what schedulers send: an interruption, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    bars = os.environ.get("TQDM_DISABLE")
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    handler = ConsoleHandler(level.upper())
    before = _log.level
    _log.addHandler(handler)
    _log.setLevel(level.upper())
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(before)
        if quiet and bars is None:
            del os.environ["TQDM_DISABLE"]


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every setting of `RunConfig`."""
    from .config import SETTINGS

    for setting in reversed(SETTINGS.values()):
        command = _option(setting)(command)
    return command


def _count(text: str) -> int | str:
    """Take a count as a number; shares, and what is neither, are left to `RunConfig`."""
    return int(text) if text.isdecimal() else text


_TYPES: Mapping[str, Any] = {
    "int": int,
    "int | None": int,
    "float | None": float,
    "Count": _count,
    "Share": str,
}


def _option(setting: Field[Any]) -> Callable[[Any], Any]:
    facts = dict(setting.metadata)
    flag = "--" + facts.get("option", setting.name).replace("_", "-")
    if setting.type == "bool":
        # default None, so that a config file's value can be told from no flag
        flag = f"{flag}/--no-{flag[2:]}"
        return click.option(flag, setting.name, default=None, help=f"{facts['help']}.")
    if "bare" in facts:  # may stand without a value
        facts["flag_value"] = {"is_flag": False, "flag_value": facts["bare"]}
    default = setting.default
    shown = "" if default in (None, "") or "strategy_params" in setting.name else f" [{default}]"
    return click.option(
        flag,
        setting.name,
        metavar=facts.get("metavar") or "|".join(facts["choices"]),
        type=_TYPES.get(str(setting.type), str),
        multiple="option" in facts,
        default=None,
        help=f"{facts['help']}.{shown}",
        **facts.get("flag_value", {}),
    )


class RunCommand(click.Command):
    """Adds the registered names to the help, outside packages' included."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names behind the options."""
        with formatter.section("Names"):
            for kind in LISTED:
                # by hand, for click breaks lines at the hyphens of names
                lines = textwrap.fill(
                    ", ".join(_registry(kind).names()),
                    width=formatter.width,
                    initial_indent=f"  {kind:<19}",
                    subsequent_indent=" " * 21,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
                formatter.write(f"{lines}\n")


def _registry(kind: str) -> Any:
    from .datasets import DATASETS
    from .models import MODELS
    from .strategies import STRATEGIES
    from .strategies.streams import STREAM_STRATEGIES

    return {
        "datasets": DATASETS,
        "models": MODELS,
        "strategies": STRATEGIES,
        "stream-strategies": STREAM_STRATEGIES,
    }[kind]


def _parse_params(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Parse ``K=V``; a value that is a Python literal is taken as that, else as text."""
    params = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(
                f"{pair!r}; expected NAME=VALUE", param_hint="--strategy-param"
            )
        try:
            params[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            params[name] = text
    return params


def _config(given: Mapping[str, Any], config_file: Path | None) -> Any:
    """Make the settings: the flags given win over the file, the file over the defaults."""
    from .config import RunConfig, read_config

    settings = read_config(config_file) if config_file else {}
    flags = {name: value for name, value in given.items() if value not in (None, ())}
    if flags.get("strategy", settings.get("strategy")) != settings.get("strategy"):
        settings.pop("strategy_params", None)  # they were another strategy's
    if "strategy_params" in flags:
        kept = settings.get("strategy_params", {})
        flags["strategy_params"] = {**kept, **_parse_params(flags["strategy_params"])}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in flags and other not in flags:
            settings.pop(other, None)
    return RunConfig(**{**settings, **flags})


@main.command(cls=RunCommand, name="run")
@_run_options
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="The run folder.")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Settings from a TOML file; flags win.",
)
@click.option("--print-config", is_flag=True, help="Print the settings as TOML and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show warnings and errors alone.")
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    out: Path | None,
    config_file: Path | None,
    print_config: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Simulate labelling: train, query, label, and again; keep all of it in a folder."""
    config = _config(given, config_file)
    if print_config:
        click.echo(config.to_toml(), nl=False)
        return
    with _console(ctx, quiet):
        from .experiment import run

        settings = {"strategy_params": {}, **config.as_dict()}
        data = settings.pop("dataset")
        result = run(data, **settings, out=out or True, trackers=[_progress(ctx)])
        _echo_result(result, as_json, quiet)


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show warnings and errors alone.")
@click.pass_context
def resume(ctx: click.Context, run_dir: Path, as_json: bool, quiet: bool) -> None:
    """Go on with a run that was stopped, at its last whole round."""
    with _console(ctx, quiet):
        from .experiment import resume

        result = resume(run_dir, trackers=[_progress(ctx)])
        _echo_result(result, as_json, quiet)


def _progress(ctx: click.Context) -> Any:
    """Return a tracker that shows a bar of rounds and remembers the run's folder."""
    from tqdm import tqdm

    from .trackers import Tracker

    class Progress(Tracker):
        def on_start(self, config: Any, folder: Path | None) -> None:
            ctx.obj["folder"] = folder
            _log.info("%s on %s; writing to %s", config.strategy, config.dataset, folder)
            self.bar = tqdm(total=config.n_rounds + 1, unit="round", disable=None, leave=False)

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
        click.echo(result.table())
    _log.info("done: %s (learning_curve.png, rounds.csv, queries.csv, ...)", result.folder)


@main.command(name="list")
@click.argument("kind", type=click.Choice(LISTED))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
@click.pass_context
def list_command(ctx: click.Context, kind: str, as_json: bool) -> None:
    """List what can be named."""
    with _console(ctx):
        rows = [{"name": entry.name, **entry.facts} for entry in _registry(kind)]
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    columns = [
        c for c in ("name", "needs", "summary", "cost", "paper") if any(c in r for r in rows)
    ]
    _echo_table(columns, [[str(row.get(column, "")) for column in columns] for row in rows])


def _echo_table(columns: list[str], rows: list[list[str]]) -> None:
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

    with _console(ctx):
        checks = examine(data_dir)
    for check in checks:
        click.echo(f"{'ok' if check.fine else 'PROBLEM':<8} {check.name}: {check.found}")
    if not all(check.fine for check in checks):
        ctx.exit(1)
