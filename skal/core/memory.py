"""Available memory, budgets that threads share, and releasing of memory."""

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
"""Bytes of freed memory that a process keeps for its next allocations."""
LARGEST_KEPT = 2**25
"""Larger blocks go back to the system at once; this is the largest size that glibc allows."""
PARTS, MOST = 64, 56
"""Parts of a budget, and the most parts that one caller may take."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    # of cgroups v2, then v1: the limit, the usage, and how much of that can be dropped
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def available_memory(
    cgroup: Path = _CGROUP, *, device: str = "cpu", machine: int | None = None
) -> int:
    """Return the bytes that can be allocated before the machine or its container runs out; for a
    CUDA device the lesser of its own free memory and the machine's.
    """
    if machine is None:
        import psutil  # imported here: its import takes a tenth of numpy's time

        machine = int(psutil.virtual_memory().available)
    available = machine
    for limit, usage, stat in _LIMITS:
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
            facts = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
            # cached file pages count as used, but are freed on demand
            available = min(available, most - used + int(facts.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue  # no limit ("max")
    if device.startswith("cuda"):
        import torch  # imported here: on a CPU it is not needed

        free, _ = torch.cuda.mem_get_info(device)
        # torch allocates from its own reserve first
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        available = min(available, int(free + reserve))
    return max(available, 0)


class Budget:
    """Bytes that threads, or processes (by the locks of their `context`), share.

    Each caller takes what it is about to allocate, and waits until that is free. No caller takes
    more than `MOST` of the `PARTS`, however much it needs, so that small ones can still run.
    Amounts of less than a part are not counted.
    """

    def __init__(self, n_bytes: int, context: Any = threading) -> None:
        self._a_part = n_bytes // PARTS
        self._turn, self._parts = context.Lock(), context.Semaphore(PARTS)

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Take bytes for the duration of the block."""
        wanted, held = min(n_bytes // self._a_part, MOST), 0
        try:
            if wanted:
                with self._turn:  # two callers that each hold half of what they need would deadlock
                    while held < wanted:
                        self._parts.acquire()
                        held += 1
            yield
        finally:
            for _ in range(held):
                self._parts.release()


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory: clearing new pages for feature maps costs a CPU up to a third.
    The user's own ``MALLOC_...`` or ``GLIBC_TUNABLES`` take precedence.
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
    """Release the pages that the process has read of a read-only memmap, or of a view of one."""
    mapping = _mapping_of(array)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def as_slice(rows: NDArray[np.int64]) -> slice | None:
    """Return the slice that consecutive rows form, or None if they are not consecutive."""
    start = int(rows[0]) if len(rows) else 0
    stop = start + len(rows)
    return slice(start, stop) if np.array_equal(rows, np.arange(start, stop)) else None


def take_mapped(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of ``array[rows]``, releasing the pages that a memmap read for it."""
    if _mapping_of(array) is None:
        return array[rows]
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        taken[part] = array[rows[part]]
        let_go_of_pages(array)
    return taken


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the read-only mapping behind an array, if its pages can be released."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    with memoryview(owner) as view:
        return owner if view.readonly else None  # changes to a writable one would be lost


def gib(n_bytes: float) -> str:
    """Return bytes as text, such as "3.2 GiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 2**10:.0f} KiB"


@contextmanager
def without_collector() -> Iterator[None]:
    """Turn the garbage collector off, which would scan millions of lasting objects repeatedly."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
