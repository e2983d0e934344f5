"""Temperature scaling: probabilities that are as sure as the network is right."""

from __future__ import annotations

import logging
import math
import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.utils import is_labeled
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from ..core.seeding import derive_seed
from ..datasets.base import Images
from .classifier import ImageClassifier
from .inference import NotFittedError

N_FOLDS = 5
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.5, 20.0

_log = logging.getLogger("skal")


def calibrate(
    classifier: ImageClassifier,
    X: Images,
    y: ArrayLike,
    *,
    seed: int,
    rows: NDArray[np.int64] | None = None,
) -> float:
    """Fit the temperature of a trained classifier to its labelled images, by cross-validation.

    Clones of the classifier are trained on all folds but one and asked for the logits of that
    one. The temperature is what these logits, divided by it, explain the labels best with, in
    likelihood (Guo et al., 2017, section 4.2). From then on all that the classifier says is at
    this temperature, until it is trained again; which class is the most probable does not change.

    Parameters
    ----------
    classifier : ImageClassifier
        A fitted one. Its weights stay as they are.
    X : ndarray of uint8, shape (n, channels, height, width)
        Labelled and unlabelled images, as for `ImageClassifier.fit`; the latter are not read.
    y : array-like of int, shape (n,)
        Labels; the classifier's `missing_label` where there is none.
    seed : int
        Seeds the folds and the training in each, not negative.
    rows : ndarray of int64, optional
        As for `ImageClassifier.fit`.

    Returns
    -------
    float
        The temperature, above 1 for a network that was too sure. It is within [0.5, 20]: held-out
        images that are all classified right by a margin would draw it to 0, logits that tell
        nothing to infinity. It is 1, and a notice is logged, if the labels do not suffice: they
        are of one class alone, or no class has two images.

    Raises
    ------
    NotFittedError
        If the classifier was never fitted.
    DataError, ParameterError
        As `ImageClassifier.fit`.

    Notes
    -----
    There are five folds, or as many as the largest class has images if those are fewer. Labels of
    a class that is in one fold alone count too, although the network that is asked for them has
    not seen the class.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On Calibration of Modern Neural Networks.
    ICML 2017.
    """
    if not hasattr(classifier, "neural_net_"):
        raise NotFittedError(
            "only a fitted ImageClassifier can be calibrated; call fit(X, y) first"
        )
    labels = np.asarray(y)
    labeled = np.flatnonzero(is_labeled(labels, missing_label=classifier.missing_label))
    counts = np.unique(labels[labeled], return_counts=True)[1]
    temperature = 1.0
    if len(counts) < 2 or counts.max() < 2:
        _log.warning(
            "not calibrated: that needs two labelled images of one class and one of another, there "
            "are %d images of %d classes",
            len(labeled),
            len(counts),
        )
    else:
        held_out, logits = [], []
        for fold, test in enumerate(_folds(labels[labeled], int(counts.max()), seed)):
            held_out.append(labeled[test])
            network = clone(classifier).set_params(random_state=derive_seed(seed, "training", fold))
            y_train = labels.copy()
            y_train[labeled[test]] = classifier.missing_label
            network.fit(X, y_train, rows=rows)
            logits.append(network.predict_proba(X[labeled[test]], extra_outputs="logits")[1])
        columns = np.searchsorted(classifier.classes_, labels[np.concatenate(held_out)])
        temperature = fit_temperature(np.concatenate(logits), columns)
    classifier.neural_net_.module_.temperature.fill_(temperature)
    rounded: float = classifier.temperature
    return rounded


def _folds(labels: NDArray[np.int64], largest_class: int, seed: int) -> list[NDArray[np.int64]]:
    """Return which labels each fold holds out."""
    n_folds = min(N_FOLDS, largest_class)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=derive_seed(seed, "split"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [test for _, test in splitter.split(labels, labels)]


def fit_temperature(logits: NDArray[np.floating], y: NDArray[np.int64]) -> float:
    """Return the temperature of the highest likelihood of the labels, by scikit-learn.

    Parameters
    ----------
    logits : ndarray of float, shape (n, n_classes)
        Of images that the network was not trained on.
    y : ndarray of int, shape (n,)
        Their columns.

    Returns
    -------
    float
        In [0.5, 20]; 1, and a warning is logged, if the logits are not finite.
    """
    n_classes = logits.shape[1]
    if not np.isfinite(logits).all():
        _log.warning("not calibrated: the network's outputs are not finite")
        return 1.0
    # scikit-learn takes the classes from y, so that each without a label gets a row of no weight
    unseen = np.setdiff1d(np.arange(n_classes), y)
    values = np.concatenate([logits, np.zeros((len(unseen), n_classes))]).astype(np.float64)
    # rows that sum to 0, since it takes rows that sum to 1 for probabilities
    values -= values.mean(axis=1, keepdims=True)
    everything = np.arange(len(values))
    scaling = CalibratedClassifierCV(
        FrozenEstimator(_identity(n_classes)), method="temperature", cv=[(everything, everything)]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not appear to accept sample_weight", UserWarning)
        scaling.fit(
            values,
            np.concatenate([y, unseen]),
            sample_weight=np.repeat([1.0, 0.0], [len(y), len(unseen)]),
        )
    inverse = float(scaling.calibrated_classifiers_[0].calibrators[0].beta_)
    if not (math.isfinite(inverse) and inverse > 0):
        _log.warning("not calibrated: scikit-learn found the inverse temperature %r", inverse)
        return 1.0
    return min(max(1 / inverse, MIN_TEMPERATURE), MAX_TEMPERATURE)


def _identity(n_classes: int) -> LogisticRegression:
    """Make a fitted classifier whose `X` is its logits."""
    linear = LogisticRegression()
    linear.classes_ = np.arange(n_classes)
    # of two classes scikit-learn takes one column x and makes (-x, x) of it
    linear.coef_ = np.array([[-0.5, 0.5]]) if n_classes == 2 else np.eye(n_classes)
    linear.intercept_ = np.zeros(len(linear.coef_))
    return linear


def uncalibrated(proba: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities that the network would have given at temperature 1.

    Parameters
    ----------
    proba : ndarray of float32, shape (..., n_classes)
        At `temperature`.
    temperature : float
        As `calibrate` returned it.

    Returns
    -------
    ndarray of float32, shape (..., n_classes)
        Powers of `proba`, normalised. Probabilities that were rounded to 0 count as the smallest
        that float32 has.
    """
    smallest = np.finfo(np.float32).smallest_subnormal
    powers = np.log(np.maximum(proba, smallest), dtype=np.float64) * temperature
    powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
