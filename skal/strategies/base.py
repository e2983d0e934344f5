"""What skal's own query strategies share: scikit-activeml's interface around one method."""

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
ToFill = NDArray[np.float64] | None  # or None: not wanted
RandomState = np.random.RandomState
Seed = int | RandomState | None
N_SAMPLES = Number(2, whole=True)


class BatchStrategy(SingleAnnotatorPoolQueryStrategy):
    """A query strategy that picks a batch from the scores of the candidates.

    Subclasses write `pick`, say in `reads` which scores it looks at, and in `constraints` what
    their own parameters may be. Whatever they compute, images that coincide, or are worth the
    same, are picked at random, and none twice.

    Parameters
    ----------
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds all draws, and what is clustered.
    """

    constraints: Constraints = allowed()
    """What parameters may be, checked when the strategy is asked; see `Number` and `OneOf`."""
    clf_embedding_flag_name: Mapping[str, Any] | str | None = None
    """Keyword(s) by which `predict_proba` also returns embeddings, else `X` unless it is images.

    By default ``extra_outputs="emb"`` where `X` is images and the classifier takes it.
    """
    reads: tuple[str, ...] = ("proba",)
    """Which fields of `Scores`: "proba", "embeddings", "mc_proba", "gradient_length", "labeled".

    One that reads only "embeddings" and "labeled" needs no classifier: `X` are the embeddings.
    """
    n_samples: int = 20
    """How many samples "mc_proba" has; where it can be chosen, a parameter of the constructor."""
    # of constructors that take neither
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
            Of the candidates only, n of them.
        batch_size : int
            At most n.
        random_state : RandomState
            The only source of chance.
        utilities : ndarray of float64, shape (batch_size, n), optional
            A subclass may take this, too: to be filled, where it is not None, with what each pick
            was chosen by; NaN for the picks before it.

        Returns
        -------
        ndarray of int64, shape (batch_size,)
            Rows of `scores`, each once.
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
            Samples, and their labels; `missing_label` where there is none.
        clf : SkactivemlClassifier, optional
            Who predicts; may be left out if the strategy reads only embeddings, which `X` are
            then.
        fit_clf : bool, default=True
            Whether to train a clone of `clf` on `X` and `y` first.
        sample_weight : array-like, optional
            For that training.
        candidates : array-like, optional
            Indices, or samples, to choose from; by default all unlabelled ones.
        batch_size : int, default=1
            How many to pick; fewer, perhaps none, if there are fewer candidates.
        return_utilities : bool, default=False
            Whether to return utilities as well.

        Returns
        -------
        query_indices : ndarray of int, shape (batch_size,)
            Into `X`, or into `candidates` if those are samples.
        utilities : ndarray of float, shape (batch_size, n), if asked for
            What each pick was chosen by; NaN where labelled, no candidate, or picked before. Of a
            strategy that tells no utilities, the ranks of the picks: `batch_size` for the first,
            1 for the last, 0 for what was not picked.

        Raises
        ------
        TypeError
            If `clf` cannot tell what the strategy reads, or is left out and needed.
        ParameterError
            If a parameter is not what it may be; or there are weights, and `clf` is to be fitted
            and takes none.
        SkalError
            If `clf` answers with NaN.
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
        told = utilities is not None and "utilities" in inspect.signature(pick).parameters
        options = {"utilities": utilities} if told else {}
        answer = pick(scores, batch_size, self.random_state_, **options)
        picks, got = integers(answer, batch_size)
        if picks is None:
            raise SkalError(
                f"{type(self).__name__}.pick returned {got}; expected {batch_size} integers, rows "
                "of the scores"
            )
        if utilities is not None and not told:
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
                    f"{type(clf).__name__} has no {call}, which {type(self).__name__} needs; "
                    "skal.ImageClassifier has"
                )

    def _score(self, clf: Any, X: Any) -> Scores:
        """Return the scores that the strategy reads; a SkalError if any is NaN or infinite."""
        scores = self._read(clf, X)
        for name in set(self.reads) - {"labeled"}:
            if not np.isfinite(getattr(scores, name)).all():
                raise SkalError(
                    f"the {name} that {type(self).__name__} reads are NaN or infinite: {DIVERGED}"
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
        else:  # a mean is at hand, or nobody asks
            samples = found.get("mc_proba", np.empty((1, len(X), 0), np.float32))
            found["proba"] = samples.mean(axis=0)
        return Scores(clf.classes_, **found)

    def _samples(self, clf: Any, X: Any) -> NDArray[Any]:
        """Return dropout samples that depend on nothing but the strategy's seed."""
        if isinstance(clf, ScoredClassifier):  # they are drawn already
            return np.asarray(clf.sample_proba(X, n_samples=self.n_samples))
        seed = int(self.random_state_.randint(2**31 - 1))
        takes = "random_state" in inspect.signature(clf.sample_proba).parameters
        with global_seed(seed):
            options = {"random_state": seed} if takes else {}
            return np.asarray(clf.sample_proba(X, n_samples=self.n_samples, **options))

    def _embed(self, clf: Any, X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return probabilities and embeddings; `X` itself for those, if it is not images."""
        out = clf.predict_proba(X, **self._embedding_keywords(clf, X))
        proba, embeddings = out if isinstance(out, tuple) else (out, X)
        if embeddings is X and np.ndim(X) > 2:
            advice = "take a classifier that returns them for extra_outputs='emb'"
            if "clf_embedding_flag_name" in inspect.signature(type(self)).parameters:
                advice = "name the keyword that it takes for them by clf_embedding_flag_name"
            raise ParameterError(
                f"{type(self).__name__} needs embeddings, which {type(clf).__name__}.predict_proba "
                f"does not return, and raw images are none; {advice}"
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
        if type(clf) is not ScoredClassifier:  # another one may have embeddings of its own
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
            f"got sample_weight, but {type(clf).__name__}.fit takes none; leave it out"
        )
    return clone(clf).fit(X, y, sample_weight)


class ScoreStrategy(BatchStrategy):
    """A query strategy that picks the highest utilities; subclasses write `score`."""

    @abstractmethod
    def score(self, scores: Scores) -> NDArray[np.floating[Any]]:
        """Return how much each candidate is worth being labelled.

        Parameters
        ----------
        scores : Scores
            Of the candidates only, n of them.

        Returns
        -------
        ndarray of float, shape (n,)
            Finite; the higher the better.
        """

    def pick(
        self, scores: Scores, batch_size: int, random_state: RandomState, utilities: ToFill = None
    ) -> Rows:
        values = np.asarray(self.score(scores))
        if values.shape != (len(scores),) or not np.issubdtype(values.dtype, np.number):
            raise SkalError(
                f"{type(self).__name__}.score returned {values.dtype} of shape {values.shape}; "
                f"expected {len(scores)} numbers, one for each image"
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
    """Return the rows of the highest values, best first; ties fall at random."""
    picks = np.lexsort((random_state.random_sample(len(values)), -values))[:n_picks]
    if utilities is not None:
        fill(utilities, values, picks)
    return picks


class GreedyBatch:
    """A batch picked one by one, each the highest of values that earlier picks may change.

    `picks` are int64 of shape (n_picks,). Where `utilities`, float64 of shape (n_picks, n), are
    given, the row of each pick is filled with the values; NaN for earlier picks.
    """

    def __init__(self, n_picks: int, random_state: RandomState, utilities: ToFill = None) -> None:
        self.picks = np.empty(n_picks, dtype=np.int64)
        self._random_state, self._utilities = random_state, utilities
        self._count = 0

    def pick(self, values: NDArray[Any]) -> int:
        """Pick the highest value of the rows left, ties at random, and return its row."""
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
    """Fill the utilities of a whole batch that was chosen by the same values."""
    utilities[:] = values
    for number in range(1, len(picks)):
        utilities[number, picks[:number]] = np.nan
