"""Whether anything grows: rounds of one run, runs in one process, labels of one project.

    python benchmarks/flat.py rounds --n 2000
    python benchmarks/flat.py runs --n 200
    python benchmarks/flat.py labels --n 100000

Memory of the process, open files and the processor's time of each part are taken, which does not
depend on what else the machine does; of each the slope is told, by Theil and Sen with its 95%
interval, a thousand parts, once the first tenth is over.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
from PIL import Image
from scipy import stats

import skal
from skal.label.project import LabelProject
from skal.label.service import LabelService

TINY: dict[str, Any] = {"model": "lenet", "steps": 1, "n_init": 6}
MOST_POINTS = 1000
"""Of which the slopes are computed."""
LINKS = 10_000
"""Names that one file has: file systems have a limit."""


@dataclass
class Course:
    """What was seen after each part."""

    seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    _last: float = field(default_factory=time.process_time)

    def take(self) -> None:
        now, process = time.process_time(), psutil.Process()
        self.seconds.append(now - self._last)
        self.mebibytes.append(process.memory_info().rss / 2**20)
        self.files.append(process.num_fds())
        self._last = time.process_time()

    def told(self) -> Iterator[str]:
        for name, values in (
            ("ms of the processor", 1000 * np.array(self.seconds)),
            ("MiB", np.array(self.mebibytes)),
            ("open files", np.array(self.files, float)),
        ):
            later = values[len(values) // 10 :]
            parts = np.array_split(later, min(MOST_POINTS, len(later)))
            means = np.array([part.mean() for part in parts])
            at = np.linspace(0, len(later) / 1000, len(means))
            slope, _, low, high = stats.theilslopes(means, at)
            yield (
                f"{name}: {np.median(later):.4g} in the median, {slope:+.3g} a thousand "
                f"({low:+.3g} to {high:+.3g})"
            )


class _Watcher(skal.Tracker):
    def __init__(self, course: Course) -> None:
        self.course = course

    def on_round(self, row: Mapping[str, Any]) -> None:
        self.course.take()


def _data(n: int) -> skal.ImageDataset:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=n + 60)
    X = rng.integers(0, 60, (n + 60, 1, 12, 12), dtype=np.uint8)
    for row, label in enumerate(y):
        X[row, 0, 4 * label : 4 * label + 3] += 150
    return skal.ImageDataset(X[60:], y[60:], ("a", "b", "c"), X[:60], y[:60])


def rounds(n: int, folder: Path) -> Course:
    """One run of `n` rounds, an image a round, recorded."""
    course = Course()
    data = _data(n + 100)
    settings = {**TINY, "n_query": 1, "n_rounds": n, "explore": 0}
    skal.run(data, "margin", out=folder / "run", trackers=[_Watcher(course)], **settings)
    return course


def runs(n: int, folder: Path) -> Course:
    """`n` runs in one process, recorded."""
    course, data = Course(), _data(100)
    for number in range(n):
        skal.run(data, "margin", out=folder / f"{number}", n_query=4, n_rounds=2, **TINY)
        gc.collect()
        course.take()
    return course


def labels(n: int, folder: Path) -> Course:
    """`n` labels, asked for and given one by one, as the page does."""
    root = folder / "images"
    root.mkdir()
    for number in range(n + 100):
        place = root / f"{number}.png"
        if number % LINKS:
            os.link(root / f"{number - number % LINKS}.png", place)
        else:
            Image.new("L", (8, 8)).save(place)
    project = LabelProject.open(root, ["a", "b"])
    service, course = LabelService(project), Course()
    for number in range(n):
        (image,) = service.next("me", 1)
        service.act("me", [{"action": "label", "image": image, "label": number % 2}])
        service.state("me")
        course.take()
    project.close()
    return course


PARTS: dict[str, Callable[[int, Path], Course]] = {"rounds": rounds, "runs": runs, "labels": labels}


@click.command()
@click.argument("part", type=click.Choice(list(PARTS)))
@click.option("--n", default=200, show_default=True)
def main(part: str, n: int) -> None:
    """Do many of a kind, and tell what grows."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        course = PARTS[part](n, Path(scratch))
    for line in course.told():
        click.echo(f"{part}, {n}: {line}")


if __name__ == "__main__":
    main()
