"""A folder whose pixels are cached, opened again after some images were added.

python benchmarks/grow.py FOLDER [--added 10]

The folder is copied; each step is `skal.load_dataset` at 224 px.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click
from _report import report

import skal


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--added", default=10, show_default=True)
def main(source: Path, added: int) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "images"
        shutil.copytree(source, root)
        files = sorted(path for path in root.rglob("*") if path.is_file())

        def opened() -> float:
            start = time.perf_counter()
            skal.load_dataset(root, image_size=224, data_dir=Path(place) / "data")
            return time.perf_counter() - start

        rows = [("the first time", f"{opened():.2f}"), ("again", f"{opened():.2f}")]
        for number, path in enumerate(files[:: max(1, len(files) // added)][:added]):
            shutil.copyfile(path, path.with_name(f"added-{number}{path.suffix}"))
        rows.append((f"after {added} were added", f"{opened():.2f}"))
    report(
        "A folder that grows",
        ("opened", "seconds"),
        rows,
        f"{len(files)} files of {source.name}, copied; decoded to 224 px.",
    )


if __name__ == "__main__":
    main()
