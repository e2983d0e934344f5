"""What worker processes call: a module of its own, so that they need not import torch for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

SEEN = "CUDA_VISIBLE_DEVICES"


def added(one: int, other: int) -> int:
    return one + other


def added_unless_killed(one: int, other: int) -> int:
    if other == 2:
        os.kill(os.getpid(), 9)
    return one + other


def gpus_when_both_are_at_work(folder: Path, item: int) -> tuple[int, str | None]:
    """Wait until two items are begun, so that each has a process of its own."""
    (folder / str(item)).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid(), os.environ.get(SEEN)
