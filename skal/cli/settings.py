"""Command-line options made from settings."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..core.kinds import KINDS, Setting
from ..core.registry import parse_params
from ..core.settings import override
from ..runs.config import SETTINGS
from .lists import KINDS as NAMED
from .lists import complete, registry

_log = logging.getLogger("skal")

PATH = click.Path(path_type=Path)
CONFIG_FILE = Path("skal.toml")
"""Read from the working folder if it exists and no other file is given."""


LAST = "output"
"""The last group of the help, for options without another."""


class Option(click.Option):
    """An option in a group of the help."""

    def __init__(self, *args: Any, group: str = LAST, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def options(settings: Iterable[Setting]) -> Callable[[Any], Any]:
    """Return a decorator that adds an option for each setting to a command."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(list(settings)):
            command = _option(setting)(command)
        return command

    return decorate


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for files and output to a command."""
    file = "Read settings from a TOML file instead of skal.toml; flags win."
    folder = "Folder to write to; by default a new one under runs/."
    for option in (
        _output("--quiet", is_flag=True, help="Show only warnings and errors."),
        _output("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        _output("--print-config", is_flag=True, help="Print the settings as TOML and exit."),
        _output("--config", "config_file", metavar="FILE", type=PATH, help=file),
        _output("--out", metavar="DIR", type=PATH, help=folder),
    ):
        command = option(command)
    return command


def track_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--track`` to a command, whose value is a tuple of unique names."""
    return _output(
        "--track",
        metavar="NAME",
        multiple=True,
        shell_complete=complete("trackers"),
        callback=lambda _ctx, _option, names: tuple(dict.fromkeys(names)),
        help="Log to wandb, mlflow, tensorboard or module:Name; may be repeated.",
    )(command)


def trust_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--trust`` to a command."""
    text = "Run third-party code that the folder names."
    return _output("--trust", is_flag=True, help=text)(command)


_output = partial(click.option, cls=Option)


def _option(setting: Setting) -> Callable[[Any], Any]:
    # default None, to distinguish a flag that is not given from one with the default value
    option = partial(_output, group=setting.group, help=_described(setting), default=None)
    if setting.type == "bool":
        return option(f"{setting.flag}/--no-{setting.flag[2:]}", setting.name)
    bare: dict[str, Any] = {"is_flag": False, "flag_value": setting.bare} if setting.bare else {}
    return option(
        setting.flag,
        setting.name,
        metavar=setting.metavar or "|".join(setting.choices),
        type=KINDS[setting.type].parse,
        multiple=bool(setting.option),
        shell_complete=complete(*setting.names, folders="datasets" in setting.names),
        **bare,
    )


def _described(setting: Setting) -> str:
    """Return the help of a setting, with its default."""
    bare = f"; {setting.flag} alone means {setting.bare}" if setting.bare else ""
    default = setting.default
    text = ",".join(default) if isinstance(default, tuple) else default
    none = text in (None, "", {}) or text is False
    return f"{setting.help}{bare}.{'' if none else f' [{text}]'}"


class GroupedCommand(click.Command):
    """A command whose help shows the options in groups, in order of appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", LAST), []).append(record)
        for name, records in sorted(groups.items(), key=lambda group: group[0] == LAST):
            only_help = name == LAST and len(records) == 1
            with formatter.section("Help" if only_help else name.capitalize()):
                formatter.write_dl(records)


class RunCommand(GroupedCommand):
    """A command whose help lists all registered names below its options."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Names"):
            for kind in NAMED:
                # formatted by hand, since click breaks lines at the hyphens of names
                lines = textwrap.fill(
                    ", ".join(entry.name for entry in registry(kind).listed()),
                    width=formatter.width,
                    initial_indent=f"  {kind:<19}",
                    subsequent_indent=" " * 21,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
                formatter.write(f"{lines}\n")


def given_settings(
    flags: Mapping[str, Any], config_file: Path | None, *, ignored: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the given settings, and the settings file's table for comparisons.

    Flags (None if not given) override the file, and whatever in it contradicts them. The settings
    `ignored` have no effect, but may be in the file.
    """
    from ..comparisons.config import GRID, read_config

    if config_file is None and CONFIG_FILE.is_file():
        config_file = CONFIG_FILE
        _log.info("reading settings from %s in the working folder", CONFIG_FILE)
    settings = read_config(config_file) if config_file else {}
    grid = settings.pop(GRID, {})
    for name in ignored:
        settings.pop(name, None)
    flags = {name: value for name, value in flags.items() if value not in (None, ())}
    if flags.get("strategy", settings.get("strategy")) != settings.get("strategy"):
        settings.pop("strategy_params", None)  # they belong to another strategy
    if "strategy_params" in flags:
        params = parse_params(flags["strategy_params"], "strategy-param")
        flags["strategy_params"] = {**settings.get("strategy_params", {}), **params}
    return override(SETTINGS, settings, flags), grid
