"""The generated pages say what settings and commands say."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from skal.cli import main
from skal.cli.reference import PAGES, commands_page, settings_page
from skal.comparisons.config import GRID_SETTINGS
from skal.runs.config import SETTINGS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("place", PAGES)
def test_a_generated_page_is_up_to_date(place: str) -> None:
    command = "python -m skal.cli.reference"
    assert (DOCS / place).read_text() == PAGES[place](), f"make it again: {command}"


def test_every_setting_has_a_row_with_what_it_depends_on() -> None:
    rows = {line.split("`")[1]: line for line in settings_page().splitlines() if line[:3] == "| `"}
    assert rows.keys() == SETTINGS.keys() | GRID_SETTINGS.keys()
    assert "Only has an effect with `freeze`." in rows["head"]
    assert "Has no effect with `stream`." in rows["explore"]
    assert "Cannot be combined with `epochs`." in rows["steps"]
    assert "Cannot be combined with `steps`." in rows["epochs"]
    assert "a whole number from 8 to 4096" in rows["image_size"]


def test_every_command_has_a_section_with_its_options_and_two_examples() -> None:
    parts = commands_page().split("\n## skal ")[1:]
    assert [part.partition("\n")[0] for part in parts] == main.list_commands(click.Context(main))
    for part in parts:
        name = part.partition("\n")[0]
        examples = part.partition("```sh\n")[2].partition("```")[0].splitlines()
        assert len([line for line in examples if line.startswith(f"skal {name}")]) >= 2, name
        for parameter in main.commands[name].params:
            assert not isinstance(parameter, click.Option) or parameter.opts[-1] in part
