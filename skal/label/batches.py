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
    """What a network says of the images.

    Parameters
    ----------
    images : ndarray of int64, shape (n,)
        Numbers of images.
    proba : ndarray of float32, shape (n, n_classes)
        Class probabilities; of no columns while there is no network.
    embeddings : ndarray of float32, shape (n, n_features)
        What images are alike by.
    n_labeled : int
        How many labels the network was trained on.
    model : str
        The network's name.
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
        """Whether there are probabilities."""
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
        """Return the probabilities of an image, if they are known."""
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
                return cls(
                    arrays["images"],
                    arrays["proba"],
                    arrays["embeddings"],
                    int(arrays["n_labeled"]),
                    str(arrays["model"]),
                )
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
    """One question: which images next?

    Parameters
    ----------
    classes : sequence of str
        Names of the classes.
    labels : mapping of int to int
        Labels to train on, by image.
    candidates : sequence of int
        The images that may be picked.
    reserve : sequence of int
        The images held out for the test: the network is asked for their classes only.
    n : int
        How many picks.
    n_batches : int
        How many batches have been handed out before, since the project was begun.
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
    """What became of a `BatchRequest`.

    Parameters
    ----------
    picks : list of int
        Images, the first choice first.
    kind : str
        "strategy", or "start" for a batch chosen without a network.
    guesses : Guesses
        What the network says, or embeddings only.
    unreadable : list of int
        Images that cannot be decoded.
    seconds : float
        What it took.
    """

    picks: list[int]
    kind: str
    guesses: Guesses
    unreadable: list[int]
    seconds: float
