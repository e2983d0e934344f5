"""A committee: networks trained on bootstrap samples of the labelled images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SkactivemlClassifier
from skactiveml.utils import is_labeled
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..core.errors import ParameterError
from ..datasets.base import MISSING_LABEL, Images
from .classifier import ImageClassifier, is_whole

MEMBERS = 5


class Committee(SkactivemlClassifier):
    """Clones of a classifier, each trained on a bootstrap sample of the labelled images [1]_.

    Parameters
    ----------
    classifier : ImageClassifier
        Is cloned, never fitted itself.
    n_members : int, default=5
        How many clones.
    missing_label : int, default=-1
        Marks unlabelled images in `y`.
    random_state : int, RandomState or None, default=None
        Seeds the samples and each member's training.

    Attributes
    ----------
    estimators_ : list of ImageClassifier
        The members.

    References
    ----------
    .. [1] N. Abe and H. Mamitsuka. Query Learning Strategies Using Boosting and Bagging. ICML 1998.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        n_members: int = MEMBERS,
        missing_label: int = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            classes=classifier.classes, missing_label=missing_label, random_state=random_state
        )
        self.classifier = classifier
        self.n_members = n_members

    def fit(self, X: Images, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Committee:
        """Train all members.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Labelled and unlabelled images; the latter are not read.
        y : array-like of int, shape (n,)
            Labels; `missing_label` where there is none.
        sample_weight : None
            Not supported.

        Returns
        -------
        self : Committee

        Raises
        ------
        ParameterError
            If there are fewer than two members to be, or weights.
        """
        if not is_whole(self.n_members) or self.n_members < 2:
            raise ParameterError(f"n_members={self.n_members!r}; expected a whole number from 2 on")
        if sample_weight is not None:
            raise ParameterError("got sample_weight, which a Committee does not take; leave it out")
        labels = np.asarray(y)
        labeled = np.flatnonzero(is_labeled(labels, missing_label=self.missing_label))
        draw = check_random_state(self.random_state)
        self.estimators_ = []
        for _ in range(self.n_members):
            sample = np.sort(draw.choice(labeled, size=len(labeled)))
            seed = int(draw.randint(2**31 - 1))
            member = clone(self.classifier).set_params(random_state=seed)
            # without a label, as scikit-activeml allows, a member stays as it was initialised
            rows = sample if len(sample) else slice(0, 1)
            self.estimators_.append(member.fit(X[rows], labels[rows]))
        self.classes_ = self.estimators_[0].classes_
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")

    def predict_proba(self, X: Images) -> NDArray[np.float32]:
        """Return the mean of the members' probabilities, float32 of shape (n, n_classes)."""
        proba: NDArray[np.float32] = self.sample_proba(X).mean(axis=0)
        return proba

    def predict(self, X: Images) -> NDArray[Any]:
        """Return the class of the highest mean probability, shape (n,)."""
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def sample_proba(self, X: Images, n_samples: int | None = None) -> NDArray[np.float32]:
        """Return each member's probabilities.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.
        n_samples : int, optional
            How many members; by default all.

        Returns
        -------
        ndarray of float32, shape (n_samples, n, n_classes)

        Raises
        ------
        ParameterError
            If there are fewer members.
        """
        wanted = self.n_members if n_samples is None else n_samples
        if wanted > len(self.estimators_):
            raise ParameterError(
                f"asked for {wanted} members; the committee has {len(self.estimators_)}"
            )
        proba = np.empty((wanted, len(X), len(self.classes_)), np.float32)
        for part, member in zip(proba, self.estimators_, strict=False):
            start = 0
            for batch in member.iter_outputs(X):
                part[start : start + len(batch.proba)] = batch.proba.cpu().numpy()
                start += len(batch.proba)
        return proba
