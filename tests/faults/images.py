"""Mutated images of all kinds: decoded, or named with a reason; no crash, no hang, bounded memory.

Of each kind that `tests/datasets/test_pixels.py` writes, and of photographs, a few bytes are
flipped, cut, overwritten, doubled or moved; the file is then looked at, decoded, and made a preview
of, as `skal run`, `skal predict` and `skal label` do.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from children import one_by_one
from damage import Outcomes
from PIL import Image

from skal.datasets.decoding import ReadFailedError, decode, look_at, try_file
from skal.datasets.deep import Ranges
from skal.label.previews import render

sys.path.append(str(Path(__file__).parents[1] / "datasets"))
import test_pixels

SIDE = 48
AT_ONCE = 40
"""Files of one child."""


def _flipped(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _at_the_head(content: bytearray, rng: random.Random) -> None:
    """Set bytes where sizes and types stand, to what is often the end of a range."""
    at = rng.randrange(min(len(content), 256))
    for k in range(at, min(at + rng.choice((1, 2, 4)), len(content))):
        content[k] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _overwritten(content: bytearray, rng: random.Random) -> None:
    at, n = rng.randrange(len(content)), rng.choice((1, 8, 64, 512))
    content[at : at + n] = rng.choice((bytes(n), rng.randbytes(n), b"\xff" * n))


def _doubled(content: bytearray, rng: random.Random) -> None:
    at, n = rng.randrange(len(content)), rng.choice((1, 16, 256))
    content[at:at] = content[at : at + n]


def _moved(content: bytearray, rng: random.Random) -> None:
    at, n = rng.randrange(len(content)), rng.choice((4, 64))
    part = content[at : at + n]
    del content[at : at + n]
    to = rng.randrange(len(content) + 1)
    content[to:to] = part


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flipped, _at_the_head, _at_the_head, _cut, _overwritten, _doubled, _moved),
)


def _seeds(folder: Path) -> list[Path]:
    """Write whole files of all kinds."""
    folder.mkdir()
    for kind in test_pixels.KINDS:
        kind.write(folder / kind.name)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((320, 240))
    for name in ("p.jpg", "p.webp", "p.avif", "p.jp2", "p.bmp", "p.gif", "p.ppm", "p.png"):
        photo.save(folder / f"photo-{name}")
    photo.save(folder / "photo-progressive.jpg", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08")
    photo.save(folder / "photo-pages.tif", save_all=True, append_images=[photo, photo])
    return sorted(folder.iterdir())


def run(n: int, seed: int = 0, only: str | None = None, place: Path | None = None) -> Outcomes:
    """Mutate `n` files, of kinds whose name contains `only`; return how it ended."""
    rng, outcomes = random.Random(seed), Outcomes()
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        whole = [p for p in _seeds(Path(scratch) / "whole") if only is None or only in p.name]
        work, answer = Path(scratch) / "work", Path(scratch) / "answer"
        work.mkdir()
        for start in range(0, n, AT_ONCE):
            for old in work.iterdir():
                old.unlink()
            for number in range(min(AT_ONCE, n - start)):
                source = rng.choice(whole)
                content = bytearray(source.read_bytes())
                for _ in range(rng.choice((1, 1, 2))):
                    rng.choice(MUTATIONS)(content, rng)
                    content = content or bytearray(b"\0")
                (work / f"{number:03}-{source.name}").write_bytes(content)
            names = sorted(path.name for path in work.iterdir())
            for name, outcome in one_by_one(names, partial(_outcome, work), work, answer):
                outcomes.take(name.partition("-")[2], "mutated", outcome)
    return outcomes


def _outcome(folder: Path, name: str) -> str:
    """Tell how a file ends: "same" if it has pixels, "named" if a reason is given for none."""
    path = folder / name
    ways: list[Callable[[Path], Any]] = [
        lambda place: look_at(place, "first"),
        lambda place: decode(place, SIDE, ranges=Ranges()),
        lambda place: render(place, 256),
    ]
    try:
        found = [try_file(path, way, ()) for way in ways]
    except ReadFailedError as error:
        return f"taken for a fault of the system: {error.reason}"
    except Exception as error:
        return f"raw {error!r}"
    reasons = [one for one in found if isinstance(one, str)]
    if any("\n" in reason or not reason for reason in reasons):
        return f"not one line: {reasons}"
    return "named" if reasons else "same"
