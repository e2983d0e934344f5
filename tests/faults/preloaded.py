"""Trials in a process of its own, before which a small library is loaded that lets calls fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from damage import Outcomes, quiet

HERE = Path(__file__).parent
Trial = tuple[str, str, str, str]
"""A scene, what was done in it, how it ended, and what was said."""
Points = Callable[[int], list[int]]
"""Which of so many calls fail, one a trial."""
Span = tuple[int, int]
"""The first and the last of them that may."""
ALL: Span = (1, sys.maxsize)


def can_run() -> bool:
    """Tell whether there is a compiler, and a loader that takes libraries before all others."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def run(
    name: str,
    n: int,
    seed: int = 0,
    only: str | None = None,
    place: Path | None = None,
    span: Span = ALL,
) -> Outcomes:
    """Run ``NAME.py`` with the library of ``NAME.c``; return how its trials ended.

    `n` calls of each scene fail, evenly spread, or all if it has fewer; of those of a span, from
    the first to the last.
    """
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        library = Path(scratch) / f"{name}.so"
        source = HERE / f"{name}.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        env = {**os.environ, "LD_PRELOAD": str(library)}
        numbers = map(str, (n, *span))
        command = [
            sys.executable,
            HERE / f"{name}.py",
            *numbers,
            scratch,
            *([only] if only else []),
        ]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as trials:
            for line in trials.stdout or ():
                outcomes.take(*json.loads(line))
    if trials.returncode:
        raise subprocess.CalledProcessError(trials.returncode, command)
    return outcomes


def main(tried: Callable[[Points, Path, str | None], Iterator[Trial]]) -> None:
    """Do the trials of ``NAME.py``, and print each, a line."""
    torch.set_num_threads(1)
    n, first, last, place, *only = sys.argv[1:]
    points = partial(_spread, int(n), int(first), int(last))
    with quiet():
        for trial in tried(points, Path(place), only[0] if only else None):
            sys.stdout.write(f"{json.dumps(trial)}\n")
            sys.stdout.flush()


def _spread(n: int, first: int, last: int, n_seen: int) -> list[int]:
    """Return `n` of so many calls, evenly spread from the first to the last, or all of these."""
    if first > n_seen:
        raise ValueError(f"--from {first}: there are {n_seen} calls")
    last = min(last, n_seen)
    points = np.linspace(first, last, max(0, min(n, last - first + 1)))
    return np.unique(points.round().astype(int)).tolist()
