"""How much memory there is to take."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 64
KEPT_BYTES = 2**30
"""Freed memory that a process holds on to, to allocate it again."""
LARGEST_KEPT = 2**25
"""What is larger goes back to the system at once: the most that glibc lets one choose."""
PARTS, MOST = 64, 56
"""Of a budget, and what one may take."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    # of cgroups version 2, then 1: what may be used, what is, and what of that can be dropped
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def available_memory(
    cgroup: Path = _CGROUP, *, device: str = "cpu", machine: int | None = None
) -> int:
    """Return how many bytes can be allocated before the machine, or its container, is out of them;
    of a CUDA device's memory and the machine's the lesser counts.
    """
    if machine is None:
        import psutil  # whose import takes a tenth of numpy's time

        machine = int(psutil.virtual_memory().available)
    available = machine
    for limit, usage, stat in _LIMITS:
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
            facts = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
            # pages of files that were read count as used, but make way
            available = min(available, most - used + int(facts.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue  # no such limit ("max" is none)
    if device.startswith("cuda"):
        import torch  # not for those who only ask what the machine has

        free, _ = torch.cuda.mem_get_info(device)
        # and what torch keeps in reserve, from which it allocates first
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        available = min(available, int(free + reserve))
    return max(available, 0)


class Budget:
    """Bytes that threads share, or processes, by locks of the `context` that starts them: each
    takes what it is about to allocate, and waits until it is there. Nobody takes more than `MOST`
    of the `PARTS`, however much it needs: beside it there is room for what is small. What is less
    than a part is not counted.
    """

    def __init__(self, n_bytes: int, context: Any = threading) -> None:
        self._a_part = n_bytes // PARTS
        self._turn, self._parts = context.Lock(), context.Semaphore(PARTS)

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Take bytes for the time of the block."""
        wanted, held = min(n_bytes // self._a_part, MOST), 0
        try:
            if wanted:
                with self._turn:  # two that each have half of what they want would wait for ever
                    while held < wanted:
                        self._parts.acquire()
                        held += 1
            yield
        finally:
            for _ in range(held):
                self._parts.release()


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory, which spares a CPU up to a third of its time clearing pages for
    feature maps; nothing if the environment sets ``MALLOC_...`` or ``GLIBC_TUNABLES``.
    """
    if sys.platform != "linux" or any(
        name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ
    ):
        return
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(_TRIM_THRESHOLD, KEPT_BYTES)
        choose(_MMAP_THRESHOLD, LARGEST_KEPT)


def let_go_of_pages(array: NDArray[Any]) -> None:
    """Release the process's pages of a read-only memmap, or a view of one, that it has read."""
    mapping = _mapping_of(array)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def as_slice(rows: NDArray[np.int64]) -> slice | None:
    """Return the slice that rows are which lie together, in their order; None if they do not."""
    start = int(rows[0]) if len(rows) else 0
    stop = start + len(rows)
    return slice(start, stop) if np.array_equal(rows, np.arange(start, stop)) else None


def take_mapped(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of ``array[rows]``, letting go of the pages that a memmap read for it."""
    if _mapping_of(array) is None:
        return array[rows]
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        taken[part] = array[rows[part]]
        let_go_of_pages(array)
    return taken


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the read-only mapping behind an array, if the system can take its pages back."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    with memoryview(owner) as view:
        return owner if view.readonly else None  # else changes would be lost


def gib(n_bytes: float) -> str:
    """Return bytes as text, such as "3.2 GiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 2**10:.0f} KiB"


@contextmanager
def without_collector() -> Iterator[None]:
    """Leave the garbage collector off, which would look through millions of objects that stay again
    and again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
