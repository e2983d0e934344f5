from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skal.core.durable import locked, remove_leftovers, write_atomic
from skal.core.errors import RunFolderError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "äh\n")
    assert path.read_bytes() == "äh\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["file.txt"]


def test_names_that_are_no_utf8_are_written_as_they_were(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "caf\udce9")
    assert (tmp_path / "file").read_bytes() == b"caf\xe9"


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_names_the_file_and_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if function == "fsync" else Path, function, full)
        with pytest.raises(OSError, match="No space") as caught:
            write_atomic(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_an_interruption_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file.txt", "new")
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".queries.csv.123.tmp", "notes.tmp", ".hidden", "queries.csv"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "notes.tmp", "queries.csv"]


def test_a_lock_keeps_other_processes_out_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    code = (
        "import sys, pathlib; from skal.core.durable import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(RunFolderError, match="another process"), locked(path):
            pass
        other.kill()  # even so the lock is gone
    with locked(path):
        assert path.exists()
