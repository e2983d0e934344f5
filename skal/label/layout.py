"""All images as points in two dimensions, similar ones close together.

L. van der Maaten, G. Hinton. Visualizing Data using t-SNE. JMLR 9, 2008.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import MissingExtraError
from ..core.kept import kept

COMPONENTS = 50
"""Principal components used for t-SNE."""
MOST_POINTS = 20_000
"""Images to lay out by t-SNE; further ones are placed near their nearest neighbours."""
NEAREST = 10

Points = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """The numbers of images, int64, and their `points`, float32, shape (n, 2)."""

    images: NDArray[np.int64]
    points: Points
    method: str


def by_pca(embeddings: NDArray[np.float32]) -> Points:
    """Return the first two principal components, within milliseconds."""
    centred = embeddings - embeddings.mean(0)
    _, axes = np.linalg.eigh(np.cov(centred, rowvar=False).reshape(embeddings.shape[1], -1))
    points = centred @ axes[:, ::-1][:, :2].astype(np.float32)
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def check_tsne() -> None:
    """Raise a MissingExtraError if the extra ``map`` is not installed."""
    if find_spec("openTSNE") is None:
        raise MissingExtraError("openTSNE", "map", "a map by t-SNE")


def by_tsne(
    embeddings: NDArray[np.float32], seed: int, cache: Path, most: int = MOST_POINTS
) -> Points:
    """Return a t-SNE of embeddings, cached in a folder; requires the extra ``map``."""
    check_tsne()
    digest = hashlib.sha256(np.ascontiguousarray(embeddings).view(np.uint8).data)
    path = cache / f"map-{digest.hexdigest()[:16]}-{seed}-{most}.npy"

    def make(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, _tsne(embeddings, seed, most))

    kept(path, "lays out the map of the images", make)
    points: Points = np.load(path)
    return points


def _tsne(embeddings: NDArray[np.float32], seed: int, most: int) -> Points:
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    n, width = embeddings.shape
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.choice(n, min(n, most), replace=False))
    components = PCA(min(COMPONENTS, width, len(chosen)), random_state=seed)
    reduced = components.fit(embeddings[chosen]).transform(embeddings)
    perplexity = min(30, max(1, (len(chosen) - 1) // 3))
    found = TSNE(perplexity=perplexity, random_state=seed).fit(reduced[chosen])
    points = np.empty((n, 2), np.float32)
    points[chosen] = found
    others = np.setdiff1d(np.arange(n), chosen)
    if len(others):
        nearest = min(NEAREST, len(chosen))
        points[others] = found.prepare_partial(reduced[others], initialization="median", k=nearest)
    return points


def on_grid(points: Points, side: int) -> NDArray[np.int64]:
    """Return points as integers from 0 to `side`, with the same scale for both axes."""
    low, high = points.min(0), points.max(0)
    scale = side / max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    places: NDArray[np.int64] = np.rint((points - middle) * scale + side / 2).astype(np.int64)
    return places
