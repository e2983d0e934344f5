"""Picking the next images: `ActiveLearner` for images that people label. It imports torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from ..core.errors import DataError, SkalError
from ..core.seeding import derive_seed
from ..datasets import ImageDataset, data_folder
from ..datasets.base import MISSING_LABEL, Labels
from ..datasets.folder import DECODING
from ..datasets.pixel_cache import decode_all
from ..datasets.rows import take_rows
from ..models.calibration import calibrate
from ..models.classifier import ImageClassifier
from ..models.self_supervision import Weights
from ..runs.active_learner import ActiveLearner
from ..runs.config import RunConfig
from ..runs.evaluation import network_inputs
from ..runs.plan import make_classifier
from ..runs.preparation import check_settings, resolve_settings
from ..runs.pretraining import weights_from_pool
from ..runs.start import decoding_for, input_size
from ..strategies.cold_start import start_embeddings
from ..strategies.scores import ScoreRequest, score_pool
from .checks import check_trainable
from .layout import Layout, by_tsne
from .learning import BatchRequest, ComputedBatch, Guesses, LearnerSetup

LIKENESS_FEATURES = 32
NO_CLASSES = ("a", "b")
"""Placeholder classes for untrained networks, whose classes do not matter."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with its settings and training data."""

    classifier: ImageClassifier
    config: RunConfig
    data: ImageDataset
    X: NDArray[Any]
    y: Labels


class Picker:
    """Answers the requests of one project; decodes its images when created, unless cached.

    Raise a SkalError if no image can be read, or a setting is not valid.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        check_settings(setup.config)
        size = input_size(setup.config, setup.root) or DECODING.size
        how = replace(decoding_for(setup.config), size=size)
        # the same files as in `skal run`, so that both share the cache
        files = [file for file in setup.files if file.is_of_use]
        cache = data_folder(setup.config.data_dir) / "cache"
        self._pixels, kept, skipped, self._how = decode_all(setup.root, files, how, cache)
        if not kept:
            raise DataError(f"cannot read any image under {str(setup.root)!r} ({skipped[0][1]})")
        self.setup = setup
        self.cache = Path(str(self._pixels.filename)).parent  # type: ignore[attr-defined]
        self._paths = tuple(file.path for file in kept)
        # images that take no part have no number
        numbers = setup.paths.numbers()
        self._numbers = np.array([numbers.get(path, -1) for path in self._paths])
        self._rows = {n: row for row, n in enumerate(self._numbers.tolist()) if n >= 0}
        self._learners: dict[tuple[str, ...], ActiveLearner] = {}
        self._shortened: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None
        self.unreadable = [numbers[path] for path, _ in skipped if path in numbers]

    def answer(self, request: BatchRequest) -> ComputedBatch:
        """Pick the next images.

        Until two classes have a label, no network can be trained, and the batch is a diverse one.
        Training and picks depend only on the labels and the number of batches.
        """
        started = time.perf_counter()
        learner = self._learner(request)
        n = min(request.n, len(learner.pool.unlabeled))
        picks: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        if len(set(request.labels.values())) < 2:
            picks = learner.cold_start(n) if n else picks
            guesses, kind = self._start_guesses, "start"
        else:
            picks = learner.query(n, embeddings=True) if n else picks
            guesses, kind = self._guesses(learner, request), "strategy"
        numbers = self._numbers[picks].tolist()
        seconds = round(time.perf_counter() - started, 3)
        return ComputedBatch(numbers, kind, guesses, self.unreadable, seconds)

    def train(self, request: BatchRequest, *, calibrated: bool = False) -> Trained:
        """Train a network on the labels of a request; raise a DataError without two classes."""
        check_trainable(request.labels)
        learner = self._learner(request)
        config, pool, classifier = learner.config, learner.pool, learner.classifier
        if calibrated:
            seed = derive_seed(config.seed, "calibration", len(request.labels))
            calibrate(classifier, pool.X, pool.y, seed=seed, rows=pool.in_play)
        backbone = network_inputs(config, classifier, self._pixels, self._pixels[:0]).backbone
        if backbone is not None:
            classifier.take_backbone(backbone)
        return Trained(classifier, config, learner.data, pool.X, pool.y)

    def weighted(self, trained: Trained, weights: Mapping[int, float]) -> Trained:
        """Return a network whose head is fitted again with label weights (by default 1)."""
        sample_weight = np.ones(len(trained.y))
        for number, weight in weights.items():
            sample_weight[self._rows[number]] = weight
        classifier = trained.classifier.variant()
        classifier.fit(trained.X, trained.y, sample_weight)
        return replace(trained, classifier=classifier)

    def proba(self, trained: Trained, images: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return the class probabilities of images; those that cannot be read are left out."""
        rows = self._rows_of(images)
        if not len(rows):
            return {}
        proba = score_pool(trained.classifier, trained.X, rows=rows).proba
        return dict(zip(self._numbers[rows].tolist(), proba, strict=True))

    def _learner(self, request: BatchRequest) -> ActiveLearner:
        """Return the learner with the labels and candidates of a request."""
        classes = tuple(request.classes) or NO_CLASSES
        learner = self._learners.get(classes) or self._new_learner(classes)
        self._learners = {classes: learner}
        y: Labels = np.full(len(self._pixels), MISSING_LABEL, dtype=np.int64)
        for number, label in request.labels.items():
            if number in self._rows:
                y[self._rows[number]] = label
        learner.restore(y, request.n_batches)
        candidates = self._rows_of(request.candidates)
        free = np.union1d(candidates, np.flatnonzero(y != MISSING_LABEL))
        everything = np.arange(len(y))
        excluded = np.setdiff1d(everything, np.union1d(self._rows_not_of_test, candidates))
        learner.pool.restrict(excluded=excluded, withheld=np.setdiff1d(everything, free))
        return learner

    def _new_learner(self, classes: tuple[str, ...]) -> ActiveLearner:
        data, config = self._dataset(classes), self.setup.config
        resolved = resolve_settings(config, data)
        classifier = make_classifier(resolved, data)
        if self._weights is not None:
            classifier = classifier.variant(pretrained=False, weights=self._weights)
        names = ("init_strategy", "seed", "data_dir", "explore", "max_candidates")
        given = {name: value for name in names if (value := getattr(config, name)) is not None}
        return ActiveLearner(
            data, classifier, config.strategy, strategy_params=config.strategy_params, **given
        )

    def _guesses(self, learner: ActiveLearner, request: BatchRequest) -> Guesses:
        """Return the predictions for all images, reusing the scores of the last query."""
        choice, shown = learner.choice, learner.pool.shown
        everything, wanted = np.arange(len(self._pixels)), np.flatnonzero(self._numbers >= 0)
        if choice is None or choice.scores is None:
            scores, rows, shown = self._score(learner, wanted), wanted, wanted
        else:
            scores, rows = choice.scores, everything if choice.rows is None else choice.rows
        missing = np.setdiff1d(wanted, np.union1d(rows, everything if shown is None else shown))
        proba, embeddings = scores.proba, scores.embeddings
        assert embeddings is not None
        if len(missing):
            more = self._score(learner, missing)
            assert more.embeddings is not None
            proba = np.concatenate([proba, more.proba])
            embeddings = np.concatenate([embeddings, more.embeddings])
            rows = np.concatenate([rows, missing])
        if not np.isfinite(proba).all():
            raise SkalError("the training diverged; a lower --lr may help")
        order = np.argsort(rows)
        order = order[np.isin(rows[order], wanted)]
        return Guesses(
            self._numbers[rows[order]],
            proba[order],
            self._fewer_features(learner.classifier, rows[order], embeddings[order]),
            len(request.labels),
            str(learner.config.model),
            request.numbers,
        )

    def _fewer_features(
        self, classifier: ImageClassifier, rows: NDArray[np.int64], embeddings: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return reduced embeddings; with a frozen backbone, reuse those of the same images."""
        if classifier.strength is None:
            return _fewer_features(embeddings)
        if self._shortened is None or not np.array_equal(self._shortened[0], rows):
            self._shortened = rows, _fewer_features(embeddings)
        return self._shortened[1]

    def _score(self, learner: ActiveLearner, rows: NDArray[np.int64]) -> Any:
        request = ScoreRequest(embeddings=True)
        return score_pool(learner.classifier, learner.pool.X, request, rows=rows)

    def _rows_of(self, images: Sequence[int]) -> NDArray[np.int64]:
        return np.array([self._rows[n] for n in images if n in self._rows], dtype=np.int64)

    def _dataset(self, classes: Sequence[str]) -> ImageDataset:
        setup = self.setup
        folder = data_folder(setup.config.data_dir).resolve()
        return ImageDataset(
            X=self._pixels,
            y=np.full(len(self._pixels), MISSING_LABEL, dtype=np.int64),
            classes=tuple(classes),
            name=setup.root.name,
            paths=self._paths,
            root=setup.root,
            augmentation=("flip", "shift"),
            source={"dataset": str(setup.root), "data_dir": str(folder)},
            geometry=self._how.geometry,
            white=str(self._how.ranges),
            pages=self._how.pages,
        )

    @cached_property
    def _rows_not_of_test(self) -> NDArray[np.int64]:
        taking_part = (self._numbers >= 0) & ~np.isin(self._numbers, self.setup.of_test)
        return np.flatnonzero(taking_part)

    @cached_property
    def _weights(self) -> Weights | None:
        """Pretrained weights to start from, if requested; test images are not used."""
        data = self._dataset(NO_CLASSES)
        config = resolve_settings(self.setup.config, data)
        if config.pretrain == "none":
            return None
        rows = self._rows_not_of_test
        X = take_rows(data.X, rows)
        return weights_from_pool(config, replace(data, X=X, y=data.y[rows], paths=()))

    @cached_property
    def _start_guesses(self) -> Guesses:
        """Guesses with only embeddings, for use while there is no trained network."""
        images, embeddings = self._start_embeddings()
        nothing = np.empty((len(images), 0), np.float32)
        return Guesses(images, nothing, _fewer_features(embeddings))

    def _start_embeddings(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the images and their embeddings, which do not depend on labels."""
        learner = self._new_learner(NO_CLASSES)
        there = np.flatnonzero(self._numbers >= 0)
        embeddings, _ = start_embeddings(
            learner.pool.X, learner.template, derive_seed(learner.config.seed, "init"), there
        )
        return self._numbers[there], embeddings

    def layout(self) -> Layout:
        """Return the t-SNE layout of all images, which does not depend on labels."""
        images, embeddings = self._start_embeddings()
        cache = data_folder(self.setup.config.data_dir) / "cache"
        return Layout(images, by_tsne(embeddings, self.setup.config.seed, cache), "t-SNE")


def _fewer_features(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return embeddings reduced by PCA, to be sent and compared within milliseconds."""
    n, width = embeddings.shape
    if width <= LIKENESS_FEATURES or n <= LIKENESS_FEATURES:
        return embeddings
    reduced = PCA(LIKENESS_FEATURES, random_state=0, svd_solver="randomized")
    return reduced.fit_transform(embeddings).astype(np.float32)  # type: ignore[no-any-return]
