from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skal.core.durable import (
    locked,
    name_new,
    new_folder,
    remove_folder,
    remove_leftovers,
    write_atomic,
    write_new,
)
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


def test_what_another_process_may_be_writing_stays(tmp_path: Path) -> None:
    for name, age in ((".a.1.tmp", 7200), (".a.2.tmp", 60), (".b.3.tmp-journal", 7200)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_leftovers(tmp_path, untouched=3600)
    assert names(tmp_path) == [".a.2.tmp"]


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


@pytest.mark.skipif(os.name == "nt", reason="nothing is killed so there")
def test_a_new_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys; from skal.core.durable import write_new\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_new(pathlib.Path(sys.argv[1]), 'labels')"
    )
    path = tmp_path / "labels.csv"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    write_new(path, "labels")
    assert path.read_text() == "labels"


def no_links(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("link", [os.link, no_links])
def test_a_new_file_is_never_put_in_place_of_another(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "there").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("there", "nowhere"):
        with pytest.raises(FileExistsError):
            name_new(tmp_path / "new", tmp_path / name, link=link)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "there", "other")
    assert (tmp_path / "there").read_text() == "mine"
    name_new(tmp_path / "new", tmp_path / "free", link=link)
    assert (tmp_path / "free").read_text() == "new"
    assert set(names(tmp_path)) - {"new"} == {"free", "nowhere", "there"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_folder_is_there_when_it_is_filled_or_not_at_all(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), new_folder(tmp_path / "runs/out") as folder:
        (folder / "half").touch()
        raise error
    assert names(tmp_path / "runs") == []
    with new_folder(tmp_path / "runs/out") as folder:
        (folder / "whole").touch()
    assert names(tmp_path / "runs") == ["out"]
    with pytest.raises(FileExistsError), new_folder(tmp_path / "runs/out"):
        pass
    assert names(tmp_path / "runs/out") == ["whole"]


def test_a_folder_is_known_for_what_it_is_until_all_else_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    (folder / "b").mkdir(parents=True)  # no file: it stops the removal
    for name in ("a", "known", "z"):
        (folder / name).touch()
    with pytest.raises(OSError, match="b"):
        remove_folder(folder, last="known")
    assert (folder / "known").exists()
    (folder / "b").rmdir()
    remove_folder(folder, last="known")
    assert not folder.exists()


def test_what_a_killed_one_left_of_a_new_folder_is_removed_an_hour_later(tmp_path: Path) -> None:
    places = {name: tmp_path / f".out.{name}.tmp" for name in ("a" * 32, "b" * 32, "of somebody")}
    for place in places.values():
        place.mkdir()
        (place / "file").touch()
        os.utime(place / "file", (0, 0))
        os.utime(place, (0, 0))
    os.utime(places["b" * 32] / "file")  # another process, perhaps, writes there
    with new_folder(tmp_path / "out"):
        pass
    assert [place.is_dir() for place in places.values()] == [False, True, True]
