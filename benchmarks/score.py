"""`skal score` on a folder of large JPEGs: images a second, and bytes an image.

    python benchmarks/ingest.py --folder PLACE --only opening
    python benchmarks/score.py --folder PLACE

scores the 10,000 JPEGs of 1600 x 1200 pixels that the first command makes, at 64 px, by networks
that were trained for a moment: what they say is of no matter here. Measured is the whole call, in
a process that has loaded skal before: listing, starting workers, decoding, scoring, and writing one
Parquet file, by both processors. What a file takes of the disk is divided by its rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from _report import report

import skal

SIZE, CLASSES = 64, 10
PROCESSORS = 2


def trained(model: str, folder: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (64, 3, SIZE, SIZE), np.uint8)
    y = np.arange(64) % CLASSES
    classifier = skal.ImageClassifier(model, classes=range(CLASSES), steps=2, random_state=0)
    folder.mkdir()
    skal.save_classifier(classifier.fit(X, y), folder)
    return folder


@contextmanager
def cluster() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(PROCESSORS, threads_per_worker=1, dashboard_address=None) as started:
        yield started.scheduler_address


def measure(images: Path, model: Path, out: Path, **options: object) -> list[str]:
    done = skal.score(images, model, out, shard_size=1000, **options)
    size = out.stat().st_size / done.n_images
    return [f"{done.seconds:.1f}", f"{done.n_images / done.seconds:.0f}", f"{size:.0f}"]


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, exists=True), required=True)
def main(folder: Path) -> None:
    """Measure each way once."""
    images, rows = folder / "many", []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        small, resnet = (trained(name, place / name) for name in ("small-cnn", "resnet18"))

        def add(network: str, way: str, model: Path, **options: object) -> None:
            out = place / f"{len(rows)}.parquet"
            rows.append([network, way, *measure(images, model, out, **options)])
            print(rows[-1], flush=True)

        add("small-cnn", "one job, two threads", small)
        add("small-cnn", "two jobs", small, jobs=2)
        with cluster() as address:
            time.sleep(5)  # its workers are there
            dask = {"backend": "dask", "scheduler": address}
            add("small-cnn", "Dask, two workers", small, **dask)
        add("resnet18", "two jobs", resnet, jobs=2)
        add("resnet18", "two jobs, with embeddings", resnet, jobs=2, embeddings=True)
    n = sum(1 for _ in images.rglob("*.jpg"))
    report(
        f"skal score on {n:,} JPEGs of 1600 x 1200 pixels",
        ["network", "by", "seconds", "images a second", "bytes of Parquet an image"],
        rows,
        f"At {SIZE} px, {CLASSES} classes, three utilities; the whole call, once each. An "
        "embedding of resnet18 is 512 numbers of four bytes.",
    )


if __name__ == "__main__":
    main()
