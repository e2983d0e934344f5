"""`ActiveLearner`: the loop in steps, for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from ..core.errors import DataError, ParameterError, UnknownNameError
from ..core.seeding import derive_seed
from ..core.settings import RunConfig, Share, resolve_count
from ..datasets import ImageDataset
from ..datasets.base import MISSING_LABEL, Labels
from ..datasets.pool import Pool
from ..models.classifier import ImageClassifier
from ..models.features import embed
from ..strategies.first_sets import initial_set
from ..strategies.selection import resolve_strategy
from .experiment import predict_test
from .metrics import evaluate
from .querying import choose


class ActiveLearner:
    """Active learning in steps: `query`, label as you like, `teach`.

    Parameters
    ----------
    data : ImageDataset
        The pool is its `X`, or `X_unlabeled` if `X` is empty; labels that it has are not used.
    classifier : ImageClassifier
        Trained at every `teach`; with ``freeze=True`` on features, which are made here, once.
    strategy : str, class or instance, default="auto"
        As for `run`.
    strategy_params : mapping, optional
        Arguments of the strategy.
    init_strategy, explore, max_candidates
        As for `run`; "stratified" is not possible, for nobody knows the labels.
    seed : int, default=0
        Decides the draws of the strategy.

    Raises
    ------
    ParameterError, UnknownNameError
        If the strategy, or another of these, is not valid, or the classifier's `classes` are not
        the ids of the dataset's.
    """

    def __init__(
        self,
        data: ImageDataset,
        classifier: ImageClassifier,
        strategy: str | type | SingleAnnotatorPoolQueryStrategy = "auto",
        *,
        strategy_params: Mapping[str, Any] | None = None,
        init_strategy: str = "random",
        explore: Share = "0%",
        max_candidates: int | None = None,
        seed: int = 0,
    ) -> None:
        _check_fits(classifier, data)
        chosen = RunConfig(
            init_strategy=init_strategy, explore=explore, max_candidates=max_candidates, seed=seed
        )
        self.data = data
        self.classifier = classifier
        self.seed = chosen.seed
        X: NDArray[Any] = data.X if len(data.X) else data.X_unlabeled
        if classifier.freeze:
            X = embed(classifier, X)
        self.pool = Pool(X, len(data.classes))
        self.init_strategy = chosen.init_strategy
        self.explore = float(chosen.explore)
        self.max_candidates = chosen.max_candidates
        self._strategy = resolve_strategy(strategy, strategy_params)
        self._round = 0

    @property
    def y(self) -> Labels:
        """Labels taught so far, -1 where there is none; read-only."""
        return self.pool.y

    def query(self, n: int = 1) -> NDArray[np.int64]:
        """Return the indices of the images to label next.

        Parameters
        ----------
        n : int, default=1
            How many. Before the first `teach` they are chosen by `init_strategy`.

        Returns
        -------
        ndarray of int64, shape (n,)
            Of the pool; the same when asked again before the next `teach`.
        """
        n = resolve_count("n", n, len(self.pool))
        if self._round == 0:
            return initial_set(
                self.pool, n, self.seed, self.init_strategy, classifier=self.classifier
            )
        return choose(
            self._strategy,
            self.classifier,
            self.pool,
            n,
            seed=derive_seed(self.seed, "strategy", self._round),
            explore=self.explore,
            max_candidates=self.max_candidates,
        )

    def teach(self, indices: ArrayLike, labels: ArrayLike) -> ActiveLearner:
        """Add labels and train anew.

        Parameters
        ----------
        indices : array-like of int, shape (b,)
            Images of the pool, not labelled before.
        labels : array-like of int or str, shape (b,)
            Class ids, or names of classes. Without any, nothing happens.

        Returns
        -------
        self : ActiveLearner

        Raises
        ------
        DataError, UnknownNameError
            If an index or a label is not valid; nothing is changed then.
        """
        if not np.size(indices) and not np.size(labels):
            return self
        pool = self.pool.copy()
        pool.label(indices, self._class_ids(labels))
        self.classifier.fit(pool.X, pool.y)
        self.pool = pool  # only now: labels whose training failed can be taught again
        self._round += 1
        return self

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on the test set, by the names of ``rounds.csv``.

        Raises
        ------
        DataError
            If the dataset has no test images.
        NotFittedError
            If nothing was taught yet.
        """
        if not len(self.data.X_test):
            raise DataError(f"{self.data.name} has no test image to evaluate on")
        return evaluate(self.data.y_test, predict_test(self.classifier, self._X_test))

    @cached_property
    def _X_test(self) -> NDArray[Any]:
        X_test = self.data.X_test
        return embed(self.classifier, X_test) if self.classifier.freeze else X_test

    def _class_ids(self, labels: ArrayLike) -> Labels:
        given = np.atleast_1d(labels)
        if given.dtype.kind == "O":
            given = np.array(given.tolist())  # as pandas hands over both names and numbers
        if given.dtype.kind != "U":
            return given
        ids = {name: number for number, name in enumerate(self.data.classes)}
        for name in given:
            if name not in ids:
                raise UnknownNameError("class", str(name), ids)
        return np.array([ids[name] for name in given], dtype=np.int64)


def _check_fits(classifier: ImageClassifier, data: ImageDataset) -> None:
    """Check that classifier and dataset mean the same by a label."""
    expected = list(range(len(data.classes)))
    got = None if classifier.classes is None else np.asarray(classifier.classes).tolist()
    if got != expected:
        raise ParameterError(
            f"the classifier has the classes {got}; expected range({len(expected)}), ids of "
            f"{', '.join(data.classes[:5])}{' ...' if len(expected) > 5 else ''}"
        )
    if classifier.missing_label != MISSING_LABEL:
        raise ParameterError(
            f"the classifier has missing_label={classifier.missing_label}; expected {MISSING_LABEL}"
        )
