"""Opening a folder of 10,000 images, first and again, against another checkout of skal.

    python benchmarks/opening.py --folder PLACE --other CHECKOUT
    python benchmarks/opening.py --folder PLACE --other CHECKOUT --size 224

makes images of 64 x 64 pixels under PLACE, unless they are there: PNGs of 8 bits, and TIFFs of 16
of which 12 are used. Each checkout opens them in processes of its own, in turn: first with an empty
cache, then with what that left. The seconds of a processor are those of `skal.load_dataset` in the
process that calls it, the memory is by how much its peak rose.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
from _report import report
from PIL import Image

import skal

N, CLASSES, SIDE = 10_000, 10, 64
KINDS = {"PNG, 8 bits": ("png", np.uint8, 1), "TIFF, 12 bits of 16": ("tif", np.uint16, 16)}
OPEN = """
import json, resource, sys, time, skal, skal.datasets.loading
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start, used, before = time.perf_counter(), time.process_time(), peak()
data = skal.load_dataset(sys.argv[1], image_size=int(sys.argv[3]), data_dir=sys.argv[2])
print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak() - before]))
"""


def write(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(N):
        pixels = rng.integers(0, 256, (8, 8), np.uint8)
        shown = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for name, (suffix, dtype, factor) in KINDS.items():
            place = folder / name / f"class-{number % CLASSES}" / f"{number:05}.{suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.asarray(shown) * dtype(factor)).astype(dtype)).save(place)


def cost(checkout: Path, folder: Path, cache: Path, size: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", OPEN, str(folder), str(cache), str(size)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--other", type=click.Path(path_type=Path), required=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--size", default=48, show_default=True)
def main(folder: Path, other: Path, repeats: int, size: int) -> None:
    if not folder.exists():
        write(folder)
    checkouts = {"this": Path(skal.__file__).parent.parent, "other": other}
    rows = []
    for kind in KINDS:
        taken: dict[tuple[str, str], list[list[float]]] = {}
        for _ in range(repeats):
            for name, checkout in checkouts.items():
                cache = folder.parent / f"{folder.name}-cache"
                shutil.rmtree(cache, ignore_errors=True)
                for time in ("first", "again", "again"):
                    spent = cost(checkout, folder / kind, cache, size)
                    taken.setdefault((time, name), []).append(spent)
        for time in ("first", "again"):
            this, before = (np.min(taken[time, name], axis=0) for name in checkouts)
            for what, unit, digits in ((0, "s", 2), (1, "s of a processor", 2), (2, "MiB", 0)):
                cells = (f"{value[what]:.{digits}f} {unit}" for value in (this, before))
                ratio = this[what] / max(before[what], 1e-9)
                rows.append((kind, time, *cells, f"{ratio:.2f}"))
    report(
        f"Opening a folder of 10,000 images at {size} px, first and again",
        ("images", "time", "this build", "the one before", "ratio"),
        rows,
        f"Best of {repeats} and {2 * repeats}, in turn, the files in the system's memory. "
        "Target: 1.",
    )


if __name__ == "__main__":
    main()
