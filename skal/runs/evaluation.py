"""Evaluation of a round's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DIVERGED, SkalError
from ..datasets.base import Images, Labels
from ..datasets.pool import Pool
from ..models.backbone import Backbone
from ..models.calibration import uncalibrated
from ..models.classifier import ImageClassifier
from ..models.features import features_of
from ..models.kept_backbone import ready_backbone
from ..strategies.scores import score_pool
from .config import RunConfig
from .metrics import evaluate


class Inputs(NamedTuple):
    """Inputs of the networks: images, or the features of a frozen backbone."""

    X: NDArray[Any]
    X_test: NDArray[Any]
    backbone: Backbone | None = None


def network_inputs(
    config: RunConfig,
    classifier: ImageClassifier,
    X: Images,
    X_test: Images,
    backbone: Backbone | None = None,
) -> Inputs:
    """Return the images, or their features by the frozen `backbone`, which are cached for all runs.
    A backbone is built unless it is given.
    """
    if not classifier.freeze:
        return Inputs(X, X_test)
    cache = config.cache
    backbone = backbone or ready_backbone(classifier, X.shape[1:], cache)
    features, features_test = (features_of(backbone, images, cache) for images in (X, X_test))
    return Inputs(features, features_test, backbone)


def measure(
    classifier: ImageClassifier, X_test: NDArray[Any], y_test: Labels, calibrated: bool
) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Return the metrics of a round and the class probabilities of the test images. A solved head
    adds the regularisation strength and stages that it selected, a calibrated network adds the
    metrics before calibration. Raise a `SkalError` if probabilities are NaN.
    """
    proba: NDArray[np.float32] = score_pool(classifier, X_test).proba
    if not np.isfinite(proba).all():
        raise SkalError(f"the network predicts NaN: {DIVERGED}")
    metrics = evaluate(y_test, proba)
    if classifier.is_solved:
        chosen = {"head_C": classifier.strength, "stages_share": classifier.stages_share}
        metrics |= {name: value for name, value in chosen.items() if value is not None}
    if calibrated:
        before = evaluate(y_test, uncalibrated(proba, classifier.temperature))
        metrics["temperature"] = classifier.temperature
        metrics.update({f"{name}_uncalibrated": before[name] for name in ("nll", "ece")})
    return metrics, proba


def round_row(
    number: int,
    metrics: Mapping[str, float],
    classifier: ImageClassifier,
    pool: Pool,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return a round's row of ``rounds.csv``, with metrics on held-out images, if there are any."""
    valid, held_out = {}, pool.valid
    if len(held_out):
        found = evaluate(pool.y_valid, score_pool(classifier, pool.X, rows=held_out).proba)
        valid = {f"valid_{name}": found[name] for name in ("accuracy", "nll")}
    n_labeled = len(pool.labeled) + len(held_out)  # labels spent, on training and on validation
    return {"round": number, "n_labeled": n_labeled, **metrics, **valid, **seconds}
