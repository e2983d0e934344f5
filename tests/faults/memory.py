"""Memory that runs out, at each larger allocation of what skal does, one by one.

The allocations are counted by a small library that is loaded before all others (`memory.c`, made by
the system's compiler); it lets the one of a number fail. Each trial is a forked child: what fails
must say that it was for memory, or be one line of skal's own, and after it the same command must
give what an undisturbed one gives.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import damage  # noqa: E402
import kills  # noqa: E402
import numpy as np  # noqa: E402
import preloaded  # noqa: E402
from children import begin, end, undisturbed  # noqa: E402
from disk import SCENES  # noqa: E402
from preloaded import Points, Trial  # noqa: E402

CRASHED = ("ended by signal 6", "ended by signal 11")
"""Rust's allocator, below safetensors, ends the process with a line that says so, and matplotlib
without one: as if it were killed.
"""
SMALLER = "pretraining continues in batches of"
"""It comes out otherwise then, which is said, and is kept."""
LEAST = 2**16
"""Bytes; who gets none of less is not skal alone."""


run = partial(preloaded.run, "memory")
"""Let `n` allocations of each scene fail; see `preloaded.run`."""


def _tried(points_of: Points, place: Path, only: str | None) -> Iterator[Trial]:
    before, work = place / "before", place / "work"
    for name, scene in SCENES.items():
        if only not in (None, name):
            continue
        work.mkdir()
        scene.there(work)
        work.rename(before)
        shutil.copytree(before, work)
        scene.do(work)  # here, so that nothing is imported for the first time
        damage.copy_anew(before, work)
        expected, n_seen = undisturbed(_in_child(scene, work, place, -1))
        for point in points_of(n_seen):
            damage.copy_anew(before, work)
            status, found, _ = _in_child(scene, work, place, point)
            is_smaller = status == "done" and SMALLER in _log_of(work)
            right = found if is_smaller else expected
            if status in CRASHED:
                kills.an_hour_passes(work)
            again, then, _ = _in_child(scene, work, place, -1)
            found, then = (_as_expected(one, right) for one in (found, then))
            wrong = kills.found_again(work, again, then, right)
            outcome = wrong or (("named", SMALLER) if is_smaller else _judged(status, found, right))
            yield name, f"allocation {point} of {n_seen}", *outcome
        shutil.rmtree(work)
        shutil.rmtree(before)


def _log_of(work: Path) -> str:
    log = work / "run/log.txt"
    return log.read_text() if log.exists() else ""


def _as_expected(found: Any, expected: Any) -> Any:
    """Return what is expected for what differs from it by the last digit of features alone: where
    memory runs out, batches become smaller, and sums are rounded otherwise.
    """
    are_features = isinstance(expected, tuple) and len(expected) == 4 and type(found) is tuple
    if not are_features or found[:3] != expected[:3]:
        return found
    ours, others = (np.frombuffer(one[3], np.float16) for one in (found, expected))
    return expected if np.allclose(ours, others, rtol=2e-3, atol=2e-3) else found


def _judged(status: str, found: Any, expected: Any) -> tuple[str, str]:
    if status == "done":
        return ("same" if found == expected else "other"), ""
    is_told = status in ("out of memory", "named", *CRASHED)
    return ("named" if is_told else status), str(found)


def _in_child(scene: kills.Scene, work: Path, place: Path, point: int) -> tuple[str, Any, Any]:
    memory, answer = ctypes.CDLL(None), place / "answer"
    memory.memory_arm.argtypes = [ctypes.c_long, ctypes.c_long]
    memory.memory_seen.restype = ctypes.c_long

    def arm() -> None:
        memory.memory_arm(LEAST, point)

    return end(begin(scene.do, work, answer, arm, memory.memory_seen), answer)


if __name__ == "__main__":
    preloaded.main(_tried)
