"""The cache of a folder's decoded pixels, written in shards, so that a stop loses one at most.

When files of a folder change, the pixels of the others are copied from an earlier cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.durable import remove_leftovers, sha256, write_atomic
from ..core.errors import DataError
from ..core.kept import Facts, discard, find, is_partial, kept, partial_of, told_where
from ..core.memory import gib, take_mapped
from ..core.progress import progress
from ..core.text import counted, plural
from .base import Images
from .decoding import CHUNK_BYTES, DECODER_VERSION, UNDECIDED, Decoded, Decoding, decode_many
from .deep import Ranges
from .formats import TIFF, asked_for, installed, is_installed, page_of
from .hashes import Hashes, find_rows, kept_hashes, with_hashes
from .index import ImageFile
from .survey import survey

SHARD_BYTES = 2**26
"""Bytes of pixels that are synced to disk before the progress file records them."""
PIXELS, PROGRESS, STATES, HASHES = "pixels.npy", "progress.json", "states.bin", "hashes.npy"
STATE_BYTES = 16
UNUSED_SECONDS = 7 * 86_400.0
"""Time without use after which a cache of an earlier state of a folder may be removed."""

_log = logging.getLogger("skal")


class Folder(NamedTuple):
    """The pixels of a folder's files that were `read`, the files `skipped` with reasons, and how
    they were decoded.
    """

    pixels: Images
    read: list[ImageFile]
    skipped: list[tuple[str, str]]
    how: Decoding


class _Source(NamedTuple):
    """What is decoded, and `kind`, which caches of other states of the folder share."""

    root: Path
    paths: Sequence[str]
    states: Hashes
    how: Decoding
    kind: str


def decode_all(root: Path, files: list[ImageFile], how: Decoding, cache_dir: Path) -> Folder:
    """Decode all files into one uint8 memmap, shape (n_kept, 3, size, size), or open the cached one
    in `cache_dir`, whose name has a hash of paths, sizes, times and decoding options.

    Unless `how` gives black and white of deep images, they are decided by a survey of some files.
    Interrupted decoding resumes, after a power loss or a full disk at the last complete shard;
    other processes wait. A `DataError` is raised if the memmap cannot be written or the system
    failed to read a file.
    """
    (contents, states), paths = states_of(root, files), [file.path for file in files]
    # 40 characters keep the file names below the limit of file systems
    name = root.resolve().name[:40]
    with told_where("the decoded images", cache_dir):
        how, tiff = _as_surveyed(root, paths, how, cache_dir / f"{name}-{contents}")
        key = _key(contents, how.size, how.geometry, how.ranges, how.pages, tiff)
        kind = _key(root.resolve(), how.size, how.geometry, how.ranges, how.pages, installed())
        source = _Source(root, paths, states, how, kind)
        cache = cache_dir / f"{name}-{how.size}px-{key}"
        facts = _kept_pixels(cache, source)
        if extras := asked_for(reason for _, reason in facts["skipped"]):
            cache = cache.with_name(f"{name}-{how.size}px-{_key(key, extras)}")
            facts = _kept_pixels(cache, source)
        pixels: Images = np.load(cache / PIXELS, mmap_mode="r")
    skipped = [(path, reason) for path, reason in facts["skipped"]]
    bad = {path for path, _ in skipped}
    read = [file for file in files if file.path not in bad] if bad else files
    hashes = cache.with_name(f"{cache.name}.{HASHES}")
    return Folder(with_hashes(pixels, lambda: kept_hashes(pixels, hashes)), read, skipped, how)


def _kept_pixels(cache: Path, source: _Source) -> Facts:
    def make(partial: Path) -> Facts:
        others = list(_others(cache, source))
        earlier = _earlier(others, source)
        # before decoding, which may need their space
        for other, _ in others[1:]:
            is_source = earlier is not None and other == earlier.cache
            if not is_source and time.time() - _last_use(other) > UNUSED_SECONDS:
                discard(other)
                if not is_partial(other):
                    discard(other.with_name(f"{other.name}.{HASHES}"))
        return _decode_into(partial, source, earlier)

    with suppress(OSError):
        os.utime(cache)  # the time of its last use
    return kept(
        cache,
        f"decodes the images of {str(source.root)!r}",
        make,
        can_resume=lambda partial: (partial / PROGRESS).is_file(),
    )


class _Earlier(NamedTuple):
    """An earlier cache of a folder, and the row in it of each of the files, -1 for new ones."""

    cache: Path
    pixels: Images
    rows: NDArray[np.int64]


def _others(cache: Path, source: _Source) -> Iterator[tuple[Path, _Progress]]:
    """Yield the whole and partial caches of other states of a folder, the last used first."""
    prefix, own = escape(cache.name.rpartition("-")[0]), (cache, partial_of(cache))
    places = (f"{prefix}-*/", f".{prefix}-*.partial/")
    others = [path for place in places for path in cache.parent.glob(place) if path not in own]
    for other in sorted(others, key=_last_use, reverse=True):
        done = _Progress.read(other)
        # on Windows the process that writes a partial cache could not rename what another reads
        is_usable = os.name != "nt" if is_partial(other) else find(other) is not None
        if done.kind == source.kind and is_usable:
            yield other, done


def _last_use(cache: Path) -> float:
    try:
        return cache.stat().st_mtime
    except FileNotFoundError:  # removed by another process
        return 0.0


def _earlier(others: list[tuple[Path, _Progress]], source: _Source) -> _Earlier | None:
    """Return the cache that has most of the files, if any has some."""
    best, most = None, 0
    for other, done in others:
        try:
            states = np.frombuffer((other / STATES).read_bytes(), f"S{STATE_BYTES}")
            known = np.delete(states[: done.n_files], done.skipped_at)
            pixels = _pixels_of(other, done, source.how.size)
        except (OSError, ValueError, IndexError):  # removed, or left by a killed process
            continue
        rows = find_rows(known, source.states)
        if (n_known := int((rows >= 0).sum())) > most:
            best, most = _Earlier(other, pixels, rows), n_known
    if best is not None:
        of = counted(len(best.rows), "image")
        _log.info("%d of %s are unchanged and not decoded again", most, of)
    return best


def _pixels_of(other: Path, done: _Progress, size: int) -> Images:
    """Map the decoded pixels of a cache, which may be partial."""
    start, shape = _write_header(BytesIO(), done.n_kept, size), (done.n_kept, 3, size, size)
    return np.memmap(other / PIXELS, np.uint8, "r", start, shape)


def ranges_of(root: Path, files: list[ImageFile], how: Decoding, cache_dir: Path) -> Ranges:
    """Return the black and white of deep images that `decode_all` uses."""
    if how.ranges != UNDECIDED:
        return how.ranges
    place = cache_dir / f"{root.resolve().name[:40]}-{states_of(root, files)[0]}"
    return _as_surveyed(root, [file.path for file in files], how, place, quiet=True)[0].ranges


def _as_surveyed(
    root: Path, paths: Sequence[str], how: Decoding, place: Path, quiet: bool = False
) -> tuple[Decoding, bool]:
    """Set black and white, and log them; also return whether the extra reads the TIFFs.

    The result of the survey is cached in a file whose name begins with `place`.
    """
    extra = is_installed(TIFF.module)
    path = place.with_name(f"{place.name}-{_key(how.pages, installed())}.survey.json")

    def save(partial: Path) -> Facts:
        facts = survey(root, paths, how)
        partial.write_text(json.dumps(facts))
        return facts

    facts = kept(path, f"surveys the images of {str(root)!r}", save)
    notices = list(facts["told"])
    if how.ranges == UNDECIDED:
        how = replace(how, ranges=Ranges.parse(facts["ranges"]))
        notices = [*facts["told_of_ranges"], *notices]
    for line in () if quiet else notices:
        _log.info(line)
    return how, extra and facts["has_tiffs"]


def _key(*facts: object) -> str:
    return sha256(" ".join(map(str, (DECODER_VERSION, *facts))))[:16]


def states_of(root: Path, files: list[ImageFile]) -> tuple[str, Hashes]:
    """Return a hash of the states of all files, and one of each, by its size and time.

    Where files of a folder have the same size and time, as in some archives, their inode and the
    time of any change count, too, so that files that exchange names are noticed.
    """
    start = os.path.join(root.resolve(), "")  # noqa: PTH118 (Path is slow in a million)
    looked = progress(files, desc="looking for changes", unit="file")
    found = np.array([_status(start + file.path) for file in looked], np.int64).reshape(-1, 5)
    both = found[:, 0] * 2**40 + found[:, 1]  # of size and time; wraps around
    _, kinds, counts = np.unique(both, return_inverse=True, return_counts=True)
    found[counts[kinds] == 1, 3:] = 0
    contents, hashes = hashlib.sha256(), bytearray()
    for file, numbers in zip(files, found.tolist(), strict=True):
        text = f"{numbers} {start}{file.path}\n".encode(errors="surrogateescape")
        contents.update(text)
        hashes += hashlib.blake2b(text, digest_size=STATE_BYTES).digest()
    return contents.hexdigest()[:16], np.frombuffer(bytes(hashes), f"S{STATE_BYTES}")


def file_state(path: str) -> str:
    """Return text that changes when a file is written or its read permission changes."""
    size, modified, is_readable, *_ = _status(path)
    return "unreadable" if size < 0 else f"{size} {modified} {bool(is_readable)}"


def _status(path: str) -> tuple[int, int, int, int, int]:
    """Return size, time of writing, whether it can be read, time of any change, and inode."""
    try:
        file, _ = page_of(path)
        status = os.stat(file)  # noqa: PTH116 (Path is slow in a million)
        is_readable = os.access(file, os.R_OK)
    except OSError:
        return -1, 0, 0, 0, 0
    inode = status.st_ino % 2**63  # of some file systems it is larger
    return status.st_size, status.st_mtime_ns, is_readable, status.st_ctime_ns, inode


def _decode_into(folder: Path, source: _Source, earlier: _Earlier | None) -> Facts:
    """Write pixels to a .npy file (not mapped: a full disk would kill the process)."""
    size, paths = source.how.size, source.paths
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    write_atomic(folder / STATES, source.states.tobytes())
    (folder / PIXELS).touch()
    with (folder / PIXELS).open("r+b") as out:
        header, one_image = _write_header(out, len(paths), size), 3 * size * size
        done = _Progress.read(folder)
        if header + done.n_kept * one_image > (folder / PIXELS).stat().st_size:
            done = _Progress()  # the file was truncated
        done.kind = source.kind
        _check_space(folder, (len(paths) - done.n_files) * one_image)
        out.seek(header + done.n_kept * one_image)
        out.truncate()
        with _kept_if_stopped(folder, out, done):
            saved = done.n_kept
            for chunk in _decode_rest(source, done.n_files, earlier):
                out.write(chunk.pixels.data)
                done.add(chunk)
                if (done.n_kept - saved) * one_image >= SHARD_BYTES:
                    done.save(folder, out)
                    saved = done.n_kept
        out.seek(0)
        _write_header(out, done.n_kept, size)
        done.save(folder, out)
    return {"skipped": done.skipped}


@dataclass
class _Progress:
    """The progress of decoding, the skipped files and their positions, and `_Source.kind`."""

    n_files: int = 0
    n_kept: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_at: list[int] = field(default_factory=list)
    kind: str = ""

    @classmethod
    def read(cls, folder: Path) -> _Progress:
        """Return the progress of an interrupted process; none if the file is invalid."""
        try:
            done = cls(**json.loads((folder / PROGRESS).read_text()))
        except (OSError, TypeError, ValueError):
            return cls()
        return done if done.is_sound else cls()

    @property
    def is_sound(self) -> bool:
        """Whether the counts add up, which they do not if `add` was interrupted."""
        n_skipped = len(self.skipped)
        return self.n_files == self.n_kept + n_skipped and len(self.skipped_at) == n_skipped

    def add(self, chunk: Decoded) -> None:
        numbers = enumerate(chunk.paths, start=self.n_files)
        self.skipped_at += [number for number, path in numbers if path in chunk.unread]
        self.n_files += len(chunk.paths)
        self.n_kept += len(chunk.pixels)
        self.skipped.extend(chunk.unread.items())

    def save(self, folder: Path, pixels: BinaryIO) -> None:
        """Sync the pixels to disk, and only then record them."""
        pixels.flush()
        os.fsync(pixels.fileno())
        write_atomic(folder / PROGRESS, json.dumps(asdict(self)))


@contextmanager
def _kept_if_stopped(folder: Path, pixels: BinaryIO, done: _Progress) -> Iterator[None]:
    """Save the progress before an error or Ctrl-C propagates."""
    try:
        yield
    except BaseException as error:
        if done.n_files and done.is_sound:
            with suppress(OSError):  # a full disk: what was saved before remains
                done.save(folder, pixels)
        if isinstance(error, DataError):
            message = f"{error}; decoded images are saved, and the same call resumes"
            raise DataError(message) from error
        raise


def _decode_rest(source: _Source, n_done: int, earlier: _Earlier | None) -> Iterator[Decoded]:
    """Decode the images that an interrupted process left, with a progress bar of all."""
    paths = source.paths
    if n_done:
        of = counted(len(paths), "image")
        _log.info("%d of %s %s already decoded", n_done, of, plural(n_done, "is", "are"))
    with (
        progress(desc="decoding", initial=n_done, total=len(paths)) as bar,
        closing(_copied_or_decoded(source, n_done, earlier)) as chunks,
    ):
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk.paths))


def _copied_or_decoded(
    source: _Source, n_done: int, earlier: _Earlier | None
) -> Generator[Decoded, None, None]:
    """Yield the files in order, unchanged ones copied from the earlier cache, others decoded."""
    root, paths, _, how, _ = source
    if earlier is None:
        yield from decode_many(root, paths[n_done:], how)
        return
    rows, start = earlier.rows, n_done
    new = [paths[number] for number in range(n_done, len(paths)) if rows[number] < 0]
    at_once = max(1, CHUNK_BYTES // (3 * how.size * how.size))
    with closing(decode_many(root, new, how)) as chunks:
        decoded = chain.from_iterable(map(_single, chunks))
        while start < len(paths):
            if rows[start] < 0:
                yield next(decoded)
                start += 1
                continue
            known = rows[start : start + at_once] >= 0
            stop = start + (len(known) if known.all() else int(known.argmin()))
            yield Decoded(paths[start:stop], take_mapped(earlier.pixels, rows[start:stop]), {})
            start = stop


def _single(chunk: Decoded) -> Iterator[Decoded]:
    """Yield the files of a chunk one by one."""
    row = 0
    for path in chunk.paths:
        if path in chunk.unread:
            yield Decoded([path], chunk.pixels[:0], {path: chunk.unread[path]})
        else:
            yield Decoded([path], chunk.pixels[row : row + 1], {})
            row += 1


def _check_space(folder: Path, needed: int) -> None:
    """Warn in advance if the disk will probably become full."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        _log.warning(
            "the decoded images take %s in %s, where %s are free; choose another folder with "
            "--data-dir or $SKAL_DATA_DIR, or a smaller --image-size",
            gib(needed),
            folder.parent,
            gib(free),
        )


def _write_header(out: IO[bytes], n_images: int, size: int) -> int:
    """Write the header of a .npy file; its length does not depend on the number of images."""
    np.lib.format.write_array_header_1_0(  # type: ignore[no-untyped-call]
        out, {"descr": "|u1", "fortran_order": False, "shape": (n_images, 3, size, size)}
    )
    return out.tell()
