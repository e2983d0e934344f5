"""The reference of all settings: ``python -m skal.cli.reference > docs/settings.md``."""

from __future__ import annotations

from ..comparisons.config import GRID_SETTINGS
from ..core.settings import GROUPS, Setting
from ..core.signatures import in_python
from ..runs.config import SETTINGS

HEAD = """# Settings

Each is a flag of `skal run` and `skal compare` (`n_init` is `--n-init`; `--strategy-param` is given
once for each of `strategy_params`), a key of `skal.toml` and of a run's `config.toml`, and a
keyword of `skal.run` and `skal.compare`. Those of the group "comparison" belong to `skal compare`
alone, and stand in the table `[compare]` of a file. Flags win over the file, and the file over the
defaults. To give a setting that changes nothing beside the others is an error.

This page is made of the statements of the settings, by
`python -m skal.cli.reference > docs/settings.md`.
"""


def reference() -> str:
    """Return the page, as Markdown."""
    every = [*GRID_SETTINGS.values(), *SETTINGS.values()]
    parts = [HEAD]
    for group in GROUPS:
        rows = [_row(setting) for setting in every if setting.group == group]
        if rows:
            table = ["| setting | value | default | what it does |", "|---|---|---|---|", *rows]
            parts.append("\n".join([f"## {group.capitalize()}", "", *table, ""]))
    return "\n".join(parts)


def _row(setting: Setting) -> str:
    choices = ", ".join(f"`{choice}`" for choice in setting.choices)
    names = " or ".join(f"`skal list {kind}`" for kind in setting.names)
    value = choices or setting.expected + (f", see {names}" if names else "")
    plain = setting.default not in (None, (), {})
    default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
    shown = f"`{str(default).lower() if setting.type == 'bool' else default}`" if plain else ""
    words = [f"{in_python(setting.help)}.", in_python(setting.details), *setting.dependencies()]
    text = " ".join(filter(None, words)).replace("``", "`")
    cells = (f"`{setting.name}`", value, shown, text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(reference(), end="")
