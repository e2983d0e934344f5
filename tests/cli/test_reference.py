"""The page of settings says what the statements say."""

from __future__ import annotations

from pathlib import Path

from skal.cli.reference import reference
from skal.comparisons.config import GRID_SETTINGS
from skal.runs.config import SETTINGS

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def test_the_page_of_settings_is_up_to_date() -> None:
    command = "python -m skal.cli.reference > docs/settings.md"
    assert PAGE.read_text() == reference(), f"make it again: {command}"


def test_every_setting_has_a_row_with_what_it_depends_on() -> None:
    rows = {line.split("`")[1]: line for line in reference().splitlines() if line[:3] == "| `"}
    assert rows.keys() == SETTINGS.keys() | GRID_SETTINGS.keys()
    assert "Acts only with `freeze`." in rows["head"]
    assert "Changes nothing with `stream`." in rows["explore"]
    assert "Not together with `epochs`." in rows["steps"]
    assert "Not together with `steps`." in rows["epochs"]
    assert "a whole number from 8 to 4096" in rows["image_size"]
