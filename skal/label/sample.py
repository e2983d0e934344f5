"""The unbiased test sample: which images are held out for it, and what networks say of them.

A tenth of the pool, drawn at random, is held out: every tenth image that is shown comes from there,
in random order, and their labels train no network as long as labelling continues. Whichever
strategy picks the others, these are a uniform sample of the pool. What was once shown as one of
them stays one, whoever labels it again.
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
"""Of the images that are shown, and of the pool that they are drawn from."""
MOST_POINTS = 40
"""Of a learning curve, so that it stays readable after hundreds of networks."""

ENOUGH, PLENTY = 10, 30
"""Answers of the test sample from which on an accuracy is stated, and before its interval."""


class Accuracy(NamedTuple):
    """A share of images classified right, with its 95 % interval (Wilson, 1927)."""

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
        sample = f"{counted(self.n, 'image')} drawn at random and kept out of training"
        if self.n < ENOUGH:
            return f"too early to say: there are answers to {sample}; {ENOUGH} are needed"
        if self.n < PLENTY:
            return (
                f"{self.low:.3f} to {self.high:.3f} at 95 % confidence, on {sample} "
                f"({self.value:.3f} of them right)"
            )
        return (
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f} at 95 % confidence, on {sample})"
        )


def draw_reserve(seed: str, paths: Mapping[int, str], pool: Container[int]) -> list[int]:
    """Draw the images of a pool that are held out for the test, in random order.

    Each is drawn by a hash of the seed and the path that it had when it got its number: so it is
    drawn or not whatever other images are there, or come later. Of a file all pages are, or none.
    """
    drawn, limit = [], int(TEST_SHARE * 2**64).to_bytes(8)
    for number in paths:
        path = paths[number]
        file, page = page_of(path)
        digest = _hash(seed, file)
        if digest < limit and number in pool:  # as numbers, the first 8 bytes
            order = digest if page is None else _hash(seed, path)
            drawn.append((order[8:], number))
    return [number for _, number in sorted(drawn)]


def _hash(seed: str, path: str) -> bytes:
    return hashlib.sha256(f"{seed} {path}".encode(errors="surrogateescape")).digest()


def model_row(batch: ComputedBatch, reserve: Sequence[int]) -> ModelRow:
    """Return what the network behind a batch says of the images held out for the test."""
    guesses = batch.guesses
    kept = [image for image in reserve if image in guesses.rows]
    columns = guesses.proba[[guesses.rows[image] for image in kept]].argmax(1)
    numbers = guesses.classes or range(guesses.proba.shape[1])
    predicted = np.array(numbers, dtype=np.int64)[columns]
    images = np.array(kept, dtype=np.int64)
    return ModelRow(guesses.n_labeled, batch.seconds, images.tobytes(), predicted.tobytes())


class TestedModel:
    """A network's answers on the images held out for the test.

    `ids` has the class of each number that was predicted; others are of no class.
    """

    def __init__(self, row: ModelRow, ids: Mapping[int, int]) -> None:
        self.n_labeled = row.n_labeled
        images, numbers = (np.frombuffer(x, np.int64).tolist() for x in (row.images, row.predicted))
        predicted = (ids.get(number, -1) for number in numbers)
        self._predicted = dict(zip(images, predicted, strict=True))

    def is_wrong(self, labels: Mapping[int, int]) -> NDArray[np.bool_]:
        """Tell by the labels of images whether it is wrong; so it is where it said nothing."""
        said = (self._predicted.get(image, -1) != label for image, label in labels.items())
        return np.fromiter(said, bool, len(labels))

    def knows(self, image: int) -> bool:
        return image in self._predicted

    def accuracy(self, labels: Mapping[int, int]) -> Accuracy | None:
        """Return how often it is right by the labels of some of these images; None without any."""
        known = [(self._predicted[i], label) for i, label in labels.items() if i in self._predicted]
        right = sum(predicted == label for predicted, label in known)
        return Accuracy.of(right, len(known)) if known else None


@dataclass
class History:
    """The networks of a project, oldest first, and how good they are on the test sample."""

    models: list[TestedModel]
    _curve: tuple[object, list[tuple[int, Accuracy]]] = field(default=(None, []))

    @property
    def last(self) -> TestedModel | None:
        return self.models[-1] if self.models else None

    def curve(self, labels: Mapping[int, int]) -> list[tuple[int, Accuracy]]:
        """Return the accuracy of the networks by how many labels they were trained on.

        Of many networks the first, the last, and some in between. All are compared by the same
        labels, those of today; it is computed once for the same object of labels.
        """
        state = (len(self.models), labels)
        if self._curve[0] != state:
            points = ((model.n_labeled, model.accuracy(labels)) for model in self._chosen())
            self._curve = (state, [(n, found) for n, found in points if found is not None])
        return self._curve[1]

    def wrong(self, labels: Mapping[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return on how many labels each network of the curve was trained, and on which images that
        all of them know it is wrong: a row a network.
        """
        chosen = self._chosen()
        known = {n: y for n, y in labels.items() if all(model.knows(n) for model in chosen)}
        rows = [model.is_wrong(known) for model in chosen]
        n_labeled = np.array([model.n_labeled for model in chosen], dtype=np.int64)
        return n_labeled, np.array(rows, dtype=bool).reshape(len(chosen), len(known))

    def _chosen(self) -> list[TestedModel]:
        # trained again on as many labels, after a start or an undo, the later one counts
        latest = {model.n_labeled: model for model in self.models}
        indices = np.linspace(0, len(latest) - 1, min(MOST_POINTS, len(latest))).round()
        return [latest[sorted(latest)[int(index)]] for index in indices]
