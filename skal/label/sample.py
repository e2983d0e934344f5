"""The unbiased test set: which images are held out, and the accuracy of networks on them.

A random tenth of the pool is held out: every tenth image shown comes from it, in random order, and
its labels train no network while labelling continues. They are thus a uniform sample of the pool,
whatever strategy picks the others. An image once shown as a test image remains one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..core.text import counted
from ..datasets.formats import page_of
from .learning import ComputedBatch
from .store import ModelRow

TEST_SHARE = 0.1
"""Share of test images, both of the pool and of the images shown."""
MOST_POINTS = 40
"""Points of a learning curve, so that it stays readable after hundreds of networks."""

ENOUGH, PLENTY = 10, 30
"""Test answers needed to report an accuracy, and to report it before its interval."""


class Accuracy(NamedTuple):
    """An accuracy with its 95 % interval (Wilson, 1927), on `n` images."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, n_right: float, n: int) -> Self:
        z = NormalDist().inv_cdf(0.975)
        value, spread = n_right / n, z * z / n
        middle = (value + spread / 2) / (1 + spread)
        half = math.sqrt(value * (1 - value) * spread + spread * spread / 4) / (1 + spread)
        return cls(value, max(0.0, middle - half), min(1.0, middle + half), n)

    def __str__(self) -> str:
        sample = counted(self.n, "randomly drawn test image")
        if self.n < ENOUGH:
            return f"too early to say: {sample} labelled, {ENOUGH} needed"
        if self.n < PLENTY:
            return (
                f"{self.low:.3f} to {self.high:.3f} at 95 % confidence, on {sample} "
                f"({self.value:.3f} of them correct)"
            )
        return (
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f} at 95 % confidence, on {sample})"
        )


def draw_reserve(seed: str, paths: Mapping[int, str], pool: Container[int]) -> list[int]:
    """Draw the images of a pool that are held out for the test set, in random order.

    The draw uses a hash of the seed and the image's first path, so it does not depend on other or
    later images. The pages of a file are drawn together.
    """
    drawn, limit = [], int(TEST_SHARE * 2**64).to_bytes(8)
    for number in paths:
        path = paths[number]
        file, page = page_of(path)
        digest = _hash(seed, file)
        if digest < limit and number in pool:  # compares the first 8 bytes as numbers
            order = digest if page is None else _hash(seed, path)
            drawn.append((order[8:], number))
    return [number for _, number in sorted(drawn)]


def _hash(seed: str, path: str) -> bytes:
    return hashlib.sha256(f"{seed} {path}".encode(errors="surrogateescape")).digest()


def model_row(batch: ComputedBatch, reserve: Sequence[int]) -> ModelRow:
    """Return the predictions for the test images by the network behind a batch."""
    guesses = batch.guesses
    kept = [image for image in reserve if image in guesses.rows]
    columns = guesses.proba[[guesses.rows[image] for image in kept]].argmax(1)
    numbers = guesses.classes or range(guesses.proba.shape[1])
    predicted = np.array(numbers, dtype=np.int64)[columns]
    images = np.array(kept, dtype=np.int64)
    return ModelRow(guesses.n_labeled, batch.seconds, images.tobytes(), predicted.tobytes())


class TestedModel:
    """A network's predictions for the test images; `ids` has the class ids of predicted numbers."""

    def __init__(self, row: ModelRow, ids: Mapping[int, int]) -> None:
        self.n_labeled = row.n_labeled
        images, numbers = (np.frombuffer(x, np.int64).tolist() for x in (row.images, row.predicted))
        predicted = (ids.get(number, -1) for number in numbers)
        self._predicted = dict(zip(images, predicted, strict=True))

    def is_wrong(self, labels: Mapping[int, int]) -> NDArray[np.bool_]:
        """Return whether the network is wrong on each image; a missing prediction is wrong."""
        said = (self._predicted.get(image, -1) != label for image, label in labels.items())
        return np.fromiter(said, bool, len(labels))

    def knows(self, image: int) -> bool:
        return image in self._predicted

    def accuracy(self, labels: Mapping[int, int]) -> Accuracy | None:
        """Return the accuracy on the labelled images with a prediction; None without any."""
        known = [(self._predicted[i], label) for i, label in labels.items() if i in self._predicted]
        right = sum(predicted == label for predicted, label in known)
        return Accuracy.of(right, len(known)) if known else None


@dataclass
class History:
    """The networks of a project, oldest first, and their accuracy on the test set."""

    models: list[TestedModel]
    _curve: tuple[object, list[tuple[int, Accuracy]]] = field(default=(None, []))

    @property
    def last(self) -> TestedModel | None:
        return self.models[-1] if self.models else None

    def curve(self, labels: Mapping[int, int]) -> list[tuple[int, Accuracy]]:
        """Return the accuracy of the networks by the number of labels they were trained on.

        Of many networks, it has the first, the last and some in between. All are measured on the
        same current labels. The result is cached for the same `labels` object.
        """
        state = (len(self.models), labels)
        if self._curve[0] != state:
            points = ((model.n_labeled, model.accuracy(labels)) for model in self._chosen())
            self._curve = (state, [(n, found) for n, found in points if found is not None])
        return self._curve[1]

    def wrong(self, labels: Mapping[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the number of labels of each network of the curve, int64, and its errors.

        Errors are bool, shape (n_networks, n_images), on the images that all networks predicted.
        """
        chosen = self._chosen()
        known = {n: y for n, y in labels.items() if all(model.knows(n) for model in chosen)}
        rows = [model.is_wrong(known) for model in chosen]
        n_labeled = np.array([model.n_labeled for model in chosen], dtype=np.int64)
        return n_labeled, np.array(rows, dtype=bool).reshape(len(chosen), len(known))

    def _chosen(self) -> list[TestedModel]:
        # of networks with equally many labels, after a restart or undo, the latest counts
        latest = {model.n_labeled: model for model in self.models}
        indices = np.linspace(0, len(latest) - 1, min(MOST_POINTS, len(latest))).round()
        return [latest[sorted(latest)[int(index)]] for index in indices]
