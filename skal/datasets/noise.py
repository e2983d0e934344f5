"""Noise on images, as from poor cameras, to test how robust strategies and networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..core.errors import UnknownNameError
from ..core.kept import gather, told_where
from ..core.progress import progress
from .base import ImageDataset, Images
from .rows import ImageRows


def _gaussian(image: Images, rate: float, draw: np.random.Generator) -> Images:
    noise = draw.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image + 255 * rate * noise), 0, 255).astype(np.uint8)


def _salt_and_pepper(image: Images, rate: float, draw: np.random.Generator) -> Images:
    where = draw.random(image.shape[1:])
    noisy = np.array(image)
    noisy[:, where < rate / 2] = 0
    noisy[:, where >= 1 - rate / 2] = 255
    return noisy


IMAGE_NOISE: Mapping[str, Callable[[Images, float, np.random.Generator], Images]] = (
    MappingProxyType({"gaussian": _gaussian, "salt-and-pepper": _salt_and_pepper})
)
"""Functions of an image, the rate, and a generator."""


def add_noise(
    data: ImageDataset, kind: str, rate: float, *, seed: int, folder: Path
) -> ImageDataset:
    """Return a copy of a dataset with noise on its training images.

    "gaussian" noise has a standard deviation of `rate` times 255 and is clipped; "salt-and-pepper"
    turns that share of pixels black or white. An image's noise depends only on seed and index, and
    grows with the rate. Images that were memmaps become unnamed files in `folder`. An
    `UnknownNameError` is raised for another kind, a `DataError` if they cannot be written.
    """
    if kind not in IMAGE_NOISE:
        raise UnknownNameError("image noise", kind, IMAGE_NOISE)

    def noisy(images: Images, part: int) -> Images:
        shown = progress(images, desc="adding noise")
        each = (
            IMAGE_NOISE[kind](image, rate, np.random.default_rng([seed, part, index]))
            for index, image in enumerate(shown)
        )
        if not len(images):
            return images
        on_disk = isinstance(images, np.memmap | ImageRows) or isinstance(images.base, np.memmap)
        most = 0 if on_disk else images.nbytes  # in memory if the clean ones are
        with told_where("the noisy images", folder):
            return gather((image[None] for image in each), images.shape, images.dtype, folder, most)

    return replace(data, X=noisy(data.X, 0), X_unlabeled=noisy(data.X_unlabeled, 1))
