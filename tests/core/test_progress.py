"""Progress bars, and where they do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

import skal
from skal.core.progress import hidden


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), ("", None), ("0", None), ("1", True)]
)
def test_the_variable_hides_bars_and_else_the_terminal_decides(
    value: str | None, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if value is not None:
        monkeypatch.setenv("TQDM_DISABLE", value)
    assert hidden() is expected


def test_every_bar_asks() -> None:
    for path in Path(skal.__file__).parent.rglob("*.py"):
        source = path.read_text()
        if "tqdm(" in source.replace("tqdm.tqdm(", "tqdm("):
            assert "hidden()" in source, path.name
            assert "disable=None" not in source, path.name
