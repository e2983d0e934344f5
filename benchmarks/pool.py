"""One round on a pool of a million images: what it takes of memory, and whether time is linear.

    python benchmarks/pool.py --folder PLACE

makes 1,000,000 random images of 32 px (2.9 GiB) in a file under PLACE, which is removed at the
end. The round: `small-cnn` is fitted on 1,000 labels, the pool is scored, and 100 images are picked
by margin. Each size of pool, the first images of the file, is measured in a process of its own. Of
the peak memory of a process the system tells the sum (VmHWM); what of it is its own, and what are
pages of the file that it has mapped, is read ten times a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import numpy as np

SHAPE = (3, 32, 32)
LABELS, PICKS, CLASSES = 1000, 100, 10
SIZES = {10_000: 5, 100_000: 3, 1_000_000: 1}
"""How often the choice is timed, by size of the pool."""
MIB = 2**20
TARGET_GIB, TARGET_SHARE = 2, 0.15


def make_pool(path: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *SHAPE))
    for start in range(0, n, 10_000):
        out[start : start + 10_000] = rng.integers(0, 256, (10_000, *SHAPE), np.uint8)


def memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":") for line in lines)
    return {name: int(facts[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "VmHWM")}


class Peaks(threading.Thread):
    """Watches which memory is the process's own, and which is of mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = memory()
        self.start()

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.1)

    def look(self) -> None:
        for name, value in memory().items():
            self.highest[name] = max(self.highest[name], value)


def measure(path: Path, n: int) -> None:
    import skal
    from skal.datasets.pool import Pool
    from skal.runs.acquisition import Choice, Round
    from skal.strategies import resolve_strategy

    X = np.load(path, mmap_mode="r")[:n]
    before, peaks = memory(), Peaks()
    pool = Pool(X, CLASSES)
    rng = np.random.default_rng(0)
    labeled = rng.choice(n, LABELS, replace=False)
    pool.label(labeled, rng.integers(0, CLASSES, LABELS))
    start = time.perf_counter()
    classifier = skal.ImageClassifier(classes=range(CLASSES), random_state=0).fit(X, pool.y)
    fit = time.perf_counter() - start
    classifier.predict_proba(X[:2048])  # the first call of a network is slow
    strategy = resolve_strategy("margin")
    rounds = []
    for seed in range(SIZES.get(n, 1)):
        seconds: dict[str, float] = {}
        used = time.process_time()
        picks = Choice(strategy, PICKS, seed).make(classifier, pool, Round(1, seconds, {}))
        used = time.process_time() - used
        assert len(set(picks.tolist())) == PICKS
        rounds.append([seconds["score_seconds"], seconds["query_seconds"], used])
    print(json.dumps([fit, rounds, before, {**peaks.highest, "VmHWM": memory()["VmHWM"]}]))


def row(n: int, path: Path) -> tuple[list[float], list[str]]:
    command = [sys.executable, __file__, "--folder", str(path.parent), "--measure", str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fit, rounds, before, peak = json.loads(done.stdout)
    score, query, used = np.median(np.array(rounds), axis=0)
    each = [(score + query) / n * 1e6, used / n * 1e6]
    cells = [
        f"{n:,}",
        f"{fit:.1f}",
        f"{score:.2f}",
        f"{query:.2f}",
        *(f"{value:.0f}" for value in each),
        f"{before['VmHWM'] / MIB:,.0f}",
        f"{peak['RssAnon'] / MIB:,.0f}",
        f"{peak['RssFile'] / MIB:,.0f}",
        f"{peak['VmHWM'] / MIB:,.0f}",
    ]
    print(cells, flush=True)
    return each, cells


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--measure", "measured", type=int, hidden=True)
def main(folder: Path, measured: int | None) -> None:
    """Measure all sizes."""
    path = folder / "pool.npy"
    if measured:
        measure(path, measured)
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not path.exists():
            make_pool(path, max(SIZES))
        rows = [row(n, path) for n in SIZES]
    finally:
        path.unlink(missing_ok=True)
    from _report import report

    per_image = np.array([each for each, _ in rows])
    middle = (per_image.max(axis=0) + per_image.min(axis=0)) / 2
    wall, used = per_image.max(axis=0) / middle - 1
    report(
        "A margin round on a pool of 1,000,000 images of 32 px (small-cnn)",
        [
            "images",
            "fit, s",
            "score, s",
            "pick, s",
            "score and pick, µs an image",
            "of processors, µs an image",
            "MiB before",
            "peak of its own, MiB",
            "peak of mapped files, MiB",
            "peak of both (VmHWM), MiB",
        ],
        [cells for _, cells in rows],
        f"Fit on {LABELS:,} labels, pick {PICKS}; the pool is a uint8 memmap of random pixels, "
        f"{max(SIZES) * np.prod(SHAPE) / 2**30:.1f} GiB at its largest, each size in a process of "
        "its own. Medians of "
        + ", ".join(f"{times} at {n:,}" for n, times in SIZES.items())
        + f". Seconds an image are within {wall:.0%} of their middle, those of processors within "
        f"{used:.0%}. "
        "Mapped files are the pool and the libraries; what was read of the pool is given up every "
        "64 MiB. "
        f"Targets: {TARGET_GIB} GiB at most, linear within {TARGET_SHARE:.0%}.",
    )


if __name__ == "__main__":
    main()
