"""`skal predict`, one job of one thread: processor time and bytes an image.

    python benchmarks/ingest.py --folder PLACE --only opening
    python benchmarks/predict.py --folder PLACE

predicts 1,000 JPEGs of 1600 x 1200 pixels and 2,000 PNGs of 32 x 32, which the first command makes,
at 64 px, by networks that were trained for a moment: what they say is of no matter here. Measured
is the whole call, in a process that has loaded skal before: listing, decoding, predicting, and
writing one Parquet file.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from _report import report

import skal

SIZE, CLASSES = 64, 10
IMAGES = {
    # where, and whether no two are alike
    "JPEG, 1600 x 1200": ("many/class-0", False),
    "PNG, 32 x 32": ("small/class-0", True),
}


def trained(model: str, folder: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (64, 3, SIZE, SIZE), np.uint8)
    y = np.arange(64) % CLASSES
    classifier = skal.ImageClassifier(model, classes=range(CLASSES), steps=2, random_state=0)
    folder.mkdir()
    skal.save_classifier(classifier.fit(X, y), folder)
    return folder


def measure(images: Path, model: Path, out: Path, embeddings: bool) -> tuple[float, float]:
    used = time.process_time()
    done = skal.predict(model, [images], out, shard_size=500, threads=1, embeddings=embeddings)
    used = time.process_time() - used
    return 1000 * used / done.n_images, out.stat().st_size / done.n_images


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, exists=True), required=True)
def main(folder: Path) -> None:
    """Measure each way once."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        models = {name: trained(name, Path(scratch) / name) for name in ("small-cnn", "resnet18")}
        ways = itertools.product(IMAGES, models, (False, True))
        for number, (images, network, embeddings) in enumerate(ways):
            place, are_many = IMAGES[images]
            out = Path(scratch) / f"{number}.parquet"
            used, size = measure(folder / place, models[network], out, embeddings)
            told = f"{size:.0f}" if are_many else ""
            rows.append([images, network, "yes" if embeddings else "no", f"{used:.1f}", told])
            print(rows[-1], flush=True)
    report(
        "skal predict, one job of one thread",
        [
            "images",
            "network",
            "embeddings",
            "ms of processors an image",
            "bytes of Parquet an image",
        ],
        rows,
        f"1,000 JPEGs of quality 85 and 2,000 PNGs, to {SIZE} px, {CLASSES} classes, three "
        "utilities; the whole call, once each. Embeddings are 512 numbers of both networks. The "
        "JPEGs are ten under a hundred names each, so that their bytes say nothing.",
    )


if __name__ == "__main__":
    main()
