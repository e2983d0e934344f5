"""Scores of a pool from one pass, and the classifier that hands them to scikit-activeml."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from skactiveml.base import SkactivemlClassifier
from skactiveml.utils import ExtLabelEncoder

from ..core.errors import ParameterError
from ..core.progress import SLOW_SECONDS, progress
from ..datasets.base import MISSING_LABEL, Images
from ..models.classifier import ImageClassifier
from ..models.committee import Committee
from ..models.inference import best_labels
from .geometry import Shift

ROWS_AT_ONCE = 8192
LEAST_PER_DEVICE = 2000
"""Images; for fewer, copying the network would cost more than another GPU saves."""
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Labeled:
    """Labels of labelled images, shape (m,), and their embeddings, shape (m, n_features)."""

    y: NDArray[Any]
    embeddings: NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Scores:
    """What the network says of every image of a pool.

    Parameters
    ----------
    classes : ndarray, shape (n_classes,)
        What the columns stand for.
    proba : ndarray of float32, shape (n, n_classes)
        Class probabilities.
    embeddings : ndarray of float32, shape (n, n_features), optional
        Input of the network's head.
    mc_proba : ndarray of float32, shape (n_samples, n, n_classes), optional
        Class probabilities under Monte-Carlo dropout.
    head : callable, optional
        Embeddings (m, n_features) to class probabilities (m, n_classes).
    gradient_length : ndarray of float32, shape (n,), optional
        Expected length of the gradient of all weights; see
        `ImageClassifier.expected_gradient_length`.
    labeled : Labeled, optional
        What is labelled already, for strategies that read it.
    device : str, default="cpu"
        Where the network computes, and strategies may.
    place : Place, optional
        Where these images and the labelled ones are among all, see `placed`; copies have none.
    memo : dict
        What was found of the embeddings; copies have one of their own.
    """

    classes: NDArray[Any]
    proba: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None
    mc_proba: NDArray[np.float32] | None = None
    head: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
    gradient_length: NDArray[np.float32] | None = None
    labeled: Labeled | None = None
    device: str = "cpu"
    # not what a copy with other embeddings should have
    place: Place | None = field(default=None, init=False)
    memo: dict[Any, Any] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.proba)

    def unit_points(self, width: int) -> NDArray[np.float32]:
        """Return the embeddings at unit length, then centred, and, if wider than `width`, reduced
        to so many leading principal directions; found once.
        """
        assert self.embeddings is not None
        if width not in self.memo:
            shift = Shift(self.embeddings, unit_length=True, width=width)
            self.memo[width] = shift(self.embeddings)
        points: NDArray[np.float32] = self.memo[width]
        return points

    def take(self, rows: NDArray[np.int64]) -> Scores:
        """Return the scores of some images only."""
        parts: dict[str, Any] = {
            "proba": self.proba[rows],
            "embeddings": None if self.embeddings is None else self.embeddings[rows],
            "mc_proba": None if self.mc_proba is None else self.mc_proba[:, rows],
            "gradient_length": None if self.gradient_length is None else self.gradient_length[rows],
        }
        return replace(self, **parts)

    def placed(self, place: Place) -> Scores:
        """Return the same scores, of which it is known where their images are."""
        return self._noting("place", place)

    def remembering(self, memo: dict[Any, Any]) -> Scores:
        """Return the same scores with what was found of equal embeddings before."""
        return self._noting("memo", memo)

    def _noting(self, name: str, value: Any) -> Scores:
        found = replace(self)
        object.__setattr__(found, name, value)  # what `replace` may not carry along
        return found


class Place(NamedTuple):
    """Where images are among all, their `rows`, and where the labelled ones are, `known`; `whole`
    are the scores of all, if these are at hand.
    """

    rows: NDArray[np.int64]
    known: NDArray[np.int64]
    whole: Scores | None = None


@dataclass(frozen=True)
class ScoreRequest:
    """What to compute of images beside their class probabilities.

    The `n_samples` dropout samples are computed from the embeddings on, so all cost little more
    than one; a fitted `committee`'s probabilities take their place. `gradient_length` costs a
    backward pass a class.
    """

    embeddings: bool = False
    n_samples: int = 0
    gradient_length: bool = False
    committee: Committee | None = None


def score_pool(
    classifier: ImageClassifier,
    X: Images,
    request: ScoreRequest = ScoreRequest(),
    *,
    rows: NDArray[np.int64] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Scores:
    """Score images, all or those of `rows`, in one streaming pass.

    `X` is uint8 of shape (n_pool, channels, height, width); a memmap larger than memory is read
    once, in order. `random_state` seeds the dropout masks.
    """
    samples = 0 if request.committee else request.n_samples
    kept = _stream(classifier, X, replace(request, n_samples=samples), rows, random_state)
    if request.gradient_length:
        kept["gradient_length"] = np.concatenate(
            [classifier.expected_gradient_length(images) for images in _parts(X, rows)]
        )
    if request.committee is not None:
        members = [request.committee.sample_proba(images) for images in _parts(X, rows)]
        kept["mc_proba"] = np.concatenate(members, axis=1)
    device = str(classifier.neural_net_.device)
    return Scores(classes=classifier.classes_, head=classifier.head_proba, device=device, **kept)


def _stream(
    classifier: ImageClassifier,
    X: Images,
    request: ScoreRequest,
    rows: NDArray[np.int64] | None,
    random_state: int | np.random.RandomState | None,
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    n = len(X) if rows is None else len(rows)
    seed = classifier.mask_seed(random_state) if request.n_samples else None
    allocating = Lock()

    def score(part: DevicePart) -> None:
        start = part.start
        # the same seed on each device: the dropout samples are the same for all images
        for batch in part.classifier.iter_outputs(X, request.n_samples, seed, part.rows):
            wanted = {"proba": batch.proba, "mc_proba": batch.mc_proba}
            if request.embeddings:
                wanted["embeddings"] = batch.embeddings
            stop = start + len(batch.proba)
            for name, tensor in wanted.items():
                if tensor is None:
                    continue
                with allocating:
                    if name not in kept:
                        kept[name] = np.empty((*tensor.shape[:-2], n, tensor.shape[-1]), np.float32)
                kept[name][..., start:stop, :] = tensor.cpu().numpy()
            start = stop
            bar.update(len(batch.proba))

    parts = parts_by_device(classifier, n, rows)
    # the bar is only for long waits
    with progress(total=n, desc="scoring", delay=SLOW_SECONDS) as bar:
        if len(parts) == 1:
            score(parts[0])
        else:
            with ThreadPoolExecutor(len(parts)) as threads:
                list(threads.map(score, parts))
    return kept


class DevicePart(NamedTuple):
    """What one device scores: rows of the images (None for all), and their place in the result."""

    classifier: ImageClassifier
    rows: NDArray[np.int64] | None
    start: int = 0


def parts_by_device(
    classifier: ImageClassifier,
    n: int,
    rows: NDArray[np.int64] | None = None,
    devices: Sequence[str] | None = None,
) -> list[DevicePart]:
    """Share out n images to score, all or those of `rows`, in their order among devices.

    These are by default all GPUs, if the classifier is on one and each gets enough images, else
    only its own. All but the first get a copy of the classifier.
    """
    if not hasattr(classifier, "neural_net_"):
        return [DevicePart(classifier, rows)]  # which says so when it is asked
    if devices is None:
        devices = _devices(str(classifier.neural_net_.device), n)
    if len(devices) < 2:
        return [DevicePart(classifier, rows)]
    parts = np.array_split(np.arange(n) if rows is None else rows, len(devices))
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    copies = [classifier, *map(classifier.replica, devices[1:])]
    return [DevicePart(*part) for part in zip(copies, parts, starts, strict=False)]


def least_for_all_devices(classifier: ImageClassifier) -> int:
    """Return how many images it takes for all GPUs to score; 1 if there are not several."""
    devices = _devices(str(classifier.neural_net_.device), sys.maxsize)
    return LEAST_PER_DEVICE * len(devices) if len(devices) > 1 else 1


def _devices(device: str, n: int) -> list[str]:
    if not device.startswith("cuda"):
        return [device]
    most = min(torch.cuda.device_count(), n // LEAST_PER_DEVICE)
    return [f"cuda:{number}" for number in range(most)] if most > 1 else [device]


def _parts(X: Images, rows: NDArray[np.int64] | None) -> Iterator[Images]:
    """Yield the images; those of rows in parts, since they are copied."""
    if rows is None:
        yield X
        return
    for start in range(0, max(len(rows), 1), ROWS_AT_ONCE):
        yield X[rows[start : start + ROWS_AT_ONCE]]


def example_scores(
    ties: bool = False,
    *,
    n_images: int = 60,
    n_classes: int = 3,
    n_features: int = 8,
    n_samples: int = 20,
) -> Scores:
    """Make scores of no real images, by a random linear head; with ties, all are the same."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(n_features, n_classes))

    def head(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(softmax(embeddings @ weights, axis=-1), np.float32)

    embeddings = rng.normal(size=(n_images, n_features)).astype(np.float32)
    if ties:
        embeddings[:] = embeddings[0]
    masks = rng.random((n_samples, 1, n_features)) < 0.75
    samples = None
    if n_samples:
        samples = np.stack([head(embeddings * mask) for mask in masks])
    proba = head(embeddings)
    lengths = (1 - proba.max(axis=1)) * np.linalg.norm(embeddings, axis=1)
    return Scores(np.arange(n_classes), proba, embeddings, samples, head, lengths)


class ScoredClassifier(SkactivemlClassifier):
    """A fitted classifier that answers from scores computed before.

    Its `X` is a column of row numbers, shape (n, 1), so a strategy that is given
    ``X = arange(n)[:, None]`` never touches a pixel.
    """

    def __init__(self, scores: Scores, missing_label: int = MISSING_LABEL) -> None:
        super().__init__(classes=scores.classes, missing_label=missing_label, random_state=0)
        self.scores = scores
        self.classes_ = np.asarray(scores.classes)
        self.cost_matrix_ = 1 - np.eye(len(self.classes_))
        self._le = ExtLabelEncoder(classes=self.classes_, missing_label=missing_label)
        self._le.fit(self.classes_)
        self.random_state_ = np.random.RandomState(0)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Raise a ParameterError: ask the strategy with ``fit_clf=False``."""
        raise ParameterError(
            "a ScoredClassifier cannot be fitted; pass fit_clf=False (or fit_estimator, "
            "fit_ensemble) to the strategy"
        )

    def predict_proba(
        self, X: NDArray[np.int64], extra_outputs: str | Sequence[str] | None = None
    ) -> Any:
        """Return float32 probabilities, shape (n, n_classes).

        With `extra_outputs`, "emb", "logits" or several of them, a tuple of it and these.
        """
        proba, embeddings = self._look_up(X)
        if extra_outputs is None:
            return proba
        names = [extra_outputs] if isinstance(extra_outputs, str) else list(extra_outputs)
        # logits up to a constant of each row, which softmax does not see
        extras = {"emb": embeddings, "logits": np.log(np.maximum(proba, _TINY))}
        for name in names:
            if extras.get(name) is None:
                raise ParameterError(f"the scores hold no output {name!r}")
        return proba, *(extras[name] for name in names)

    def predict(
        self, X: NDArray[np.int64], extra_outputs: str | Sequence[str] | None = None
    ) -> Any:
        return best_labels(self, self.predict_proba(X, extra_outputs=extra_outputs))

    def sample_proba(
        self, X: NDArray[np.int64], n_samples: int | None = None
    ) -> NDArray[np.float32]:
        """Return (n_samples, n, n_classes), by default all; a ParameterError if there are fewer."""
        samples = self.scores.mc_proba
        there = 0 if samples is None else len(samples)
        if samples is None or (n_samples or 0) > there:
            asked = "" if n_samples is None else f"{n_samples} "
            raise ParameterError(f"asked for {asked}samples; the scores hold {there}")
        return samples[:n_samples, rows_of(X)]

    def expected_gradient_length(self, X: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 of shape (n,); a ParameterError if the scores hold none."""
        if self.scores.gradient_length is None:
            raise ParameterError("the scores hold no gradient lengths")
        return self.scores.gradient_length[rows_of(X)]

    def _look_up(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        rows, embeddings = rows_of(X), self.scores.embeddings
        return self.scores.proba[rows], None if embeddings is None else embeddings[rows]


class HeadClassifier(ScoredClassifier):
    """The network's head as a fitted classifier; its `X` is embeddings, shape (n, n_features)."""

    def _look_up(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        embeddings = np.asarray(X, np.float32)
        assert self.scores.head is not None
        return self.scores.head(embeddings), embeddings


def rows_of(X: Any) -> NDArray[np.int64]:
    """Return the rows of the scores that a `ScoredClassifier`'s samples stand for, shape (n,)."""
    return np.asarray(X)[:, 0].astype(np.int64)
