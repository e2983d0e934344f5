"""Temperature scaling, fitted by cross-validation on the labelled images."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from skactiveml.utils import is_labeled
from sklearn.base import clone

from ..core.seeding import derive_seed
from ..core.text import counted
from ..datasets.base import Images
from .classifier import ImageClassifier
from .folds import stratified_folds
from .inference import NotFittedError

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
    """Fit the temperature of a trained classifier by cross-validation on its labelled images.

    For each fold a clone of the classifier is trained on the other folds and predicts the logits of
    the fold. The temperature maximises the likelihood of the labels given all held-out logits
    divided by it (Guo et al., 2017, section 4.2). The classifier's outputs are at this temperature
    until it is trained again. The most probable class does not change.

    Parameters
    ----------
    classifier : ImageClassifier
        A fitted classifier. Its weights do not change.
    X, y, rows
        As for `ImageClassifier.fit`.
    seed : int
        Seeds the folds and the training in each; not negative.

    Returns
    -------
    float
        The temperature, above 1 for an overconfident network. It is clipped to [0.5, 20], since it
        would tend to 0 where all held-out images are classified correctly, and to infinity where
        logits carry no information. It is 1, and a warning is logged, if the labels are of one
        class only, or no class has two images.

    Raises
    ------
    NotFittedError
        If the classifier is not fitted.
    DataError, ParameterError
        As for `ImageClassifier.fit`.

    Notes
    -----
    There are five folds, or as many as the largest class has images if that is fewer. Labels count
    even if their class is in one fold only, so that the network asked about them never saw it.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On Calibration of Modern Neural Networks.
    ICML 2017.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
    >>> clf = clf.fit(data.X[:50], data.y[:50])
    >>> 0.5 <= skal.calibrate(clf, data.X[:50], data.y[:50], seed=0) <= 20
    True
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
            "not calibrated: got %s of %s; expected at least two of one class and one of another",
            counted(len(labeled), "labelled image"),
            counted(len(counts), "class", "classes"),
        )
    else:
        held_out, logits = [], []
        folds = stratified_folds(labels[labeled], derive_seed(seed, "split"))
        for fold, test in enumerate(folds):
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


def fit_temperature(logits: NDArray[np.floating], y: NDArray[np.int64]) -> float:
    """Return the temperature, in [0.5, 20], that maximises the likelihood of labels.

    The logits, (n, n_classes), must be of held-out images; `y`, (n,), holds the columns of their
    labels. If logits are not finite, the temperature is 1 and a warning is logged.
    """
    if not np.isfinite(logits).all():
        _log.warning("not calibrated: the network's outputs are not finite")
        return 1.0
    values, rows = logits.astype(np.float64), np.arange(len(y))

    def loss(temperature: float) -> float:
        return float(-log_softmax(values / temperature, axis=1)[rows, y].mean())

    found = minimize_scalar(
        lambda log: loss(math.exp(log)),
        bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    # the bounded search never evaluates its bounds
    return min(math.exp(found.x), MIN_TEMPERATURE, MAX_TEMPERATURE, key=loss)


def uncalibrated(proba: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities, (..., n_classes), at temperature 1, given those at `temperature`.

    They are the normalised powers ``proba ** temperature``, with probabilities that were rounded
    to 0 replaced by the smallest float32.
    """
    smallest = np.finfo(np.float32).smallest_subnormal
    powers = np.log(np.maximum(proba, smallest), dtype=np.float64) * temperature
    powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
