"""The group `skal`: errors, exit codes, and console output of all commands."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

import click

from .. import __version__

EXIT_INTERRUPTED = 130

_log = logging.getLogger("skal")


class Cli(click.Group):
    """A click group that turns errors into one line and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept `--debug` anywhere, for users add it to the end of a command that failed."""
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            args = ["--debug", *(a for a in options if a != "--debug"), *args[len(options) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            options = {option.name for option in error.ctx.command.params} if error.ctx else set()
            if "unexpected extra argument" in error.message and "dataset" in options:
                message = f"{error.message}; to name a folder of images, use --dataset"
                raise click.UsageError(message, error.ctx) from error
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click handles these
        except KeyboardInterrupt:
            click.echo(f"Error: interrupted{_resume_advice(ctx)}", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except Exception as error:  # the outermost handler: any error becomes one line
            if ctx.params.get("debug"):
                traceback.print_exc()
            code = getattr(error, "exit_code", 1)
            advice = _resume_advice(ctx) if code == 1 else ""
            say(f"Error: {_one_line(error)}{advice}", err=True)
            ctx.exit(code)


def say(text: str, *, err: bool = False) -> None:
    """Print text that may contain file names, with control characters escaped."""
    from ..core.text import shown

    click.echo(shown(text, keep="\n\t"), err=err)


def _one_line(error: Exception) -> str:
    from ..core.errors import SkalError, is_out_of_memory

    if isinstance(error, SkalError):
        return str(error)
    if is_out_of_memory(error):
        return "out of memory; reduce --train-batch-size, --image-size or --max-candidates"
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}{error.strerror or error}"
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text} (probably a bug in skal; --debug shows the traceback)"


def _resume_advice(ctx: click.Context) -> str:
    """Return how to resume, if a run had started and did not fail because of its arguments."""
    if advice := (ctx.obj or {}).get("go_on"):
        return f"\n{advice}"
    comparison = (ctx.obj or {}).get("comparison")
    if comparison is not None:
        begun = any((comparison / "cells").glob("*/journal.jsonl"))
        return "\ncompleted rounds are saved; repeat the command to resume" if begun else ""
    folder = (ctx.obj or {}).get("folder")
    if folder is None or (folder / "summary.json").exists():
        return ""
    trust = " --trust" if ctx.obj.get("trust") else ""
    command = f"skal resume {quote(str(folder))}{trust}"
    return f"\ncompleted rounds are saved; to resume: {command}"


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Lowest level of the messages on stderr.",
)
@click.pass_context
def main(ctx: click.Context, debug: bool, log_level: str) -> None:
    """Active learning for folders of images.

    First steps: skal run --dataset digits --strategy badge
    """
    ctx.obj = {"log_level": log_level}
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # so that module:Name can be in the working folder


class ConsoleHandler(logging.Handler):
    """A log handler that writes to stderr without breaking progress bars.

    With `debug` it also shows the tracebacks behind messages.
    """

    def __init__(self, level: str, debug: bool) -> None:
        super().__init__(level)
        self.debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        from ..core.text import shown

        if getattr(record, "result", False):
            return
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        text = shown(f"{prefix}{record.getMessage()}", keep="\n\t")
        tqdm.write(text, file=sys.stderr)
        if self.debug and record.exc_info and record.exc_info[1]:
            traceback.print_exception(record.exc_info[1])
        elif self.debug and (details := getattr(record, "details", "")):
            click.echo(details, err=True)


@contextmanager
def console(ctx: click.Context, quiet: bool = False) -> Iterator[None]:
    """Show the logger `skal` on stderr while a command runs."""
    level = "warning" if quiet else ctx.obj["log_level"]
    with suppress(ValueError):  # not in the main thread, which gets the signals
        # treat SIGTERM, which schedulers send, as Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            # nohup ignores it; send SIGINT, since servers have their own handlers for that
            signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    bars = os.environ.get("TQDM_DISABLE")
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    handler = ConsoleHandler(level.upper(), bool(ctx.find_root().params.get("debug")))
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
