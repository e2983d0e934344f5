"""Settings as options: every field of `RunConfig` is one."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

import click

from .lists import LISTED, registry


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every setting of `RunConfig`."""
    from ..config import SETTINGS

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
                    ", ".join(registry(kind).names()),
                    width=formatter.width,
                    initial_indent=f"  {kind:<19}",
                    subsequent_indent=" " * 21,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
                formatter.write(f"{lines}\n")


def parse_params(pairs: tuple[str, ...]) -> dict[str, Any]:
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


def make_config(given: Mapping[str, Any], config_file: Path | None) -> Any:
    """Make the settings: the flags given win over the file, the file over the defaults."""
    from ..config import RunConfig, read_config

    settings = read_config(config_file) if config_file else {}
    flags = {name: value for name, value in given.items() if value not in (None, ())}
    if flags.get("strategy", settings.get("strategy")) != settings.get("strategy"):
        settings.pop("strategy_params", None)  # they were another strategy's
    if "strategy_params" in flags:
        kept = settings.get("strategy_params", {})
        flags["strategy_params"] = {**kept, **parse_params(flags["strategy_params"])}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in flags and other not in flags:
            settings.pop(other, None)
    return RunConfig(**{**settings, **flags})
