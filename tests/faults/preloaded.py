"""Trials in a process of its own, before which a small library is loaded that lets calls fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from damage import Outcomes, quiet

HERE = Path(__file__).parent
Trial = tuple[str, str, str, str]
"""A scene, what was done in it, how it ended, and what was said."""


def can_run() -> bool:
    """Tell whether there is a compiler, and a loader that takes libraries before all others."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def run(name: str, n: int, only: str | None, place: Path) -> Outcomes:
    """Run ``NAME.py`` with the library of ``NAME.c``; return how its trials ended."""
    library = place / f"{name}.so"
    source = HERE / f"{name}.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    env = {**os.environ, "LD_PRELOAD": str(library)}
    command = [sys.executable, HERE / f"{name}.py", str(n), place, *([only] if only else [])]
    outcomes = Outcomes()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as trials:
        for line in trials.stdout or ():
            outcomes.take(*json.loads(line))
    if trials.returncode:
        raise subprocess.CalledProcessError(trials.returncode, command)
    return outcomes


def main(tried: Callable[[int, Path, str | None], Iterator[Trial]]) -> None:
    """Do the trials of ``NAME.py``, and print each, a line."""
    torch.set_num_threads(1)
    n, place, *only = sys.argv[1:]
    with quiet():
        for trial in tried(int(n), Path(place), only[0] if only else None):
            sys.stdout.write(f"{json.dumps(trial)}\n")
            sys.stdout.flush()
