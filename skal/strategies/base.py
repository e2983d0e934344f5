"""Base classes of skal's query strategies, with scikit-activeml's interface."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.utils import check_equal_missing_label, check_type, is_labeled, is_unlabeled
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from ..core.answers import integers
from ..core.errors import DIVERGED, ParameterError, SkalError
from ..core.text import counted
from ..datasets.base import MISSING_LABEL
from ..models.devices import global_seed
from .parameters import Constraints, Number, allowed, check_parameters
from .scores import Labeled, Place, ScoredClassifier, Scores, rows_of

Rows = NDArray[np.int64]
ToFill = NDArray[np.float64] | None  # None if utilities are not wanted
RandomState = np.random.RandomState
Seed = int | RandomState | None
N_SAMPLES = Number(2, whole=True)


class BatchStrategy(SingleAnnotatorPoolQueryStrategy):
    """Base class of query strategies that pick a batch from the scores of the candidates.

    Subclasses implement `pick`, list in `reads` the scores that it uses, and in `constraints` the
    valid values of their parameters. `pick` must break ties at random and repeat no image.

    Parameters
    ----------
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds all random draws and clusterings.
    """

    constraints: Constraints = allowed()
    """Valid values of parameters, checked in `query`; see `Number` and `OneOf`."""
    clf_embedding_flag_name: Mapping[str, Any] | str | None = None
    """Keyword(s) with which `predict_proba` also returns embeddings.

    By default ``extra_outputs="emb"`` if `X` is images and the classifier takes it. If it returns
    no embeddings, `X` itself is used, unless it is images.
    """
    reads: tuple[str, ...] = ("proba",)
    """Fields of `Scores` it uses: "proba", "embeddings", "mc_proba", "gradient_length", "labeled".

    A strategy that reads only "embeddings" and "labeled" needs no classifier: `X` is used as
    embeddings.
    """
    n_samples: int = 20
    """Number of samples in "mc_proba". Subclasses may make it a parameter of the constructor."""
    # for subclasses whose constructors take neither
    missing_label: Any = MISSING_LABEL
    random_state: Seed = None

    def __init__(self, missing_label: Any = MISSING_LABEL, random_state: Seed = None) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)

    @abstractmethod
    def pick(self, scores: Scores, batch_size: int, random_state: RandomState) -> Rows:
        """Pick a batch.

        Parameters
        ----------
        scores : Scores
            Scores of the n candidates.
        batch_size : int
            Number of images to pick, at most n.
        random_state : RandomState
            The only source of randomness to use.
        utilities : ndarray of float64, shape (batch_size, n), optional
            Subclasses may accept this array and, unless it is None, fill row i with the utilities
            that pick i was chosen by, with NaN for earlier picks.

        Returns
        -------
        ndarray of int64, shape (batch_size,)
            Rows of `scores`, without repetition.
        """

    def query(
        self,
        X: Any,
        y: Any,
        clf: SkactivemlClassifier | None = None,
        fit_clf: bool = True,
        sample_weight: ArrayLike | None = None,
        candidates: ArrayLike | None = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> NDArray[np.int64] | tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Pick a batch; see `skactiveml.base.SingleAnnotatorPoolQueryStrategy.query`.

        Parameters
        ----------
        X, y : array-like
            Samples, and their labels; `missing_label` marks unlabelled samples.
        clf : SkactivemlClassifier, optional
            The classifier. Strategies that read only embeddings work without one, and use `X` as
            embeddings.
        fit_clf : bool, default=True
            Whether to first train a clone of `clf` on `X` and `y`.
        sample_weight : array-like, optional
            Sample weights for that training.
        candidates : array-like, optional
            Indices of samples, or samples, to choose from; by default all unlabelled ones.
        batch_size : int, default=1
            Number of samples to pick; all candidates if there are fewer.
        return_utilities : bool, default=False
            Whether to return utilities as well.

        Returns
        -------
        query_indices : ndarray of int, shape (batch_size,)
            Indices into `X`, or into `candidates` if these are samples.
        utilities : ndarray of float, shape (batch_size, n), if asked for
            Utilities that each pick was chosen by; NaN for labelled samples, non-candidates and
            earlier picks. If the strategy has no utilities they are the ranks of the picks:
            `batch_size` for the first, 1 for the last, 0 for samples that are not picked.

        Raises
        ------
        TypeError
            If `clf` is needed but missing, or lacks a method that the strategy needs.
        ParameterError
            If a parameter is not valid, or `clf` is to be fitted and does not take the given
            `sample_weight`.
        SkalError
            If the outputs of `clf` are not finite.
        """
        check_parameters(self, self.constraints)
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities
        )
        X_cand, mapping = self._transform_candidates(candidates, X, y)
        if mapping is not None and candidates is not None:
            unlabeled = is_unlabeled(y[mapping], missing_label=self.missing_label_)
            X_cand, mapping = X_cand[unlabeled], mapping[unlabeled]
        self._check_classifier(clf, fit_clf)
        batch_size = min(batch_size, len(X_cand))
        rows = np.full((batch_size, len(X_cand)), np.nan) if return_utilities else None
        picks = np.empty(0, dtype=np.int64)
        if batch_size:
            if fit_clf and clf is not None:
                clf = _fitted(clf, X, y, sample_weight)
            scores = self._score(clf, X_cand)
            if "labeled" in self.reads:
                scores = replace(scores, labeled=self._labeled(clf, X, y))
                if mapping is not None:
                    scores = scores.placed(self._place(clf, X, y, mapping))
            picks = self._pick(scores, batch_size, rows)
        indices = picks if mapping is None else mapping[picks]
        if rows is None:
            return indices
        if mapping is None:
            return indices, rows
        utilities = np.full((batch_size, len(X)), np.nan)
        utilities[:, mapping] = rows
        return indices, utilities

    def _pick(self, scores: Scores, batch_size: int, utilities: ToFill) -> Rows:
        pick: Callable[..., Any] = self.pick
        fills = utilities is not None and "utilities" in inspect.signature(pick).parameters
        options = {"utilities": utilities} if fills else {}
        answer = pick(scores, batch_size, self.random_state_, **options)
        picks, got = integers(answer, batch_size)
        if picks is None:
            raise SkalError(
                f"{type(self).__name__}.pick returned {got}; expected {batch_size} integers, rows "
                "of `scores`"
            )
        if utilities is not None and not fills:
            ranks = np.zeros(len(scores))
            ranks[picks] = np.arange(len(picks), 0, -1)
            fill(utilities, ranks, picks)
        return picks

    def _check_classifier(self, clf: Any, fit_clf: Any) -> None:
        if clf is None and set(self.reads) <= {"embeddings", "labeled"}:
            return
        check_type(clf, "clf", SkactivemlClassifier)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        check_type(fit_clf, "fit_clf", bool)
        if "mc_proba" in self.reads:
            check_parameters(self, {"n_samples": N_SAMPLES})
        for name, (method, call) in _ASKED_OF_CLASSIFIER.items():
            if name in self.reads and not hasattr(clf, method):
                raise TypeError(
                    f"{type(self).__name__} needs a classifier with {call}, such as "
                    f"skal.ImageClassifier; got {type(clf).__name__}"
                )

    def _score(self, clf: Any, X: Any) -> Scores:
        """Return the scores that the strategy reads; raise SkalError if any is not finite."""
        scores = self._read(clf, X)
        for name in set(self.reads) - {"labeled"}:
            if not np.isfinite(getattr(scores, name)).all():
                raise SkalError(
                    f"the {name} read by {type(self).__name__} are NaN or infinite: {DIVERGED}"
                )
        return scores

    def _read(self, clf: Any, X: Any) -> Scores:
        if clf is None:
            return Scores(np.arange(0), np.empty((len(X), 0), np.float32), _flat(X))
        found: dict[str, Any] = {"device": getattr(getattr(clf, "scores", None), "device", "cpu")}
        if "mc_proba" in self.reads:
            found["mc_proba"] = self._samples(clf, X)
        if "gradient_length" in self.reads:
            found["gradient_length"] = np.asarray(clf.expected_gradient_length(X))
        if "embeddings" in self.reads:
            found["proba"], found["embeddings"] = self._embed(clf, X)
        elif "proba" in self.reads:
            found["proba"] = clf.predict_proba(X)
        else:  # not read: the mean of samples, or an empty array
            samples = found.get("mc_proba", np.empty((1, len(X), 0), np.float32))
            found["proba"] = samples.mean(axis=0)
        return Scores(clf.classes_, **found)

    def _samples(self, clf: Any, X: Any) -> NDArray[Any]:
        """Return dropout samples that depend only on the strategy's seed."""
        if isinstance(clf, ScoredClassifier):  # already drawn
            return np.asarray(clf.sample_proba(X, n_samples=self.n_samples))
        seed = int(self.random_state_.randint(2**31 - 1))
        takes = "random_state" in inspect.signature(clf.sample_proba).parameters
        with global_seed(seed):
            options = {"random_state": seed} if takes else {}
            return np.asarray(clf.sample_proba(X, n_samples=self.n_samples, **options))

    def _embed(self, clf: Any, X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return probabilities and embeddings; `X` itself as embeddings if `clf` returns none."""
        out = clf.predict_proba(X, **self._embedding_keywords(clf, X))
        proba, embeddings = out if isinstance(out, tuple) else (out, X)
        if embeddings is X and np.ndim(X) > 2:
            advice = "use a classifier that returns them for extra_outputs='emb'"
            if "clf_embedding_flag_name" in inspect.signature(type(self)).parameters:
                advice = "set clf_embedding_flag_name to the keyword that makes it return them"
            raise ParameterError(
                f"{type(self).__name__} needs embeddings, but got images, and "
                f"{type(clf).__name__}.predict_proba does not return embeddings; {advice}"
            )
        return proba, _flat(embeddings)

    def _labeled(self, clf: Any, X: Any, y: Any) -> Labeled:
        known = is_labeled(y, missing_label=self.missing_label_)
        rows = X[known]
        if not len(rows):
            return Labeled(y[known], np.empty((0, 0), np.float32))
        return Labeled(y[known], _flat(rows) if clf is None else self._embed(clf, rows)[1])

    def _place(self, clf: Any, X: Any, y: Any, rows: Rows) -> Place:
        known = np.flatnonzero(is_labeled(y, missing_label=self.missing_label_))
        if type(clf) is not ScoredClassifier:  # others may compute different embeddings
            return Place(rows, known)
        return Place(rows_of(X[rows]), rows_of(X[known]), clf.scores)

    def _embedding_keywords(self, clf: Any, X: Any) -> dict[str, Any]:
        flag = self.clf_embedding_flag_name
        if flag is None:
            takes = inspect.signature(clf.predict_proba).parameters
            able = "extra_outputs" in takes and (
                np.ndim(X) > 2 or isinstance(clf, ScoredClassifier)
            )
            return {"extra_outputs": "emb"} if able else {}
        check_type(flag, "clf_embedding_flag_name", dict, str)
        return {flag: True} if isinstance(flag, str) else dict(flag)


_ASKED_OF_CLASSIFIER = {
    "mc_proba": ("sample_proba", "sample_proba(X, n_samples)"),
    "gradient_length": ("expected_gradient_length", "expected_gradient_length(X)"),
}


def _flat(embeddings: Any) -> NDArray[Any]:
    return np.asarray(embeddings).reshape(len(embeddings), -1)


def _fitted(clf: Any, X: Any, y: Any, sample_weight: ArrayLike | None) -> Any:
    if sample_weight is None:
        return clone(clf).fit(X, y)
    if not has_fit_parameter(clf, "sample_weight"):
        raise ParameterError(
            f"got sample_weight, which {type(clf).__name__}.fit does not take; leave it out"
        )
    return clone(clf).fit(X, y, sample_weight)


class ScoreStrategy(BatchStrategy):
    """Base class of query strategies that pick the highest utilities; implement `score`."""

    @abstractmethod
    def score(self, scores: Scores) -> NDArray[np.floating[Any]]:
        """Return the utility of labelling each candidate.

        Parameters
        ----------
        scores : Scores
            Scores of the n candidates.

        Returns
        -------
        ndarray of float, shape (n,)
            Finite utilities; higher is better.
        """

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        values = np.asarray(self.score(scores))
        if values.shape != (len(scores),) or not np.issubdtype(values.dtype, np.number):
            raise SkalError(
                f"{type(self).__name__}.score returned {values.dtype} of shape {values.shape}; "
                f"expected {len(scores)} numbers, one per image"
            )
        n_bad = len(scores) - int(np.isfinite(values).sum())
        if n_bad:
            raise SkalError(
                f"{type(self).__name__}.score returned NaN or infinity for {n_bad} of "
                f"{counted(len(scores), 'image')}; expected finite numbers"
            )
        return highest(values, batch_size, random_state, utilities)


def highest(
    values: NDArray[np.floating[Any]],
    n_picks: int,
    random_state: RandomState,
    utilities: ToFill = None,
) -> Rows:
    """Return the rows of the highest values, best first; ties are broken at random."""
    picks = np.lexsort((random_state.random_sample(len(values)), -values))[:n_picks]
    if utilities is not None:
        fill(utilities, values, picks)
    return picks


class GreedyBatch:
    """Pick a batch one by one, each time the highest of values that earlier picks may change.

    `picks` is int64 of shape (n_picks,). `utilities`, float64 of shape (n_picks, n), if given, is
    filled row by row with the values of each pick, with NaN for earlier picks.
    """

    def __init__(self, n_picks: int, random_state: RandomState, utilities: ToFill = None) -> None:
        self.picks = np.empty(n_picks, dtype=np.int64)
        self._random_state, self._utilities = random_state, utilities
        self._count = 0

    def pick(self, values: NDArray[Any]) -> int:
        """Pick the row of the highest value among those left and return it; ties are random."""
        before = self.picks[: self._count]
        left = np.array(values, dtype=np.float64)
        left[before] = -np.inf
        ties = np.flatnonzero(left == left.max())
        row = int(ties[self._random_state.randint(len(ties))])
        if self._utilities is not None:
            left[before] = np.nan
            self._utilities[self._count] = left
        self.picks[self._count] = row
        self._count += 1
        return row


def fill(utilities: NDArray[np.float64], values: NDArray[np.floating[Any]], picks: Rows) -> None:
    """Fill the utilities of a batch whose picks were all chosen by the same values."""
    utilities[:] = values
    for number in range(1, len(picks)):
        utilities[number, picks[:number]] = np.nan
