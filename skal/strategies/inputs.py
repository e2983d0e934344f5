"""The inputs of a strategy, X and a model, given what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skactiveml.classifier import ParzenWindowClassifier, SklearnClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from ..core.errors import ParameterError
from ..core.registry import import_object
from ..datasets.base import MISSING_LABEL
from .resolve import Strategy
from .scores import HeadClassifier, ScoredClassifier, Scores


@dataclass(frozen=True)
class Given:
    """Inputs of a strategy: X (None for an index column) and keywords."""

    X: NDArray[Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    init: Mapping[str, Any] = field(default_factory=dict)


def _model(strategy: Strategy, model: Any, fit: bool) -> dict[str, Any]:
    keyword = strategy.facts.get("model", "clf")
    if keyword is None:
        return {}
    takes = inspect.signature(strategy.cls.query).parameters  # type: ignore[attr-defined]
    switch = {f"fit_{keyword}": fit} if f"fit_{keyword}" in takes else {}
    return {keyword: model, **switch}


def _scored(strategy: Strategy, scores: Scores) -> Given:
    return Given(query=_model(strategy, ScoredClassifier(scores), fit=False))


def _embedded(strategy: Strategy, scores: Scores) -> Given:
    if strategy.reads is not None:  # skal's strategies get them from the classifier
        return _scored(strategy, scores)
    known = {"classes": scores.classes, "n_classes": max(len(scores.classes), 2)}
    takes = inspect.signature(strategy.cls).parameters
    init = {k: v for k, v in known.items() if k in takes and k not in strategy.params}
    embeddings = scores.embeddings
    if strategy.facts.get("unit_length"):
        embeddings = normalize(embeddings)
    return Given(embeddings, init=init)


def _headed(strategy: Strategy, scores: Scores) -> Given:
    return Given(scores.embeddings, _model(strategy, HeadClassifier(scores), fit=False))


def _own_model(strategy: Strategy, scores: Scores) -> Given:
    learner = strategy.facts.get("learner")
    cls = import_object(learner) if learner else ParzenWindowClassifier
    model = cls(classes=scores.classes, missing_label=MISSING_LABEL, random_state=0)
    assert scores.embeddings is not None
    X = scores.embeddings.astype(strategy.facts.get("dtype", np.float32), copy=False)
    return Given(X, _model(strategy, model, fit=True))


def linear_discriminator(**options: Any) -> SklearnClassifier:
    """Return logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return SklearnClassifier(model, **options)


_INPUTS: Mapping[str, Callable[[Strategy, Scores], Given]] = {
    "scores": _scored,
    "samples": _scored,
    "committee": _scored,
    "embeddings": _embedded,
    "head": _headed,
    "own model": _own_model,
}


def inputs(strategy: Strategy, scores: Scores | None) -> Given:
    """Return the inputs of a strategy; raise ParameterError if it needs scores and has none."""
    if strategy.needs == "nothing":
        return Given()
    if scores is None:
        raise ParameterError(f"{strategy.title} needs scores of the pool")
    return _INPUTS[strategy.needs](strategy, scores)
