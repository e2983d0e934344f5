"""Generates the pages of the reference: run ``python -m skal.cli.reference``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from ..comparisons.config import GRID_SETTINGS
from ..core.kinds import Setting
from ..core.settings import GROUPS
from ..core.signatures import in_python
from ..runs.config import SETTINGS
from . import main

OF_SETTINGS = """# Settings

Each setting is a flag of `skal run` and `skal compare` (`n_init` is `--n-init`; repeat
`--strategy-param` for each of `strategy_params`), a key of `skal.toml` and of a run's
`config.toml`, and a keyword of `skal.run` and `skal.compare`. The group "comparison" applies to
`skal compare` only; in a file, its settings belong in the table `[compare]`. Flags override the
file, and the file overrides the defaults. skal rejects a setting that has no effect given the
others.

This page is generated from the code by `python -m skal.cli.reference`.
"""

OF_COMMANDS = """# Commands

The output of `skal COMMAND --help`. [Settings](../settings.md) lists the allowed values.
Every command takes `-h` and `--help`. Put `--debug` (show tracebacks) and `--log-level` before the
command.

This page is generated from the code by `python -m skal.cli.reference`.
"""


def settings_page() -> str:
    """Return the page of all settings as Markdown."""
    every = [*GRID_SETTINGS.values(), *SETTINGS.values()]
    parts = [OF_SETTINGS]
    for group in GROUPS:
        rows = [_setting(setting) for setting in every if setting.group == group]
        if rows:
            table = ["| setting | value | default | what it does |", "|---|---|---|---|", *rows]
            parts.append("\n".join([f"## {group.capitalize()}", "", *table, ""]))
    return "\n".join(parts)


def commands_page() -> str:
    """Return the page of all commands as Markdown."""
    context = click.Context(main, info_name="skal")
    return "\n".join([OF_COMMANDS, *_commands(context)])


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "reference/commands.md": commands_page,
}
"""Functions that return the pages, by path in the documentation folder."""


def _setting(setting: Setting) -> str:
    choices = ", ".join(f"`{choice}`" for choice in setting.choices)
    names = " or ".join(f"`skal list {kind}`" for kind in setting.names)
    value = choices or setting.expected + (f", see {names}" if names else "")
    plain = setting.default not in (None, (), {})
    default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
    shown = f"`{str(default).lower() if setting.type == 'bool' else default}`" if plain else ""
    words = [f"{in_python(setting.help)}.", in_python(setting.details), *setting.dependencies()]
    text = " ".join(filter(None, words)).replace("``", "`")
    return _row(f"`{setting.name}`", value, shown, text)


def _commands(context: click.Context) -> Iterator[str]:
    for name in main.list_commands(context):
        command = main.commands[name]
        inside = click.Context(command, info_name=name, parent=context)
        usage = " ".join([inside.command_path, *command.collect_usage_pieces(inside)])
        yield f"## skal {name}\n\n```text\n{usage}\n```\n"
        yield from map(_paragraph, inspect.cleandoc(command.help or "").split("\n\n"))
        records = (parameter.get_help_record(inside) for parameter in command.params)
        shown = [record for record in records if record and record[1]]  # arguments are in the usage
        rows = [_row(f"`{flags}`", _escaped(text)) for flags, text in shown]
        if rows:
            yield "\n".join(["| option | what it does |", "|---|---|", *rows, ""])


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):  # click's mark of preformatted lines
        return f"```sh\n{text[2:].strip()}\n```\n"
    return f"{_escaped(text)}\n"


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    docs = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for place, page in PAGES.items():
        (docs / place).write_text(page())
