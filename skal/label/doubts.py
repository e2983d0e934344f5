"""Doubtful labels by confident learning, with a cross-validation over the labels.

C. Northcutt, L. Jiang, I. Chuang. Confident Learning: Estimating Uncertainty in Dataset Labels.
JAIR 70, 2021.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.progress import progress
from ..core.text import counted
from ..datasets.formats import page_of
from .learning import BatchRequest, Pickers

if TYPE_CHECKING:
    from .picking import Picker, Trained
    from .project import LabelProject

LEAST = 0.02
"""The minimum weight of a label."""

_log = logging.getLogger("skal")


class Doubt(NamedTuple):
    """A label and the out-of-fold prediction, as class ids with their probabilities.

    It is `contradicted` if the network is as confident in the other class as it is on average for
    images with that label.
    """

    image: int
    label: int
    guess: int
    label_probability: float
    guess_probability: float
    contradicted: bool


@dataclass(frozen=True)
class Doubts:
    """The labels `y`, int64, of the images with the numbers `images`, int64, and out-of-fold class
    probabilities `proba`, float32, shape (n, n_classes).
    """

    images: NDArray[np.int64]
    y: NDArray[np.int64]
    proba: NDArray[np.float32]

    @cached_property
    def contradicted(self) -> NDArray[np.bool_]:
        return contradicted(self.proba, self.y)

    @cached_property
    def ranked(self) -> list[Doubt]:
        """All labels, the least probable first."""
        of_label = self.proba[np.arange(len(self.y)), self.y]
        columns = (self.images, self.y, self.proba.argmax(1), of_label, self.proba.max(1))
        rows = zip(*(column.tolist() for column in (*columns, self.contradicted)), strict=True)
        return sorted((Doubt(*row) for row in rows), key=lambda d: (d.label_probability, d.image))


def contradicted(proba: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which labels are off the diagonal of the confident joint.

    An image is counted in the most probable class among those whose probability reaches the mean
    over the images with that label. Images without such a class are not contradicted.

    Parameters
    ----------
    proba : ndarray of float, shape (n, n_classes)
        Out-of-fold class probabilities.
    y : ndarray of int64, shape (n,)
        The labels, columns of `proba`.
    """
    n_classes = proba.shape[1]
    of_class = [proba[y == k, k] for k in range(n_classes)]
    thresholds = np.array([part.mean(dtype=np.float64) if len(part) else 2 for part in of_class])
    reached = np.where(proba >= thresholds - 1e-6, proba, -1)  # tolerance for rounded means
    likely = reached.argmax(1)
    result: NDArray[np.bool_] = (reached.max(1) >= 0) & (likely != y) & (proba.argmax(1) != y)
    return result


def folds(
    labels: Mapping[int, int], seed: int, paths: Mapping[int, str] | None = None
) -> list[list[int]]:
    """Divide images into at most five stratified folds; none if one would leave a single class.

    Given the `paths` of images, pages of a file stay together. The order of `labels` is irrelevant.
    """
    from ..models.folds import stratified_folds  # imports scikit-learn

    images = np.array(sorted(labels), dtype=np.int64)
    y = np.array([labels[image] for image in images.tolist()], dtype=np.int64)
    names = [page_of((paths or {}).get(image, str(image)))[0] for image in images.tolist()]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    files = np.array([known[name] for name in names], dtype=np.int64)
    counts = sorted(len(np.unique(files[y == label])) for label in np.unique(y))
    if len(counts) < 2 or counts[-2] < 2:
        return []
    parts = stratified_folds(y, seed, files if len(known) < len(y) else None)
    if any(len(np.unique(np.delete(y, test))) < 2 for test in parts):
        return []
    return [images[test].tolist() for test in parts]


def held_out(
    picker: Picker, classes: Sequence[str], labels: Mapping[int, int], parts: Sequence[list[int]]
) -> Iterator[tuple[Trained, list[int]]]:
    """Yield, for each part, a network trained on the labels of all other images, and the part."""
    for part in progress(parts, desc="cross-validation", unit="network"):
        known = {image: labels[image] for image in labels.keys() - set(part)}
        yield picker.train(BatchRequest(classes, known, (), 0)), part


def weights_by(y: NDArray[np.int64], proba: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return label weights, at most 1: the label's probability relative to the mean of its class.

    The division keeps rare classes from weighing less.
    """
    own = proba[np.arange(len(y)), y].astype(np.float64)
    means = np.bincount(y, own) / np.maximum(np.bincount(y), 1)
    return np.clip(own / np.maximum(means[y], np.finfo(np.float64).tiny), LEAST, 1)


def find_doubts(classes: Sequence[str], labels: Mapping[int, int], pickers: Pickers) -> Doubts:
    """Return the labels with out-of-fold predictions; a DataError if there are too few labels.

    Solved heads, which take moments, are fitted a second time with `weights_by`, so that wrong
    labels mislead less.
    """
    picker = pickers.of_today()
    parts = folds(labels, picker.setup.config.seed, picker.setup.paths)
    if not parts:
        raise DataError(
            "doubtful labels need at least two classes with two labels each; label more images"
        )
    found, solved = dict[int, NDArray[np.float32]](), []
    for network, part in held_out(picker, classes, labels, parts):
        found.update(picker.proba(network, part))
        if network.classifier.is_solved:
            solved.append((network, part))
    once = _doubts(found, labels)
    if not solved:
        return once
    weights = dict(zip(once.images.tolist(), weights_by(once.y, once.proba).tolist(), strict=True))
    for network, part in solved:
        found.update(picker.proba(picker.weighted(network, weights), part))
    return _doubts(found, labels)


def _doubts(found: Mapping[int, NDArray[np.float32]], labels: Mapping[int, int]) -> Doubts:
    images = sorted(found)
    return Doubts(
        np.array(images, dtype=np.int64),
        np.array([labels[image] for image in images], dtype=np.int64),
        np.array([found[image] for image in images], dtype=np.float32),
    )


def doubts_of(project: LabelProject) -> Doubts:
    """Return the doubts about all labels of a project; see `find_doubts`."""
    _log.info("cross-validation over %s", counted(len(project.labels), "label"))
    return find_doubts(project.classes, project.labels, Pickers(project.learner_setup()))
