"""The share of the checks of damage in a round and in opening a kept dataset, in one process.

    python benchmarks/checks.py

What makes and compares checksums is timed by this process's own use of the processor, and so is
all. A round trains a head on kept features, asks for 100 images by margin, and is recorded.
"""

import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from _report import report
from PIL import Image

import skal
from skal.core import durable, kept
from skal.models import features, persistence
from skal.runs import record

N, ROUNDS, OPENINGS = 20_000, 10, 5
CHECKS = (
    *((kept, "find"), (kept, "checksum"), (features, "checksum"), (zlib, "crc32")),
    *((module, "sha256") for module in (durable, persistence, record)),
)


class Clock(skal.Tracker):
    """Seconds of the processor, of all and of checks, after each round."""

    spent, depth = 0.0, 0

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        for module, name in CHECKS:
            setattr(module, name, self.timed(getattr(module, name)))

    def timed(self, check: Any) -> Any:
        def inner(*args: Any, **kwargs: Any) -> Any:
            start, self.depth = time.process_time(), self.depth + 1
            try:
                return check(*args, **kwargs)
            finally:
                self.depth -= 1
                self.spent += 0 if self.depth else time.process_time() - start

        return inner

    def on_round(self, row: Any = None) -> None:
        self.seen.append((time.process_time(), self.spent))


def main() -> None:
    clock, rng, rows = Clock(), np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "images", Path(scratch) / "data"
        for number in range(N):
            place = folder / f"class-{number % 10}" / f"{number:05}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            pixels.resize((64, 64), Image.Resampling.BICUBIC).save(place)
        for _ in range(OPENINGS + 1):  # the first decodes
            data = skal.load_dataset(folder, image_size=64, data_dir=cache)
            clock.on_round()
        opened, clock.seen = clock.seen, []
        settings = {"n_init": 200, "n_query": 100, "n_rounds": ROUNDS, "data_dir": cache}
        skal.run(data, "margin", out=Path(scratch) / "run", trackers=[clock], **settings)
    for what, seen in (("opening", opened), ("a round", clock.seen)):  # whose first embeds
        whole, part = np.diff(np.array(seen), axis=0).T
        shares = 100 * part / whole
        told = f"{np.median(shares):.2f}% ({shares.min():.2f} to {shares.max():.2f})"
        rows.append((what, f"{1000 * np.median(whole):.0f}", f"{1000 * np.median(part):.2f}", told))
    report(
        "The share of the checks of damage in a round and in opening a kept dataset",
        ("what", "ms of the processor", "of that checks", "share"),
        rows,
        f"{N:,} images of 64 px in ten classes; medians of {OPENINGS} openings and {ROUNDS} rounds "
        "of the default network. Target: at most 3%.",
    )


if __name__ == "__main__":
    main()
