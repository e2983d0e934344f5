"""What is asked of the process that trains, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..datasets.index import ImageFile
from ..runs.config import RunConfig

GUESSES = "guesses.npz"
"""In the project's own folder: what the last network said."""


@dataclass(frozen=True)
class Guesses:
    """What a network says of the images whose numbers are `images`, int64.

    `proba`, float32, has a column for each class, none while there is no network; `embeddings`,
    float32, are what images are alike by; `n_labeled` is how many labels the network, of the name
    `model`, was trained on.
    """

    images: NDArray[np.int64]
    proba: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    n_labeled: int = 0
    model: str = ""

    @cached_property
    def rows(self) -> dict[int, int]:
        """The row of each image."""
        return {number: row for row, number in enumerate(self.images.tolist())}

    @property
    def is_of_network(self) -> bool:
        return bool(self.proba.shape[1])

    @cached_property
    def by_margin(self) -> list[int]:
        """The images, those first whose two most probable classes are nearest to each other."""
        if not self.is_of_network:
            return []
        best = np.sort(self.proba, axis=1)
        order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
        return self.images[order].tolist()  # type: ignore[no-any-return]

    def proba_of(self, image: int) -> NDArray[np.float32] | None:
        row = self.rows.get(image)
        return self.proba[row] if row is not None and self.is_of_network else None

    def nearest_to(self, image: int) -> list[int]:
        """Return the images by the distance of their embeddings to that of one, itself first."""
        distance = ((self.embeddings - self.embeddings[self.rows[image]]) ** 2).sum(1)
        distance[self.rows[image]] = -1
        return self.images[np.argsort(distance, kind="stable")].tolist()  # type: ignore[no-any-return]

    def save(self, path: Path) -> None:
        """Write them to a file, as a whole."""
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None if there is nothing, or nothing of use."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = [arrays[name] for name in ("images", "proba", "embeddings")]
                return cls(*values, int(arrays["n_labeled"]), str(arrays["model"]))
        except (OSError, ValueError, KeyError, EOFError):
            return None


@dataclass(frozen=True)
class LearnerSetup:
    """What the learner needs of a project: its images, those of the test, and the settings."""

    root: Path
    files: Sequence[ImageFile]
    numbers: Mapping[str, int]
    config: RunConfig
    keep: Path | None
    of_test: Sequence[int]


@dataclass(frozen=True)
class BatchRequest:
    """One question: which `n` of the images `candidates` next, by the `labels` of images?

    Of the images of `reserve`, held out for the test, only the classes are asked for; `n_batches`
    have been handed out since the project was begun.
    """

    classes: Sequence[str]
    labels: Mapping[int, int]
    candidates: Sequence[int]
    reserve: Sequence[int]
    n: int
    n_batches: int = 0


@dataclass(frozen=True)
class Failure:
    """Why there is no `ComputedBatch`: a line of text, and for debugging, where it happened."""

    reason: str
    details: str = ""


@dataclass(frozen=True)
class ComputedBatch:
    """What became of a `BatchRequest`: the first choice stands first in `picks`.

    The `kind` is "strategy", or "start" for a batch chosen without a network, whose guesses are
    embeddings only; `unreadable` images cannot be decoded.
    """

    picks: list[int]
    kind: str
    guesses: Guesses
    unreadable: list[int]
    seconds: float
