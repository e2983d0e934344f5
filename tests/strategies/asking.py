"""Scores, and the strategies asked about them, as several test files want them."""

from __future__ import annotations

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from sklearn.preprocessing import normalize

from skal.strategies import (
    resolve_strategy,
    select,
)
from skal.strategies.scores import ScoredClassifier, Scores
from skal.testing import N_IMAGES, example_scores

INDEX = np.arange(N_IMAGES)[:, None]


NONE_LABELED = np.full(N_IMAGES, -1)


def ask(strategy: object, **params: object) -> np.ndarray:
    scores = params.pop("scores", example_scores())
    n = params.pop("n", 8)
    y = params.pop("y", np.full(len(scores), -1))
    seed = params.pop("seed", 0)
    chosen = resolve_strategy(strategy, params)
    return select(chosen, y, n, scores=scores, seed=seed)


def utilities(query: SingleAnnotatorPoolQueryStrategy, scores: Scores, n: int = 1) -> np.ndarray:
    """What a strategy, asked as scikit-activeml's users do, says that its picks were chosen by."""
    X, y = np.arange(len(scores))[:, None], np.full(len(scores), -1)
    clf = ScoredClassifier(scores)
    _, rows = query.query(X, y, clf, fit_clf=False, batch_size=n, return_utilities=True)
    return rows


def made(
    proba: object, embeddings: object = None, samples: object = None, **others: object
) -> Scores:
    """Scores written out by hand."""
    proba, embeddings, samples = (
        None if values is None else np.asarray(values, np.float32)
        for values in (proba, embeddings, samples)
    )
    return Scores(np.arange(proba.shape[1]), proba, embeddings, samples, **others)


def labels(n: int = N_IMAGES, n_labeled: int = 9) -> np.ndarray:
    return np.where(np.arange(n) < n_labeled, np.arange(n) % 3, -1)


def directions(sizes: tuple[int, ...], seed: int = 0) -> tuple[Scores, np.ndarray]:
    """Clusters of embeddings by direction, at lengths that mean nothing."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    points = np.eye(len(sizes))[cluster] + 0.05 * rng.normal(size=(len(cluster), len(sizes)))
    points *= rng.uniform(0.5, 5, (len(cluster), 1))
    high = rng.uniform(0.4, 0.99, len(cluster))
    return made(np.stack([high, *[(1 - high) / 2] * 2], axis=1), points), cluster


def most_typical(scores: Scores, rows: np.ndarray, k: int = 20) -> int:
    unit = normalize(scores.embeddings[rows].astype(float))
    distance = np.sort(np.linalg.norm(unit[:, None] - unit, axis=2), axis=1)
    k = min(k, max(len(rows) // 2, 1))
    return int(rows[distance[:, 1 : k + 1].mean(1).argmin()])
