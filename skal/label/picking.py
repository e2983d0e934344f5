"""Which images next: train on the labels so far, score, ask the strategy. The part with torch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from ..core.errors import DataError, SkalError
from ..core.seeding import derive_seed
from ..core.settings import RunConfig, resolve_share
from ..datasets import ImageDataset, data_folder
from ..datasets.base import MISSING_LABEL, Labels, one_line, take_rows
from ..datasets.folder import DEFAULT_IMAGE_SIZE
from ..datasets.pixel_cache import decode_all
from ..models.calibration import calibrate
from ..models.classifier import ImageClassifier
from ..models.committee import Committee
from ..models.self_supervision import Weights
from ..runs.checks import check_network, check_settings, image_size_for, resolve_settings
from ..runs.experiment import make_classifier, network_inputs
from ..runs.pretraining import weights_from_pool
from ..runs.querying import embedding_width
from ..strategies.first_sets import start_embeddings
from ..strategies.scores import Scores, score_pool
from ..strategies.selection import (
    Strategy,
    affordable,
    check_strategy_works,
    draw_rows,
    resolve_strategy,
    select,
)
from .batches import BatchRequest, ComputedBatch, Guesses, LearnerSetup

LIKENESS_FEATURES = 32

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, and what it was trained on."""

    classifier: ImageClassifier
    config: RunConfig
    data: ImageDataset
    X: NDArray[Any]
    y: Labels


class Picker:
    """Answers jobs of one project; decodes its images when made, unless a cache has them.

    Parameters
    ----------
    task : LearnerSetup
        Of the project.

    Raises
    ------
    SkalError
        If no image can be read, or a setting is not valid.
    """

    def __init__(self, task: LearnerSetup) -> None:
        check_settings(task.config)
        self._strategy = resolve_strategy(task.config.strategy, task.config.strategy_params)
        self._start = resolve_strategy(task.config.init_strategy)
        size = image_size_for(task.config, task.root) or DEFAULT_IMAGE_SIZE
        folder = data_folder(task.config.data_dir)
        # the very files that `skal run` would decode, so that the cache is the same
        files = [file for file in task.files if file.is_of_use]
        pixels, kept, skipped = decode_all(task.root, files, size, folder / "cache")
        if not kept:
            raise DataError(f"no image under {str(task.root)!r} can be read ({skipped[0][1]})")
        self._task = task
        self._pixels = pixels
        self._paths = tuple(file.path for file in kept)
        # images that take no part have no number
        self._numbers = np.array([task.numbers.get(path, -1) for path in self._paths])
        self._rows = {n: row for row, n in enumerate(self._numbers.tolist()) if n >= 0}
        self.unreadable = [task.numbers[path] for path, _ in skipped if path in task.numbers]

    def answer(self, job: BatchRequest) -> ComputedBatch:
        """Pick the next images.

        Until two classes have a label there is nothing to train: the batch is a diverse one then.
        Training and picks follow from the labels alone: the same labels give the same picks.

        Parameters
        ----------
        job : BatchRequest
            The question.

        Returns
        -------
        ComputedBatch
        """
        started = time.perf_counter()
        rows = self._rows_of(job.candidates)
        y = self._labels_of(job)
        if len(set(job.labels.values())) < 2:
            picks, guesses, kind = self._pick_at_start(job, y, rows), self._start_guesses, "start"
        else:
            picks, guesses = self._pick_by_network(job, y, rows)
            kind = "strategy"
        numbers = self._numbers[picks].tolist()
        seconds = time.perf_counter() - started
        return ComputedBatch(numbers, kind, guesses, self.unreadable, round(seconds, 3))

    def train(self, job: BatchRequest, *, calibrated: bool = False) -> Trained:
        """Train a network on the labels of a job, and set its temperature if that is wanted.

        Raises
        ------
        DataError
            If there are not two classes with a label.
        """
        y = self._labels_of(job)
        if len(np.unique(y[y != MISSING_LABEL])) < 2:
            raise DataError("training needs labels of two classes or more; label more images")
        data = self._dataset(job.classes)
        config = resolve_settings(self._task.config, data)
        check_network(config, data)
        weights = self._weights
        inputs = network_inputs(config, make_classifier(config, data, 0, weights), data.X)
        classifier = make_classifier(config, data, len(job.labels), weights)
        classifier.fit(inputs.X, y, rows=self._rows_not_of_test)
        if calibrated:
            seed = derive_seed(config.seed, "calibration", len(job.labels))
            calibrate(classifier, inputs.X, y, seed=seed, rows=self._rows_not_of_test)
        if inputs.backbone is not None:
            classifier.take_backbone(inputs.backbone)
        return Trained(classifier, config, data, inputs.X, y)

    def predict(self, trained: Trained, images: Sequence[int]) -> dict[int, int]:
        """Return the likeliest class of images; those that cannot be read are left out."""
        rows = self._rows_of(images)
        if not len(rows):
            return {}
        scores = score_pool(trained.classifier, trained.X, embeddings=False, rows=rows)
        found = zip(self._numbers[rows].tolist(), scores.proba.argmax(1).tolist(), strict=True)
        return dict(found)

    def _rows_of(self, images: Sequence[int]) -> NDArray[np.int64]:
        return np.array([self._rows[n] for n in images if n in self._rows], dtype=np.int64)

    def _labels_of(self, job: BatchRequest) -> Labels:
        y: Labels = np.full(len(self._pixels), MISSING_LABEL, dtype=np.int64)
        for number, label in job.labels.items():
            if number in self._rows:
                y[self._rows[number]] = label
        return y

    def _dataset(self, classes: Sequence[str]) -> ImageDataset:
        task = self._task
        return ImageDataset(
            X=self._pixels,
            y=np.full(len(self._pixels), MISSING_LABEL, dtype=np.int64),
            classes=tuple(classes),
            name=task.root.name,
            paths=self._paths,
            root=task.root,
            augmentation=("flip", "shift"),
            source={
                "dataset": str(task.root),
                "data_dir": str(data_folder(task.config.data_dir).resolve()),
            },
        )

    @cached_property
    def _rows_not_of_test(self) -> NDArray[np.int64]:
        taking_part = (self._numbers >= 0) & ~np.isin(self._numbers, self._task.of_test)
        return np.flatnonzero(taking_part)

    @cached_property
    def _weights(self) -> Weights | None:
        """What networks start from if pretraining is asked for; test images have no part in it."""
        data = self._dataset(("a", "b"))
        config = resolve_settings(self._task.config, data)
        if config.pretrain == "none":
            return None
        rows = self._rows_not_of_test
        X = take_rows(data.X, rows, Path(str(config.data_dir)) / "cache")
        return weights_from_pool(config, replace(data, X=X, y=data.y[rows], paths=()))

    @cached_property
    def _start_embeddings(self) -> NDArray[np.float32]:
        data = self._dataset(("a", "b"))
        config = resolve_settings(self._task.config, data)
        classifier = make_classifier(config, data, 0, self._weights)
        embeddings, source = start_embeddings(
            network_inputs(config, classifier, self._pixels).X,
            classifier,
            derive_seed(config.seed, "init"),
        )
        _log.info("first images: %s on %s", config.init_strategy, source)
        return embeddings

    @cached_property
    def _start_guesses(self) -> Guesses:
        there = np.flatnonzero(self._numbers >= 0)
        nothing = np.empty((len(there), 0), np.float32)
        embeddings = _fewer_features(self._start_embeddings[there])
        return Guesses(self._numbers[there], nothing, embeddings)

    def _pick_at_start(
        self, job: BatchRequest, y: Labels, rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Pick a diverse batch, away from what is labelled already."""
        n = min(job.n, len(rows))
        if not n:
            return rows
        rows = _with_labeled(y, rows)
        embeddings = self._start_embeddings[rows]
        even = np.full((len(rows), 2), 0.5, np.float32)
        return _ask(
            self._start,
            y,
            rows,
            n,
            Scores(np.arange(2), even, embeddings),
            max(len(job.classes), 2),
            derive_seed(self._task.config.seed, "init", len(job.labels)),
        )

    def _pick_by_network(
        self, job: BatchRequest, y: Labels, candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Guesses]:
        """Train, score once, and pick from the scores."""
        config, strategy = self._task.config, self._strategy
        check_strategy_works(strategy, len(job.classes))
        trained = self.train(job)
        seed = derive_seed(config.seed, "strategy", len(job.labels))
        most = self._n_candidates(trained, len(candidates), job)
        if most < len(candidates):
            of_candidates = draw_rows(
                np.full(len(candidates), MISSING_LABEL), most, derive_seed(seed, "candidates")
            )
            candidates = candidates[of_candidates]
            known = np.union1d(_with_labeled(y, candidates), self._rows_of(job.reserve))
        else:
            known = np.flatnonzero(self._numbers >= 0)
        scores = self._score(trained, known, seed)
        n = min(job.n, len(candidates))
        n_random = round(resolve_share("explore", config.explore) * n)
        picks = candidates[:0]
        if n > n_random:
            rows = _with_labeled(y, candidates)
            part = scores.take(np.searchsorted(known, rows))
            picks = _ask(strategy, y, rows, n - n_random, part, len(job.classes), seed)
        draw = np.random.default_rng(derive_seed(seed, "explore"))
        others = draw.permutation(np.setdiff1d(candidates, picks))[:n_random]
        assert scores.embeddings is not None
        guesses = Guesses(
            self._numbers[known],
            scores.proba,
            _fewer_features(scores.embeddings),
            len(job.labels),
            str(trained.config.model),
        )
        return np.concatenate([picks, others]), guesses

    def _n_candidates(self, trained: Trained, n: int, job: BatchRequest) -> int:
        """Return among how many images the strategy chooses: memory may not do for all."""
        config, classifier = trained.config, trained.classifier
        wanted = min(job.n, n)
        most = n if config.max_candidates is None else min(max(config.max_candidates, wanted), n)
        if wanted == n:
            return n
        return affordable(
            self._strategy,
            most,
            len(job.labels),
            wanted,
            n_classes=len(job.classes),
            # the page wants embeddings whatever the strategy does
            n_features=embedding_width(classifier, trained.X),
            device=str(classifier.neural_net_.device),
        )

    def _score(self, trained: Trained, rows: NDArray[np.int64], seed: int) -> Scores:
        strategy, X = self._strategy, trained.X
        committee = None
        if strategy.n_members:
            committee = Committee(trained.classifier, strategy.n_members, random_state=seed)
            committee.fit(X, trained.y)
        scores = score_pool(
            trained.classifier,
            X,
            n_samples=0 if committee else strategy.n_samples,
            gradient_length=strategy.needs_gradient_length,
            committee=committee,
            rows=None if len(rows) == len(X) else rows,
            random_state=seed,
        )
        if not np.isfinite(scores.proba).all():
            raise SkalError("the training diverged; a lower --lr may help")
        return scores


def _with_labeled(y: Labels, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows and those of labelled images, which strategies look at too."""
    return np.union1d(rows, np.flatnonzero(y != MISSING_LABEL))


def _ask(
    strategy: Strategy,
    y: Labels,
    rows: NDArray[np.int64],
    n: int,
    scores: Scores,
    n_classes: int,
    seed: int,
) -> NDArray[np.int64]:
    picks = select(strategy, y[rows], n, scores=scores, n_classes=n_classes, seed=seed)
    return rows[picks]


def _fewer_features(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return embeddings short enough to be sent and compared within milliseconds."""
    n, width = embeddings.shape
    if width <= LIKENESS_FEATURES or n <= LIKENESS_FEATURES:
        return embeddings
    reduced = PCA(LIKENESS_FEATURES, random_state=0, svd_solver="randomized")
    return reduced.fit_transform(embeddings).astype(np.float32)  # type: ignore[no-any-return]


def use_few_threads() -> None:
    """Leave a processor to the page."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


def one_line_of(error: BaseException) -> str:
    """Return what is told of an error."""
    text = one_line(error)
    return text if isinstance(error, SkalError) else f"{type(error).__name__}: {text}"
