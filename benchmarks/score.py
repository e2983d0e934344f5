"""`skal score` on large JPEGs: images a second, processor time and bytes an image.

    python benchmarks/ingest.py --folder PLACE --only opening
    python benchmarks/score.py --folder PLACE

scores 1,000 of the JPEGs of 1600 x 1200 pixels that the first command makes, at 64 px, by networks
that were trained for a moment: what they say is of no matter here. Measured is the whole call, in
a process that has loaded skal before: listing, decoding, scoring, and writing one Parquet file.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from _report import report

import skal

SIZE, CLASSES = 64, 10


def trained(model: str, folder: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (64, 3, SIZE, SIZE), np.uint8)
    y = np.arange(64) % CLASSES
    classifier = skal.ImageClassifier(model, classes=range(CLASSES), steps=2, random_state=0)
    folder.mkdir()
    skal.save_classifier(classifier.fit(X, y), folder)
    return folder


def measure(images: Path, model: Path, out: Path, **options: object) -> list[str]:
    used = time.process_time()
    done = skal.score(images, model, out, shard_size=500, **options)
    used = time.process_time() - used
    return [
        f"{done.seconds:.1f}",
        f"{done.n_images / done.seconds:.0f}",
        f"{1000 * used / done.n_images:.1f}",
        f"{out.stat().st_size / done.n_images:.0f}",
    ]


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, exists=True), required=True)
def main(folder: Path) -> None:
    """Measure each way once."""
    images, rows = folder / "many" / "class-0", []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        for network in ("small-cnn", "resnet18"):
            model = trained(network, place / network)
            for embeddings in (False, True):
                out = place / f"{len(rows)}.parquet"
                figures = measure(images, model, out, threads=1, embeddings=embeddings)
                rows.append([network, "yes" if embeddings else "no", *figures])
                print(rows[-1], flush=True)
    n = sum(1 for _ in images.rglob("*.jpg"))
    report(
        f"skal score on {n:,} JPEGs of 1600 x 1200 pixels",
        [
            "network",
            "embeddings",
            "seconds",
            "images a second",
            "ms of processors an image",
            "bytes of Parquet an image",
        ],
        rows,
        f"To {SIZE} px, {CLASSES} classes, three utilities, one job of one thread; the whole call, "
        "once each. Embeddings are 128 numbers of small-cnn and 512 of resnet18.",
    )


if __name__ == "__main__":
    main()
