"""How far a reader walks through the package to follow one round.

python benchmarks/path.py

Runs ``skal run --dataset digits --strategy margin --n-rounds 1 --steps 10`` in this process, hears
every call of a function of the package, in all threads, and prints how many functions in how many
files were called, and how often a call went into another file than the call before it. Functions
are those with a name of their own: comprehensions, lambdas and generator expressions are left out.
The command is run once before, so that what is imported and registered at first use is not counted;
training is short, since each further step takes the same way again.

The first row is the whole command: two trainings, one query, all that checks and records them. The
second is the round alone, between two calls of `on_round` of the command's own progress.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from _report import report

import skal
from skal.cli import main as skal_command

PACKAGE = str(Path(skal.__file__).parent)
COMMAND = ("run", "--dataset", "digits", "--strategy", "margin", "--n-rounds", "1", "--steps", "10")


END_OF_ROUND = "Progress.on_round"


@contextmanager
def listening() -> Iterator[list[CodeType]]:
    """Yield a list that grows by the code of each function that is called inside the block."""
    calls: list[CodeType] = []

    def hear(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name[0] != "<":
            calls.append(code)

    threading.setprofile(hear)
    sys.setprofile(hear)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def listen() -> list[CodeType]:
    """Run the command; return the functions that it called, one after the other."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        out = str(Path(folder) / "run")
        with listening() as calls:
            skal_command([*COMMAND, "--out", out], standalone_mode=False)
    return calls


def rounds(calls: Sequence[CodeType]) -> list[list[CodeType]]:
    """Return what is called up to each end of a round."""
    parts: list[list[CodeType]] = [[]]
    for code in calls:
        parts[-1].append(code)
        if code.co_qualname.endswith(END_OF_ROUND):
            parts.append([])
    return parts


def figures(calls: Sequence[CodeType]) -> tuple[int, int, int]:
    """Return the functions, the files and the changes of file of consecutive calls."""
    files = {code.co_filename for code in calls}
    changes = sum(one.co_filename != other.co_filename for one, other in pairwise(calls))
    return len(set(calls)), len(files), changes


def main() -> None:
    """Listen, and print."""
    listen()
    calls = listen()
    whole, alone = figures(calls), figures(rounds(calls)[1])
    report(
        "The way of one round through the package",
        ("what", "functions", "files", "changes of file"),
        [(f"`skal {' '.join(COMMAND)}`", *whole), ("round 1 of it alone", *alone)],
        "Functions of the package that are called, in how many files, and how often a call goes "
        "into another file than the call before it; comprehensions and lambdas are left out.",
    )


if __name__ == "__main__":
    main()
