"""Contact sheets of the images that strategies picked."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import DataError, one_line
from ...datasets import ImageDataset
from ...datasets.base import Images
from ...datasets.doubles import without_doubles
from ...runs.start import decoding_for
from ..results import Result

MOST_SEEDS = 3
MOST_ROUNDS = 25
MOST_IN_ROUND = 24
MOST_THUMBNAILS = 6000
"""Limit for a whole report; at 1 kB each they take about as much space as Plotly's script."""
SMALLEST, LARGEST = 32, 48
"""Height and width of thumbnails, in pixels; smaller images are enlarged by whole factors."""
GAP = 3
GREY, RED = (128, 128, 128), (224, 36, 36)


@dataclass(frozen=True)
class Sheet:
    """The images of one round."""

    number: int
    n_labeled: int
    accuracy: float
    n_images: int
    n_shown: int
    n_wrong: int
    classes: str
    image: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class Picks:
    """The rounds of one run, or why they cannot be shown."""

    seed: int
    sheets: Sequence[Sheet]
    n_rounds: int
    missing: str = ""


def load_images(result: Result, load: Callable[..., ImageDataset]) -> ImageDataset:
    """Load a run's dataset again with `load` (`load_as` or a cached version), without image noise.
    Raise a DataError if its images are not the run's, and any error of the loader.
    """
    config = result.config
    how = decoding_for(config)
    data = load(config.dataset, config.image_size, config.data_dir, config.seed, how)
    if config.drop_duplicates:
        data = without_doubles(data, quiet=True)
    for row in result.queries:
        index = row["index"]
        known = index < len(data.X) and row["label"] in data.classes
        if not known or (data.paths and data.paths[index] != row["path"]):
            raise DataError(f"{config.dataset} has changed since the run")
    return data


def room_for_each(n_runs: int, n_rounds: int) -> int:
    """Return the number of images to show for each round."""
    return max(1, min(MOST_IN_ROUND, MOST_THUMBNAILS // max(1, n_runs * n_rounds)))


def show_picks(result: Result, load: Callable[..., ImageDataset], most: int) -> Picks:
    """Make contact sheets of at most `most` images per round, for evenly spread rounds."""
    seed, n_rounds = result.config.seed, len(result.rounds)
    if not result.queries:
        return Picks(seed, (), n_rounds, "the run did not record its picks")
    try:
        data = load_images(result, load)
    except Exception as error:  # loaders from outside may raise anything
        return Picks(seed, (), n_rounds, f"cannot load the images: {one_line(error)}")
    chosen = np.unique(np.linspace(0, n_rounds - 1, min(n_rounds, MOST_ROUNDS)).round().astype(int))
    sheets = []
    for row in (result.rounds[number] for number in chosen):
        if queries := [query for query in result.queries if query["round"] == row["round"]]:
            sheets.append(_sheet(row, queries, data, most))
    return Picks(seed, sheets, n_rounds)


def _sheet(
    row: Mapping[str, Any], queries: Sequence[Mapping[str, Any]], data: ImageDataset, most: int
) -> Sheet:
    indices = np.array([query["index"] for query in queries])
    given = np.array([data.classes.index(query["label"]) for query in queries])
    truth = data.y[indices]
    wrong = (truth >= 0) & (truth != given)
    picture = contact_sheet(data.X[indices[:most]], wrong[:most])
    content, media_type = _encoded(picture)
    return Sheet(
        number=row["round"],
        n_labeled=row["n_labeled"],
        accuracy=row["accuracy"],
        n_images=len(queries),
        n_shown=min(most, len(queries)),
        n_wrong=int(wrong.sum()),
        classes=_count([query["label"] for query in queries]),
        image=content,
        media_type=media_type,
        width=picture.width,
        height=picture.height,
    )


def _count(labels: Sequence[str], most: int = 12) -> str:
    counts = Counter(labels).most_common()
    shown = ", ".join(f"{label} ({n})" for label, n in counts[:most])
    return shown if len(counts) <= most else f"{shown}, and {len(counts) - most} more classes"


def contact_sheet(images: Images, marked: NDArray[np.bool_], columns: int = 12) -> Image.Image:
    """Lay out one or more thumbnails, with red frames around marked ones. Images that do not have
    three channels are shown by their first one.
    """
    height, width = images.shape[2:]
    longest = max(height, width)
    scale = max(1, SMALLEST // longest) if longest <= LARGEST else LARGEST / longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    step = (size[0] + GAP, size[1] + GAP)
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), GREY)
    for number, (image, mark) in enumerate(zip(images, marked, strict=True)):
        x, y = (number % columns) * step[0], (number // columns) * step[1]
        if mark:
            sheet.paste(RED, (x, y, x + size[0] + 2 * GAP, y + size[1] + 2 * GAP))
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        thumbnail = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how)
        sheet.paste(thumbnail, (x + GAP, y + GAP))
    return sheet


def _encoded(picture: Image.Image) -> tuple[bytes, str]:
    """Encode as PNG or JPEG, whichever is smaller; return the bytes and the media type."""
    found = []
    for form, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        buffer = io.BytesIO()
        picture.save(buffer, form, **settings)
        found.append((buffer.getvalue(), f"image/{form}"))
    return min(found, key=lambda pair: len(pair[0]))


@dataclass(frozen=True)
class Balance:
    """The share of a class among picked images and in the pool."""

    name: str
    picked: float
    pool: float | None


def class_balance(results: Sequence[Result], pool: ImageDataset | None) -> list[Balance]:
    """Compare labels picked after the initial set with the pool's, by class; empty without any."""
    labels = [query["label"] for r in results for query in r.queries if query["round"] > 0]
    if not labels:
        return []
    counts = Counter(labels)
    if pool is None:
        return [Balance(name, counts[name] / len(labels), None) for name in sorted(counts)]
    known = pool.y[pool.y >= 0]
    in_pool = np.bincount(known, minlength=len(pool.classes)) / max(1, len(known))
    return [
        Balance(name, counts[name] / len(labels), float(share))
        for name, share in zip(pool.classes, in_pool, strict=True)
    ]
