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
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    outcomes = Outcomes()
    for scene, what, outcome, told in json.loads(done.stdout.splitlines()[-1]):
        outcomes.take(scene, what, outcome, told)
    return outcomes


def main(tried: Callable[[int, Path, str | None], Iterator[Trial]]) -> None:
    """Do the trials of ``NAME.py``, and print them."""
    torch.set_num_threads(1)
    n, place, *only = sys.argv[1:]
    with quiet():
        found = list(tried(int(n), Path(place), only[0] if only else None))
    sys.stdout.write(f"{json.dumps(found)}\n")
