"""What skal's own query strategies share: scikit-activeml's interface around one method."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.utils import check_equal_missing_label, check_scalar, check_type, is_unlabeled
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from ..datasets.base import MISSING_LABEL
from ..errors import ParameterError, SkalError
from ..scoring import Scores


class BatchStrategy(SingleAnnotatorPoolQueryStrategy):
    """A query strategy that picks a batch from the scores of the candidates.

    Subclasses write `pick`, and say in `reads` which scores it looks at.

    Parameters
    ----------
    missing_label : scalar, default=-1
        Marks unlabelled samples.
    random_state : int, RandomState or None, default=None
        Seeds the draws.
    """

    reads: ClassVar[tuple[str, ...]] = ("proba",)
    """Of "proba", "embeddings" and "mc_proba"; the last needs a parameter `n_samples`."""

    def __init__(
        self,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)

    @abstractmethod
    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick a batch.

        Parameters
        ----------
        scores : Scores
            Of the candidates alone, n of them.
        batch_size : int
            At most n.
        random_state : RandomState
            The only source of chance.
        utilities : ndarray of float64, shape (batch_size, n), optional
            To be filled with what each pick was chosen by; nan for the picks before it.

        Returns
        -------
        ndarray of int64, shape (batch_size,)
            Rows of `scores`, each once.
        """

    def query(
        self,
        X: Any,
        y: Any,
        clf: SkactivemlClassifier,
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
        clf : SkactivemlClassifier
            Who predicts.
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
            What each pick was chosen by; nan where labelled, no candidate, or picked before.

        Raises
        ------
        TypeError
            If `clf` cannot tell what the strategy reads.
        ParameterError
            If there are weights, and `clf` is to be fitted and takes none.
        SkalError
            If `clf` answers with no numbers (NaN).
        """
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
            clf = _fitted(clf, X, y, sample_weight) if fit_clf else clf
            scores = self._score(clf, X_cand)
            picks = self.pick(scores, batch_size, self.random_state_, rows)
        indices = picks if mapping is None else mapping[picks]
        if rows is None:
            return indices
        if mapping is None:
            return indices, rows
        utilities = np.full((batch_size, len(X)), np.nan)
        utilities[:, mapping] = rows
        return indices, utilities

    def _check_classifier(self, clf: Any, fit_clf: Any) -> None:
        check_type(clf, "clf", SkactivemlClassifier)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        check_scalar(fit_clf, "fit_clf", bool)
        if "mc_proba" in self.reads:
            check_scalar(self.n_samples, "n_samples", int, min_val=2)
            if not hasattr(clf, "sample_proba"):
                raise TypeError(
                    f"{type(clf).__name__} has no sample_proba(X, n_samples), which "
                    f"{type(self).__name__} needs; skal.ImageClassifier has"
                )

    def _score(self, clf: Any, X: Any) -> Scores:
        """Ask the classifier for what the strategy reads, and check that it is numbers."""
        scores = self._read(clf, X)
        for name in self.reads:
            if not np.isfinite(getattr(scores, name)).all():
                raise SkalError(
                    f"the {name} that {type(self).__name__} reads are no numbers (NaN or infinite):"
                    " the training diverged; a lower learning rate (lr) may help"
                )
        return scores

    def _read(self, clf: Any, X: Any) -> Scores:
        """Ask the classifier for what the strategy reads, and for no more."""
        samples = None
        if "mc_proba" in self.reads:
            samples = np.asarray(clf.sample_proba(X, n_samples=self.n_samples))
        if self.reads == ("mc_proba",):
            assert samples is not None
            return Scores(clf.classes_, samples.mean(axis=0), mc_proba=samples)
        wanted = self._embedding_keywords(clf, X) if "embeddings" in self.reads else {}
        out = clf.predict_proba(X, **wanted)
        proba, embeddings = out if isinstance(out, tuple) else (out, X)
        if "embeddings" not in self.reads:
            return Scores(clf.classes_, proba, mc_proba=samples)
        if embeddings is X and np.ndim(X) > 2:
            raise ParameterError(
                f"{type(self).__name__} needs embeddings, which {type(clf).__name__}.predict_proba "
                "does not return, and raw images are none; name the keyword that it takes for them "
                "by clf_embedding_flag_name"
            )
        flat = np.asarray(embeddings).reshape(len(embeddings), -1)
        return Scores(clf.classes_, proba, flat, samples)

    def _embedding_keywords(self, clf: Any, X: Any) -> dict[str, Any]:
        """Return the keywords by which `predict_proba` also returns embeddings."""
        return {"extra_outputs": "emb"}


def _fitted(clf: Any, X: Any, y: Any, sample_weight: ArrayLike | None) -> Any:
    """Return a clone of the classifier, fitted."""
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
            Of the candidates alone, n of them.

        Returns
        -------
        ndarray of float, shape (n,)
            Finite; the higher the better.
        """

    def pick(
        self,
        scores: Scores,
        batch_size: int,
        random_state: np.random.RandomState,
        utilities: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Pick the highest utilities, best first; ties fall at random."""
        values = self.score(scores)
        picks = np.lexsort((random_state.random_sample(len(values)), -values))[:batch_size]
        if utilities is not None:
            utilities[:] = values
            for number in range(1, batch_size):
                utilities[number, picks[:number]] = np.nan
        return picks
