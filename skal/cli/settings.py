"""Settings as options: every field of `RunConfig` is one."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .lists import LISTED, registry

if TYPE_CHECKING:
    from ..core.settings import RunConfig

_log = logging.getLogger("skal")

CONFIG_FILE = Path("skal.toml")
"""Read from the working folder when it is there and no other file is named."""


def options(settings: Iterable[Field[Any]]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command an option for each of some settings."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(list(settings)):
            command = _option(setting)(command)
        return command

    return decorate


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of files and of what is printed."""
    for option in (
        click.option("--quiet", is_flag=True, help="Show warnings and errors alone."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        click.option("--print-config", is_flag=True, help="Print the settings as TOML and end."),
        click.option(
            "--config",
            "config_file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help=f"Settings from a TOML file, instead of {CONFIG_FILE}; flags win.",
        ),
        click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="The folder."),
    ):
        command = option(command)
    return command


def track_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--track``: a tuple of names, each once."""
    return click.option(
        "--track",
        metavar="NAME",
        multiple=True,
        callback=lambda _ctx, _option, names: tuple(dict.fromkeys(names)),
        help="Log to wandb, mlflow or tensorboard; may be repeated.",
    )(command)


def _count(text: str) -> int | str:
    """Take a count as a number; shares, and what is neither, are left to `RunConfig`."""
    return int(text) if text.isdecimal() else text


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_TYPES: Mapping[str, Any] = {
    "int": int,
    "int | None": int,
    "float": float,
    "float | None": float,
    "Count": _count,
    "Share": str,
    "Sequence[str]": _listed,
    "Sequence[Share]": _listed,
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
    text = ",".join(default) if isinstance(default, tuple) else default
    shown = "" if text in (None, "", MISSING) else f" [{text}]"
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
                    ", ".join(entry.name for entry in registry(kind).listed()),
                    width=formatter.width,
                    initial_indent=f"  {kind:<19}",
                    subsequent_indent=" " * 21,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
                formatter.write(f"{lines}\n")


def make_config(
    given: Mapping[str, Any], config_file: Path | None, *, ignored: Iterable[str] = ()
) -> tuple[RunConfig, dict[str, Any]]:
    """Make the settings: the flags given win over the file, the file over the defaults.

    Parameters
    ----------
    given : mapping
        Flags by setting; None where one was not given.
    config_file : Path, optional
        A settings file.
    ignored : iterable of str
        Settings that the file may have, but that play no part.

    Returns
    -------
    config : RunConfig
    grid : dict
        The file's table for comparisons.
    """
    from ..core.settings import GRID, RunConfig, parse_params, read_config

    if config_file is None and CONFIG_FILE.is_file():
        config_file = CONFIG_FILE
        _log.info("settings from %s in this folder", CONFIG_FILE)
    settings = read_config(config_file) if config_file else {}
    grid = settings.pop(GRID, {})
    for name in ignored:
        settings.pop(name, None)
    flags = {name: value for name, value in given.items() if value not in (None, ())}
    if flags.get("strategy", settings.get("strategy")) != settings.get("strategy"):
        settings.pop("strategy_params", None)  # they were another strategy's
    if "strategy_params" in flags:
        kept = settings.get("strategy_params", {})
        flags["strategy_params"] = {**kept, **parse_params(flags["strategy_params"])}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in flags and other not in flags:
            settings.pop(other, None)
    return RunConfig(**{**settings, **flags}), grid
