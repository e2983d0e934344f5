"""How long it takes to list a folder of a million images, and to see that none has changed.

    python benchmarks/index.py --folder PLACE

makes the files under PLACE, empty ones of the right names in 100 class folders, unless they are
there. Both steps of opening a folder are measured, in a process that has done nothing else: the
listing (`find_images`), and the look at each file's size and time, by which the cache of decoded
pixels is found.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

CLASSES = 100
TARGET_SECONDS, TARGET_GIB = 20, 1


def make_files(folder: Path, n: int) -> None:
    for label in range(CLASSES):
        place = folder / f"class-{label:03}"
        place.mkdir(parents=True)
        for number in range(n // CLASSES):
            (place / f"image-{number:07}.jpg").touch()


def measure(folder: Path) -> None:
    from skal.datasets.index import find_images
    from skal.datasets.pixel_cache import states_of

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    files = find_images(folder)
    listed = time.perf_counter()
    states_of(folder, files)
    looked = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([len(files), listed - start, looked - listed, before, peak]))


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--n", default=1_000_000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--measure", "measured", is_flag=True, hidden=True)
def main(folder: Path, n: int, repeats: int, measured: bool) -> None:
    """Measure both, each time in a new process."""
    if measured:
        measure(folder)
        return
    if not folder.exists():
        make_files(folder, n)
    command = [sys.executable, __file__, "--folder", str(folder), "--measure"]
    rows = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found, listing, looking, before, peak = json.loads(done.stdout)
        assert found == n
        seconds = [f"{value:.1f}" for value in (listing, looking, listing + looking)]
        rows.append([*seconds, f"{before / 2**10:.0f}", f"{peak / 2**10:.0f}"])
    from _report import report  # imports torch, which the measured processes do not

    report(
        f"Index of a folder of {n:,} files",
        [
            "listing, seconds",
            "looking for changes, seconds",
            "both",
            "MiB of the process before",
            "peak, MiB",
        ],
        rows,
        f"A row a process. Empty files in {CLASSES} class folders, listed before, so that the "
        "system has in memory what it knows of them. `skal.load_dataset` does both whenever a "
        f"folder is opened. Targets for both: {TARGET_SECONDS} s, {TARGET_GIB} GiB.",
    )


if __name__ == "__main__":
    main()
