"""Temperature scaling: probabilities that are as sure as the network is right."""

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
from ..core.text import counted, plural
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
    """Fit the temperature of a trained classifier to its labelled images, by cross-validation.

    Clones of the classifier are trained on all folds but one and asked for the logits of that
    one. The temperature is what these logits, divided by it, explain the labels best with, in
    likelihood (Guo et al., 2017, section 4.2). From then on all that the classifier says is at
    this temperature, until it is trained again; which class is the most probable does not change.

    Parameters
    ----------
    classifier : ImageClassifier
        A fitted one. Its weights stay as they are.
    X, y, rows
        As for `ImageClassifier.fit`.
    seed : int
        Seeds the folds and the training in each, not negative.

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
            "not calibrated: that needs two labelled images of one class and one of another, there "
            "%s %s of %s",
            plural(len(labeled), "is", "are"),
            counted(len(labeled), "image"),
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
    """Return the temperature, in [0.5, 20], at which labels are most likely.

    The logits, (n, n_classes), are of images that the network was not trained on; `y`, (n,), has
    their columns. If they are not finite a warning is logged, and the temperature is 1.
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
    # the search only comes near a minimum that is at a bound
    return min(math.exp(found.x), MIN_TEMPERATURE, MAX_TEMPERATURE, key=loss)


def uncalibrated(proba: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities, (..., n_classes), that a network had given at temperature 1.

    They are normalised powers of those at `temperature`, of which what was rounded to 0 counts as
    the smallest number that float32 has.
    """
    smallest = np.finfo(np.float32).smallest_subnormal
    powers = np.log(np.maximum(proba, smallest), dtype=np.float64) * temperature
    powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
