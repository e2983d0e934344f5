"""How long it takes to import labels of a million images, and how much memory.

    python benchmarks/imports.py --folder PLACE

makes the files under PLACE, empty ones of the right names in 100 folders, unless they are there,
and beside them a table and JSON lines that label each. `import_into` is measured in a process of
its own, which opens the folder, reads the file and has all labels on the disk at the end.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

FOLDERS, CLASSES = 100, 10
TARGET_SECONDS, TARGET_GIB = 20, 1
FILES = ("labels.csv", "labels.jsonl")


def make_files(place: Path, n: int) -> None:
    with (place / "labels.csv").open("w") as table, (place / "labels.jsonl").open("w") as lines:
        table.write("path,label\n")
        for number in range(n):
            path = f"part-{number % FOLDERS:03}/image-{number:07}.jpg"
            label = f"class-{number % CLASSES}"
            (place / "images" / "unlabeled" / path).parent.mkdir(parents=True, exist_ok=True)
            (place / "images" / "unlabeled" / path).touch()
            table.write(f"unlabeled/{path},{label}\n")
            lines.write(json.dumps({"path": f"unlabeled/{path}", "label": label}) + "\n")


def measure(file: Path) -> None:
    from skal.label.importing import import_into

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    classes = [f"class-{number}" for number in range(CLASSES)]
    taken = import_into(file.parent / "images", file, classes)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([taken.new, seconds, time.process_time(), before / 2**10, peak / 2**10]))


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--n", default=1_000_000, show_default=True)
@click.option("--print-only", is_flag=True, help="Leave RESULTS.md as it is.")
@click.option("--measure", "measured", hidden=True)
def main(folder: Path, n: int, print_only: bool, measured: str | None) -> None:
    """Measure the import of both files, each into a new project."""
    if measured:
        measure(folder / measured)
        return
    if not folder.exists():
        folder.mkdir(parents=True)
        make_files(folder, n)
    rows = []
    for name in FILES:
        shutil.rmtree(folder / "images" / ".skal", ignore_errors=True)
        command = [sys.executable, __file__, "--folder", str(folder), "--measure", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, *figures = json.loads(done.stdout)
        assert taken == n
        rows.append([name, *(f"{figure:,.1f}" for figure in figures)])
    from _report import report  # imports torch, which the measured processes do not

    report(
        f"Import of labels of {n:,} images",
        ["file", "seconds", "of processors", "MiB of the process before", "peak, MiB"],
        rows,
        "A row a process, which opened the folder of empty files, listed before, and began a "
        f"project. Targets: {TARGET_SECONDS} s, {TARGET_GIB} GiB.",
        keep=not print_only,
    )


if __name__ == "__main__":
    main()
