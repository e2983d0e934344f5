"""What is computed once: by one process, whole or not at all, and made again when it is damaged."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skal.core.errors import DataError
from skal.core.kept import BLOCK, CACHE_TAG, checksum, find, forget, gather, kept, put, told_where

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def flip_by_itself(path: Path) -> None:
    """Change a byte as a failing disk would: without a sign of it."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class Maker:
    """Makes a file, or a folder of two, and counts how often."""

    def __init__(self, folder: bool, size: int = 1000) -> None:
        self.folder, self.size, self.n = folder, size, 0

    def __call__(self, path: Path) -> dict[str, int]:
        self.n += 1
        content = bytes(range(200)) * (self.size // 200)
        if self.folder:
            path.mkdir()
            (path / "notes.txt").write_text("two")
        (path / "data.bin" if self.folder else path).write_bytes(content)
        return {"n": self.n}


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def make(request: pytest.FixtureRequest) -> Maker:
    return Maker(request.param)


def data_of(path: Path) -> Path:
    return path / "data.bin" if path.is_dir() else path


def test_it_is_made_once_and_its_facts_are_kept(tmp_path: Path, make: Maker) -> None:
    path = tmp_path / "cache/result"
    assert kept(path, "counts", make) == kept(path, "counts", make) == find(path) == {"n": 1}
    assert (tmp_path / "cache" / CACHE_TAG).read_text().startswith("Signature: 8a477f597d28d172")
    names = {name.name for name in path.parent.iterdir()}
    assert names == {"result", ".result.seal", ".result.lock", CACHE_TAG}
    forget(path)
    assert not path.exists() and find(path) is None


@pytest.mark.parametrize("damage", [cut, flip, flip_by_itself, os.remove])
def test_what_is_damaged_is_made_again_with_a_notice(
    tmp_path: Path, make: Maker, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "result"
    kept(path, "counts", make)
    whole = data_of(path).read_bytes()
    damage(data_of(path))
    assert find(path) is None
    assert kept(path, "counts", make) == find(path) == {"n": 2}
    assert data_of(path).read_bytes() == whole
    assert (f"{path} is damaged and is made again" in caplog.text) == (
        make.folder or damage is not os.remove
    )


@pytest.mark.parametrize("content", [None, "", "[]", '{"files": {"": [1]}, "facts": {}}'])
def test_without_a_sound_seal_it_is_made_again(
    tmp_path: Path, make: Maker, content: str | None
) -> None:
    path = tmp_path / "result"
    kept(path, "counts", make)
    seal = tmp_path / ".result.seal"
    seal.unlink() if content is None else seal.write_text(content)
    assert kept(path, "counts", make) == {"n": 2}


def test_a_copy_with_new_times_is_sound_and_read_in_full_but_once(
    tmp_path: Path, make: Maker
) -> None:
    path = tmp_path / "result"
    kept(path, "counts", make)
    os.utime(data_of(path), (1, 1))
    sealed = (tmp_path / ".result.seal").read_text()
    assert kept(path, "counts", make) == {"n": 1}
    again = (tmp_path / ".result.seal").read_text()
    assert again != sealed
    assert kept(path, "counts", make) == {"n": 1}
    assert (tmp_path / ".result.seal").read_text() == again


def test_a_large_file_is_found_by_a_few_of_its_blocks(tmp_path: Path) -> None:
    path, make = tmp_path / "result", Maker(False, 40 * BLOCK)
    kept(path, "counts", make)
    before = path.stat()
    for where, found in ((BLOCK + 5, {"n": 1}), (-1, None)):
        with path.open("r+b") as file:
            file.seek(where, 0 if where > 0 else 2)
            file.write(b"\xff")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert find(path) == found


def test_what_a_failed_or_killed_maker_left_is_removed(tmp_path: Path, make: Maker) -> None:
    path, partial = tmp_path / "result", tmp_path / ".result.partial"

    def fail(temporary: Path) -> None:
        make(temporary)
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(DataError, match=r"cannot write the sums to .*No space left.*--data-dir"),
        told_where("the sums", tmp_path),
    ):
        kept(path, "counts", fail)
    assert not path.exists() and not partial.exists()
    make(partial)
    assert kept(path, "counts", make) == {"n": 3}
    assert not partial.exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("9 asked, 5 written")]
)
def test_a_write_that_fails_is_told_with_the_name_of_what_is_made(
    tmp_path: Path, error: OSError
) -> None:
    text = error.strerror or str(error)

    def make(partial: Path) -> dict[str, int]:
        raise error  # as of a write, which names no file

    path = tmp_path / "result"
    with pytest.raises(OSError, match=text) as told:
        kept(path, "makes", make)
    assert (told.value.filename, told.value.strerror) == (str(path), text)


def test_what_can_be_resumed_stays_and_is_handed_over(tmp_path: Path) -> None:
    path, seen = tmp_path / "result", []

    def append(temporary: Path) -> None:
        seen.append(temporary.read_text() if temporary.exists() else None)
        with temporary.open("a") as file:
            file.write("x")
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(path, "counts", append, can_resume=Path.is_file)
    kept(path, "counts", append, can_resume=Path.is_file)
    assert seen == [None, "x"] and path.read_text() == "xx"


def test_a_folder_may_take_the_place_of_another(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / "new").mkdir()
        (tmp_path / "new/n.txt").write_text(str(n))
        put(tmp_path / "new", tmp_path / "result", {"n": n})
    assert find(tmp_path / "result") == {"n": 2}
    assert (tmp_path / "result/n.txt").read_text() == "2"


SLOW = """
import logging, sys, time
from pathlib import Path
from skal.core.kept import kept
logging.basicConfig(level="INFO", format="%(message)s")
path = Path(sys.argv[1])
def make(temporary):
    path.with_name("begun").touch()
    while not path.with_name("go").exists():
        time.sleep(0.01)
    with path.with_name("made").open("a") as file:
        file.write("x")
    temporary.write_text("done")
kept(path, "counts", make)
"""


def test_one_process_makes_it_and_the_others_wait_with_a_notice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path / "result")]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert second.stderr.readline() == "another process counts: waiting for it\n"
    (tmp_path / "go").touch()
    assert [process.wait(timeout=60) for process in (first, second)] == [0, 0]
    for process in (first, second):
        process.communicate()
    assert (tmp_path / "made").read_text() == "x"


def test_rows_are_brought_together_in_memory_or_in_a_file_without_a_name(tmp_path: Path) -> None:
    parts = [np.arange(6, dtype=np.uint8).reshape(2, 3), np.full((1, 3), 9, np.uint8)]
    small = gather(parts, (3, 3), np.dtype(np.uint8), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    large = gather(parts, (3, 3), np.dtype(np.uint8), tmp_path / "cache", most=0)
    assert isinstance(large, np.memmap) and not large.flags.writeable
    assert np.array_equal(small, large) and np.array_equal(small, np.concatenate(parts))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [CACHE_TAG]


def test_a_checksum_of_parts_in_turn_is_that_of_the_whole(tmp_path: Path) -> None:
    path, content = tmp_path / "large", bytes(range(256)) * 2**17
    path.write_bytes(content)
    first = checksum(path, 0, 7)
    assert checksum(path, 7, crc=first) == checksum(path) == zlib.crc32(content)
    assert checksum(path, 5, 5) == 0
