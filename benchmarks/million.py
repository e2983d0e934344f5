"""One round on the kept features of a million images: seconds and memory, by strategy.

    python benchmarks/million.py --folder PLACE

makes 1,000,000 x 1,280 float16 features in clusters that overlap (2.4 GiB) in a file under PLACE,
which is removed at the end. The round: a head is fitted on 1,000 labels, images are scored, and 100
are picked, by each strategy in a process of its own; the file has been read once before. Of the
peak memory what is the process's own, and what are pages of the file, is read ten times a second.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from pool import MIB, Peaks, memory

N, WIDTH, CLASSES, LATENT = 1_000_000, 1_280, 10, 32
CLUSTERS_PER_CLASS = 5
LABELS, PICKS = 1_000, 100
AT_ONCE = 20_000
STRATEGIES = (
    "margin",
    "auto",
    "entropy",
    "bald",
    "badge",
    "clue",
    "core-set",
    "k-means",
    "typiclust",
    "tcm",
    "probcover",
    "max-herding",
    "diverse-entropy",
    "falcun",
    "drop-query",
)


def make_features(path: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    features = np.lib.format.open_memmap(path, "w+", np.float16, (n, WIDTH))
    labels = np.lib.format.open_memmap(path.with_suffix(".y.npy"), "w+", np.int64, (n,))
    centres = rng.standard_normal((CLUSTERS_PER_CLASS * CLASSES, LATENT), np.float32)
    mixing = rng.standard_normal((LATENT, WIDTH), np.float32) / np.float32(LATENT**0.5)
    for start in range(0, n, AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        cluster = rng.integers(len(centres), size=len(labels[rows]))
        latent = centres[cluster] + 0.7 * rng.standard_normal((len(cluster), LATENT), np.float32)
        values = latent @ mixing
        values += 0.1 * rng.standard_normal(values.shape, np.float32)
        features[rows] = np.maximum(values, 0, out=values)
        labels[rows] = cluster % CLASSES


class Notices(logging.Handler):
    """Gathers what skal tells its user."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        logging.getLogger("skal").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def measure(path: Path, name: str) -> dict[str, Any]:
    import skal
    from skal.datasets.pool import Pool
    from skal.runs.acquisition import Choice, Round
    from skal.strategies import resolve_strategy
    from skal.strategies.catalogue import stands_for

    X = np.load(path, mmap_mode="r")
    truth = np.load(path.with_suffix(".y.npy"), mmap_mode="r")
    pool, labeled = Pool(X, CLASSES), np.random.default_rng(0).choice(len(X), LABELS, False)
    pool.label(labeled, truth[labeled])
    classifier = skal.ImageClassifier(
        "efficientnet-lite0", classes=range(CLASSES), freeze=True, head="logistic", random_state=0
    )
    some = np.arange(200)
    classifier.variant().fit(X[some], truth[some]).predict_proba(X[some])  # the first is slow
    strategy = resolve_strategy(stands_for(name, frozen=True))
    notices, before, peaks = Notices(), memory(), Peaks()
    start, used = time.perf_counter(), time.process_time()
    classifier = classifier.fit(X, pool.y)
    fit = time.perf_counter() - start
    seconds: dict[str, float] = {}
    picks = Choice(strategy, PICKS, seed=1).make(classifier, pool, Round(1, seconds, {}))
    total, used = time.perf_counter() - start, time.process_time() - used
    peaks.look()
    assert len(set(picks.tolist())) == PICKS
    own = peaks.highest["RssAnon"] - before["RssAnon"]
    parts = [fit, seconds["score_seconds"], seconds["query_seconds"], total, used]
    return {"seconds": parts, "own": own, "notices": notices.texts}


def row(path: Path, name: str) -> list[str]:
    command = [sys.executable, __file__, "--folder", str(path.parent), "--measure", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    cells = [name, *(f"{part:.1f}" for part in found["seconds"]), f"{found['own'] / MIB:,.0f}"]
    cells.append("; ".join(found["notices"]))
    print(cells, flush=True)
    return cells


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, help="Strategies; by default those that are recommended.")
@click.option("--n", default=N, show_default=True, help="Images.")
@click.option("--keep", is_flag=True, help="Keep the file, and print only.")
@click.option("--measure", "measured", hidden=True)
def main(folder: Path, only: tuple[str, ...], n: int, keep: bool, measured: str | None) -> None:
    """Measure strategies."""
    path = folder / "features.npy"
    if measured:
        print(json.dumps(measure(path, measured)))
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not path.exists():
            make_features(path, n)
        rows = [row(path, name) for name in only or STRATEGIES]
    finally:
        if not keep:
            path.unlink(missing_ok=True)
            path.with_suffix(".y.npy").unlink(missing_ok=True)
    from _report import report

    report(
        f"A round on the kept features of {n:,} images",
        [
            "strategy",
            "fit, s",
            "score, s",
            "pick, s",
            "together, s",
            "of processors, s",
            "peak of its own, MiB",
            "told",
        ],
        rows,
        f"{n:,} x {WIDTH:,} float16 features in a memmap; fit on {LABELS:,} labels of {CLASSES} "
        f"classes, pick {PICKS}. One run. Targets: margin in 8 s, auto in 20 s, 2,048 MiB.",
        keep=not keep,
    )


if __name__ == "__main__":
    main()
