"""Progress bars, and where they do not show."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import skal
from skal.core.progress import hidden, progress


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


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_bar_whose_making_was_broken_off_goes_without_a_word(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", value)
    kind = type(progress(total=4))
    bar = kind.__new__(kind)
    bar.disable = False  # as Ctrl-C leaves it
    del bar  # what it raises is a warning, and an error in tests
    gc.collect()


FORKED = """
import threading
from tqdm import tqdm
from skal.core.progress import progress
progress(total=1).close()
own = threading.RLock()
tqdm.set_lock(own)
bar = progress(total=1)
assert bar.get_lock() is own
"""


@pytest.mark.parametrize("value", ["0", "1"])
def test_who_gives_tqdm_a_lock_of_its_own_gives_it_to_all_bars(value: str) -> None:
    """As a fork does, since who is killed may hold that which it shares with its parent."""
    code = [sys.executable, "-c", FORKED]
    done = subprocess.run(code, env={**os.environ, "TQDM_DISABLE": value}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_without_a_terminal_lines_of_the_log_say_how_far_it_is(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "skal")
    with progress(total=4, desc="decoding", every=0) as bar:
        for _ in range(2):
            bar.update(2)
    lines = [record.message for record in caplog.records]
    assert lines and all(line.startswith("decoding: ") for line in lines)
    assert "of 4 images" in lines[-1]
    assert not capfd.readouterr().err


def test_lines_of_work_within_work_and_without_an_end_are_plain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "skal")
    with (
        progress(desc="listing", unit="file", every=0) as outer,
        progress(total=2, desc="decoding", every=0) as inner,
    ):
        for _ in range(2):
            outer.update()
            inner.update()
    lines = [record.message for record in caplog.records]
    assert "listing: 2 files so far" in lines
    assert any(line.startswith("decoding: 2 of 2 images") for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_what_is_quickly_done_says_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "skal")
    with progress(total=4, desc="decoding") as bar:
        bar.update(4)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress(total=4, desc="decoding", every=0) as bar:
        bar.update(4)
    assert not caplog.records
