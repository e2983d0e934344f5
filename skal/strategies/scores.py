"""Scores of a pool from one pass, and the classifier that passes them to scikit-activeml."""

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
"""Images per device; with fewer, copying the network costs more than another GPU saves."""
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
    """The network's outputs for every image of a pool.

    Parameters
    ----------
    classes : ndarray, shape (n_classes,)
        Class labels of the columns.
    proba : ndarray of float32, shape (n, n_classes)
        Class probabilities.
    embeddings : ndarray of float32, shape (n, n_features), optional
        Inputs of the last layer.
    mc_proba : ndarray of float32, shape (n_samples, n, n_classes), optional
        Class probabilities of Monte-Carlo dropout samples, or of a committee's members.
    head : callable, optional
        Maps embeddings (m, n_features) to class probabilities (m, n_classes).
    gradient_length : ndarray of float32, shape (n,), optional
        Expected gradient length over all weights; see `ImageClassifier.expected_gradient_length`.
    labeled : Labeled, optional
        The labelled images, for strategies that read them.
    device : str, default="cpu"
        Device of the network, which strategies may use.
    place : Place, optional
        Positions of these and the labelled images in the pool, see `placed`; not copied.
    memo : dict
        Cache of values computed from the embeddings; not copied.
    """

    classes: NDArray[Any]
    proba: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None
    mc_proba: NDArray[np.float32] | None = None
    head: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
    gradient_length: NDArray[np.float32] | None = None
    labeled: Labeled | None = None
    device: str = "cpu"
    # init=False: `replace` must not copy these to scores with other embeddings
    place: Place | None = field(default=None, init=False)
    memo: dict[Any, Any] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.proba)

    def unit_points(self, width: int) -> NDArray[np.float32]:
        """Return the embeddings at unit length, centred, and, if wider than `width`, reduced to
        that many leading principal directions; cached.
        """
        assert self.embeddings is not None
        if width not in self.memo:
            shift = Shift(self.embeddings, unit_length=True, width=width)
            self.memo[width] = shift(self.embeddings)
        points: NDArray[np.float32] = self.memo[width]
        return points

    def take(self, rows: NDArray[np.int64]) -> Scores:
        """Return the scores of some images."""
        parts: dict[str, Any] = {
            "proba": self.proba[rows],
            "embeddings": None if self.embeddings is None else self.embeddings[rows],
            "mc_proba": None if self.mc_proba is None else self.mc_proba[:, rows],
            "gradient_length": None if self.gradient_length is None else self.gradient_length[rows],
        }
        return replace(self, **parts)

    def placed(self, place: Place) -> Scores:
        """Return the same scores with the positions of their images."""
        return self._with("place", place)

    def remembering(self, memo: dict[Any, Any]) -> Scores:
        """Return the same scores with the cache of earlier scores with equal embeddings."""
        return self._with("memo", memo)

    def _with(self, name: str, value: Any) -> Scores:
        copy = replace(self)
        object.__setattr__(copy, name, value)  # a field that `replace` does not take
        return copy


class Place(NamedTuple):
    """Positions in the pool of images, `rows`, and of labelled images, `known`; and `whole`, the
    scores of the whole pool if available.
    """

    rows: NDArray[np.int64]
    known: NDArray[np.int64]
    whole: Scores | None = None


@dataclass(frozen=True)
class ScoreRequest:
    """What to compute for images in addition to class probabilities.

    The `n_samples` dropout samples are computed from the embeddings on, so that all cost little
    more than one; a fitted `committee` replaces them by its members' probabilities.
    `gradient_length` costs one backward pass per class.
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
    """Score all images, or those of `rows`, in one streaming pass.

    `X` is uint8 of shape (n_pool, channels, height, width); a memmap may be larger than memory, and
    is read once, in order. `random_state` seeds the dropout masks.
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
        # the same seed on each device, so that all images share the dropout masks
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
    # show the bar only if scoring is slow
    with progress(total=n, desc="scoring", delay=SLOW_SECONDS) as bar:
        if len(parts) == 1:
            score(parts[0])
        else:
            with ThreadPoolExecutor(len(parts)) as threads:
                list(threads.map(score, parts))
    return kept


class DevicePart(NamedTuple):
    """One device's share of the images: rows (None for all), and where their results start."""

    classifier: ImageClassifier
    rows: NDArray[np.int64] | None
    start: int = 0


def parts_by_device(
    classifier: ImageClassifier,
    n: int,
    rows: NDArray[np.int64] | None = None,
    devices: Sequence[str] | None = None,
) -> list[DevicePart]:
    """Split n images, all or those of `rows`, into consecutive parts, one per device.

    By default all GPUs are used if the classifier is on one and each gets enough images, otherwise
    only the classifier's device. All but the first get a copy of the classifier.
    """
    if not hasattr(classifier, "neural_net_"):
        return [DevicePart(classifier, rows)]  # scoring raises NotFittedError
    if devices is None:
        devices = _devices(str(classifier.neural_net_.device), n)
    if len(devices) < 2:
        return [DevicePart(classifier, rows)]
    parts = np.array_split(np.arange(n) if rows is None else rows, len(devices))
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    copies = [classifier, *map(classifier.replica, devices[1:])]
    return [DevicePart(*part) for part in zip(copies, parts, starts, strict=False)]


def least_for_all_devices(classifier: ImageClassifier) -> int:
    """Return the least number of images for which all GPUs are used; 1 without several GPUs."""
    devices = _devices(str(classifier.neural_net_.device), sys.maxsize)
    return LEAST_PER_DEVICE * len(devices) if len(devices) > 1 else 1


def _devices(device: str, n: int) -> list[str]:
    if not device.startswith("cuda"):
        return [device]
    most = min(torch.cuda.device_count(), n // LEAST_PER_DEVICE)
    return [f"cuda:{number}" for number in range(most)] if most > 1 else [device]


def _parts(X: Images, rows: NDArray[np.int64] | None) -> Iterator[Images]:
    """Yield all images at once, or those of `rows` in parts, since indexing copies them."""
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
    """Return made-up scores from a random linear head; with `ties`, all images are equal."""
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
    """A fitted classifier that answers from precomputed scores.

    Its `X` is a column of row numbers, shape (n, 1): with ``X = arange(n)[:, None]`` a strategy
    never copies pixels.
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
        """Raise ParameterError; query the strategy with ``fit_clf=False``."""
        raise ParameterError(
            "a ScoredClassifier cannot be fitted; pass fit_clf=False (or fit_estimator, "
            "fit_ensemble) to the strategy"
        )

    def predict_proba(
        self, X: NDArray[np.int64], extra_outputs: str | Sequence[str] | None = None
    ) -> Any:
        """Return float32 probabilities, shape (n, n_classes).

        With `extra_outputs`, "emb", "logits" or a sequence of these, return a tuple with them.
        """
        proba, embeddings = self._look_up(X)
        if extra_outputs is None:
            return proba
        names = [extra_outputs] if isinstance(extra_outputs, str) else list(extra_outputs)
        # logits up to a constant per row, to which softmax is invariant
        extras = {"emb": embeddings, "logits": np.log(np.maximum(proba, _TINY))}
        for name in names:
            if extras.get(name) is None:
                raise ParameterError(f"the scores have no output {name!r}")
        return proba, *(extras[name] for name in names)

    def predict(
        self, X: NDArray[np.int64], extra_outputs: str | Sequence[str] | None = None
    ) -> Any:
        return best_labels(self, self.predict_proba(X, extra_outputs=extra_outputs))

    def sample_proba(
        self, X: NDArray[np.int64], n_samples: int | None = None
    ) -> NDArray[np.float32]:
        """Return samples, (n_samples, n, n_classes), by default all; ParameterError if too few."""
        samples = self.scores.mc_proba
        n_stored = 0 if samples is None else len(samples)
        if samples is None or (n_samples or 0) > n_stored:
            asked = "" if n_samples is None else f"{n_samples} "
            raise ParameterError(f"asked for {asked}samples; the scores have {n_stored}")
        return samples[:n_samples, rows_of(X)]

    def expected_gradient_length(self, X: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return gradient lengths, float32 of shape (n,); ParameterError if there are none."""
        if self.scores.gradient_length is None:
            raise ParameterError("the scores have no gradient lengths")
        return self.scores.gradient_length[rows_of(X)]

    def _look_up(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        rows, embeddings = rows_of(X), self.scores.embeddings
        return self.scores.proba[rows], None if embeddings is None else embeddings[rows]


class HeadClassifier(ScoredClassifier):
    """The network's head as a fitted classifier on embeddings, shape (n, n_features)."""

    def _look_up(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        embeddings = np.asarray(X, np.float32)
        assert self.scores.head is not None
        return self.scores.head(embeddings), embeddings


def rows_of(X: Any) -> NDArray[np.int64]:
    """Return the row numbers in the `X` of a `ScoredClassifier`, shape (n,)."""
    return np.asarray(X)[:, 0].astype(np.int64)
