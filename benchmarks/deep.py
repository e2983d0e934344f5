"""Fashion-MNIST as instruments write it: what is learned from 400 labels, by how it is stored.

    python benchmarks/deep.py --folder PLACE [--other CHECKOUT]

writes the same images under PLACE in several ways: 8 bits as PNG; floats as TIFF whose maxima are
1.02 and 0.98 in turn; 12 bits in TIFFs of 16, 16 times the value; and as a thermal camera does, 9
times the value above 29,000. Each is a folder with the split given; a network is trained from
nothing on the same 400 labels of each, drawn at random. `--other` does the same with another
checkout of skal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import numpy as np
from _report import report
from PIL import Image

import skal

N_TRAIN, N_TEST, N_LABELS = 4000, 3000, 400
TARGET = 0.01
Pixels = np.ndarray
WRITTEN: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "8 bits": lambda pixels, number: pixels,
    "floats to 1.02 or 0.98": lambda pixels, number: (
        pixels * np.float32((0.98 if number % 2 else 1.02) / 255)
    ),
    "12 bits of 16": lambda pixels, number: pixels.astype(np.uint16) * 16,
    "thermal, 16 bits": lambda pixels, number: pixels.astype(np.uint16) * 9 + 29_000,
}
RUN = """
import json, sys, skal
folder, data_dir, seed, n = sys.argv[1:]
run = skal.run(folder, strategy="random", model="small-cnn", image_size=28, n_init=int(n),
               n_rounds=0, seed=int(seed), data_dir=data_dir, init_strategy="random")
print(json.dumps(run.summary["accuracy"]))
"""


def write(folder: Path, data: skal.ImageDataset) -> None:
    for part, X, y, n in (
        ("train", data.X, data.y, N_TRAIN),
        ("test", data.X_test, data.y_test, N_TEST),
    ):
        for number in range(n):
            for name, convert in WRITTEN.items():
                suffix = "png" if name == "8 bits" else "tif"
                place = folder / name / part / f"class-{y[number]}" / f"{number:05}.{suffix}"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(convert(X[number, 0], number)).save(place)


def accuracy(checkout: Path, folder: Path, seed: int) -> float:
    arguments = [str(folder), str(folder.parent / f"cache-{checkout.name}"), str(seed)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, *arguments, str(N_LABELS)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--other", type=click.Path(path_type=Path), help="Another checkout of skal.")
@click.option("--seeds", default=2, show_default=True)
def main(folder: Path, other: Path | None, seeds: int) -> None:
    if not folder.exists():
        write(folder, skal.load_dataset("fashion-mnist"))
    here = Path(skal.__file__).parent.parent
    checkouts = {"accuracy": here} | ({"accuracy before": other} if other else {})
    rows, found = [], {}
    for name in WRITTEN:
        cells = []
        for column, checkout in checkouts.items():
            each = [accuracy(checkout, folder / name, seed) for seed in range(seeds)]
            found[name, column] = float(np.mean(each))
            behind = found["8 bits", column] - found[name, column]
            told = ", ".join(f"{one:.3f}" for one in each)
            cells.append(f"{found[name, column]:.3f} ({told}); {-behind:+.3f}")
        rows.append((name, *cells))
        print(*rows[-1], flush=True)
    report(
        f"Fashion-MNIST as instruments write it: {N_LABELS} labels, {seeds} seeds",
        ("written as", *checkouts),
        rows,
        f"Mean, each seed, and the difference to 8 bits. Pool of {N_TRAIN:,}, test of {N_TEST:,}, "
        f"small-cnn at 28 px from nothing. Target: within {TARGET}.",
    )


if __name__ == "__main__":
    main()
