"""Whole processes: the help, the main job, and what a run spends outside its steps.

    python benchmarks/startup.py
    python benchmarks/startup.py --before FOLDER

FOLDER has the package of another version, as ``git archive COMMIT skal | tar -x -C FOLDER`` makes
it: the sides then take turns.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from _report import report

SKAL = Path(sys.executable).with_name("skal")
RUN = ("run", "--dataset", "digits", "--strategy", "badge")
STEPS = ("fit_seconds", "score_seconds", "query_seconds")
GROWTH = """
import re, sys, tempfile, skal
from pathlib import Path
data = skal.load_dataset("digits")
sizes = []
for number in range(45):
    with tempfile.TemporaryDirectory() as folder:
        skal.run(data, "badge", n_rounds=1, steps=5, out=Path(folder, "run"))
    sizes.append(int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]))
print((sizes[-1] - sizes[4]) / 1024 / 40)
"""


def seconds(*arguments: str, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([SKAL, *arguments], cwd=folder, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return times


def environment(package: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(package.resolve())}


def outside(package: Path) -> tuple[float, float, float]:
    """Return a run's seconds outside fit, score and query; all of it, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        used, start = cpu_seconds(), time.perf_counter()
        command = [SKAL, *RUN, "--out", "run"]
        subprocess.run(
            command, cwd=folder, env=environment(package), check=True, capture_output=True
        )
        took, cpu = time.perf_counter() - start, cpu_seconds() - used
        with Path(folder, "run", "rounds.csv").open() as file:
            steps = sum(float(row[name]) for row in csv.DictReader(file) for name in STEPS)
    return took - steps, took, cpu


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def growth(package: Path) -> float:
    command = [sys.executable, "-P", "-c", GROWTH]
    done = subprocess.run(
        command, env=environment(package), check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def _seconds_of_imports() -> float:
    start = time.perf_counter()
    code = "import torch, skorch, skactiveml.base, matplotlib.figure"
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def against(before: Path, repeats: int) -> None:
    """Compare two versions."""
    sides = {"before": before, "now": Path(__file__).parents[1]}
    times: dict[str, list[Sequence[float]]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, package in sides.items():
            times[name].append(outside(package))
            print(name, times[name][-1], flush=True)
    best = {name: np.min(values, axis=0) for name, values in times.items()}
    bare = min(_seconds_of_imports() for _ in range(repeats))
    grown = {name: growth(package) for name, package in sides.items()}
    rows = [[name, *(f"{s:.1f}" for s in best[name]), f"{grown[name]:.2f}"] for name in sides]
    ratios = [f"{ratio:.2f}" for ratio in best["before"] / best["now"]]
    report(
        "What a run spends outside of its steps",
        ["", "outside fit, score, query", "seconds, all", "of processors", "MiB a run leaves"],
        [*rows, ["times less", *ratios, f"{grown['before'] / grown['now']:.0f}"]],
        f"`skal {' '.join(RUN)}`, whole processes; the best of {repeats}, in turn. The first fit "
        "of a process used to import torch's compiler, which counts as fit. The last column is of "
        "40 `skal.run` in one process, after five others. Target: 2 s outside. To "
        f"import torch, skorch, scikit-activeml and matplotlib alone took {bare:.1f} s.",
    )


@click.command()
@click.option("--before", type=click.Path(exists=True, path_type=Path))
@click.option("--repeats", default=3, show_default=True)
def main(before: Path | None, repeats: int) -> None:
    """Time them."""
    if before is not None:
        against(before, repeats)
        return
    jobs = ((["--help"], 11, 0.3), (["run", "--help"], 5, None), (RUN, 5, 40))
    rows = []
    for arguments, times_, target in jobs:
        times = seconds(*arguments, repeats=times_)
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
