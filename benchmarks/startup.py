"""Whole processes: the help, and the main job with its defaults.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _report import report

SKAL = Path(sys.executable).with_name("skal")


def seconds(*arguments: str, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([SKAL, *arguments], cwd=folder, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Time them."""
    rows = []
    for arguments, repeats, target in (
        (["--help"], 11, 0.3),
        (["run", "--help"], 5, None),
        (["run", "--dataset", "digits", "--strategy", "badge"], 5, 40),
    ):
        times = seconds(*arguments, repeats=repeats)
        rows.append(
            [
                f"`skal {' '.join(arguments)}`",
                f"{np.median(times):.2f}",
                f"{max(times):.2f}",
                "" if target is None else target,
            ]
        )
    report(
        "Whole processes",
        ["command", "seconds, median", "slowest", "target"],
        rows,
        "From the start of the process to its end, the first start included.",
    )


if __name__ == "__main__":
    main()
