"""Committees: networks trained on bootstrap samples of the labelled images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SkactivemlClassifier
from skactiveml.utils import is_labeled
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..core.errors import ParameterError
from ..core.text import counted
from ..datasets.base import MISSING_LABEL, Images
from .classifier import ImageClassifier
from .inference import NotFittedError, best_labels, check_labels, is_whole

MEMBERS = 5


class Committee(SkactivemlClassifier):
    """Clones of a classifier, each trained on a bootstrap sample of the labelled images.

    Predictions use the mean of the members' probabilities: the most probable class, or the class
    of lowest expected cost if `classifier` has a `cost_matrix`.

    Parameters
    ----------
    classifier : ImageClassifier
        Classifier to clone; it is not fitted itself. The committee uses its `classes` and
        `cost_matrix`.
    n_members : int, default=5
        Number of clones.
    missing_label : int, default=-1
        Marks unlabelled images in `y`.
    random_state : int, RandomState or None, default=None
        Seeds the bootstrap samples and each member's training.

    Attributes
    ----------
    estimators_ : list of ImageClassifier
        The members.

    References
    ----------
    N. Abe and H. Mamitsuka. Query Learning Strategies Using Boosting and Bagging. ICML 1998.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
    >>> committee = skal.Committee(clf, n_members=2, random_state=0)
    >>> committee.fit(data.X[:50], data.y[:50]).predict_proba(data.X_test).shape
    (359, 10)
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        n_members: int = MEMBERS,
        missing_label: int = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        # not super().__init__: classes and costs are properties, read from the current classifier
        self.classifier = classifier
        self.n_members = n_members
        self.missing_label = missing_label
        self.random_state = random_state

    @property
    def classes(self) -> ArrayLike | None:
        """All class labels."""
        classes: ArrayLike | None = self.classifier.classes
        return classes

    @property
    def cost_matrix(self) -> ArrayLike | None:
        """Costs of misclassification; see `skactiveml.base.SkactivemlClassifier`."""
        costs: ArrayLike | None = self.classifier.cost_matrix
        return costs

    def fit(self, X: Images, y: ArrayLike, sample_weight: None = None) -> Committee:
        """Train all members; a fit that fails leaves the committee as it was.

        Parameters
        ----------
        X, y
            As for `ImageClassifier.fit`.
        sample_weight : None
            Not supported.

        Returns
        -------
        self : Committee

        Raises
        ------
        ParameterError
            If `n_members` is below 2, or there are sample weights.
        DataError, ParameterError
            As `ImageClassifier.fit`.
        """
        if not isinstance(self.classifier, ImageClassifier):
            raise ParameterError(f"classifier={self.classifier!r}; expected an ImageClassifier")
        if not is_whole(self.n_members) or self.n_members < 2:
            raise ParameterError(f"n_members={self.n_members!r}; expected a whole number from 2 on")
        if sample_weight is not None:
            raise ParameterError("got sample_weight, which Committee does not take; leave it out")
        labels = np.asarray(y)
        if self.classes is not None:
            check_labels(labels, len(X), self.classes, self.missing_label)
        labeled = np.flatnonzero(is_labeled(labels, missing_label=self.missing_label))
        draw = check_random_state(self.random_state)
        members = []
        for _ in range(self.n_members):
            sample = np.sort(draw.choice(labeled, size=len(labeled)))
            params = {"random_state": int(draw.randint(2**31 - 1))}
            member = clone(self.classifier).set_params(**params, missing_label=self.missing_label)
            # scikit-activeml allows fits without labels: one image initialises the network
            rows = sample if len(sample) else slice(0, 1)
            members.append(member.fit(X[rows], labels[rows]))
        self.estimators_ = members
        for name in ("_le", "classes_", "cost_matrix_"):  # used by `predict` and `score`
            setattr(self, name, getattr(members[0], name))
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")

    def predict_proba(self, X: Images) -> NDArray[np.float32]:
        """Return the mean of the members' probabilities, float32 of shape (n, n_classes)."""
        proba: NDArray[np.float32] = self.sample_proba(X).mean(axis=0)
        return proba

    def predict(self, X: Images) -> NDArray[Any]:
        """Return the label of lowest expected cost for each image; ties go to the first class."""
        labels: NDArray[Any] = best_labels(self, self.predict_proba(X))
        return labels

    def sample_proba(self, X: Images, n_samples: int | None = None) -> NDArray[np.float32]:
        """Return the class probabilities of each member.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.
        n_samples : int, optional
            Number of members to ask; by default all.

        Returns
        -------
        ndarray of float32, shape (n_samples, n, n_classes)

        Raises
        ------
        NotFittedError
            If the committee is not fitted.
        ParameterError
            If `n_samples` is below 1 or above the number of members.
        """
        members: list[Any] | None = getattr(self, "estimators_", None)
        if members is None:
            raise NotFittedError("this Committee is not fitted; call fit(X, y) first")
        wanted = len(members) if n_samples is None else n_samples
        if not is_whole(wanted) or wanted < 1:
            raise ParameterError(f"n_samples={n_samples!r}; expected a whole number, 1 or more")
        if wanted > len(members):
            raise ParameterError(
                f"asked for {counted(wanted, 'member')}; the committee has {len(members)}"
            )
        return np.stack([member.predict_proba(X) for member in members[:wanted]])
