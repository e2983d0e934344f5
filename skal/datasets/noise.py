"""Noise on images, as bad cameras leave it: to see which strategy and which network survive it."""

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
"""Functions of one image, of the rate, and of a generator."""


def add_noise(
    data: ImageDataset, kind: str, rate: float, *, seed: int, folder: Path
) -> ImageDataset:
    """Add noise to the training images of a copy. "gaussian" has `rate` of 255 as standard
    deviation, clipped; "salt-and-pepper" turns that share of pixels black or white. An image's
    noise depends on seed and index only, and grows with the rate. Unnamed files in `folder` take
    the place of memmaps. An `UnknownNameError` is raised for another kind, a `DataError` if it
    cannot be written.
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
        most = 0 if on_disk else images.nbytes  # as the clean ones are
        with told_where("the noisy images", folder):
            return gather((image[None] for image in each), images.shape, images.dtype, folder, most)

    return replace(data, X=noisy(data.X, 0), X_unlabeled=noisy(data.X_unlabeled, 1))
