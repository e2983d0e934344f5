"""Wrong labels among those that are shown first: skal's doubts, cleanlab's, and chance.

    apt-get install openclipart-png
    pip install cleanlab
    python benchmarks/openclipart.py openclipart
    OMP_NUM_THREADS=1 python benchmarks/doubts.py openclipart digits

Of 1,000 labels drawn at random a tenth are made wrong, each another class drawn at random. The head
of the default network on its features is cross-validated twice, as `skal doubts` does it, and once;
all rankings but `by chance` are of its probabilities, those of cleanlab of the first ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from _report import report
from numpy.typing import NDArray

import skal
from skal.label.doubts import Doubts, folds, weights_by

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

FROZEN: dict[str, Any] = {
    "model": "efficientnet-lite0-stages",
    "pretrained": True,
    "freeze": True,
}
Order = Callable[[NDArray[np.int64], NDArray[np.float32], int], NDArray[np.int64]]


def by_skal(y: NDArray[np.int64], proba: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    return np.array([doubt.image for doubt in Doubts(np.arange(len(y)), y, proba).ranked])


def by_quality(method: str) -> Order:
    def order(y: NDArray[np.int64], proba: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
        scores = get_label_quality_scores(y, proba, method=method)
        return np.argsort(scores, kind="stable")

    return order


def by_filter(y: NDArray[np.int64], proba: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    ranked = "self_confidence"
    return np.asarray(find_label_issues(y, proba, return_indices_ranked_by=ranked, n_jobs=1))


def by_chance(y: NDArray[np.int64], proba: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed + 1000).permutation(len(y))


WAYS: dict[str, Order] = {
    "skal doubts": by_skal,
    "the same, cross-validated once": by_skal,
    "cleanlab, find_label_issues": by_filter,
    "cleanlab, self_confidence": by_quality("self_confidence"),
    "cleanlab, normalized_margin": by_quality("normalized_margin"),
    "by chance": by_chance,
}


def held_out(
    X: NDArray[Any],
    y: NDArray[np.int64],
    n_classes: int,
    seed: int,
    weights: NDArray[np.floating],
) -> NDArray[np.float32]:
    proba = np.zeros((len(y), n_classes), np.float32)
    for test in folds(dict(enumerate(y.tolist())), seed):
        rest = np.setdiff1d(np.arange(len(y)), test)
        network = skal.ImageClassifier(**FROZEN, classes=range(n_classes), random_state=seed)
        proba[test] = network.fit(X[rest], y[rest], weights[rest]).predict_proba(X[test])
    return proba


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--seeds", default=5, show_default=True)
@click.option("--labels", "n_labels", default=1000, show_default=True)
@click.option("--size", default=224, show_default=True, help="Of folders, in pixels.")
@click.option("--cache", default="data/cache", type=click.Path(path_type=Path), show_default=True)
def main(datasets: tuple[str, ...], seeds: int, n_labels: int, size: int, cache: Path) -> None:
    """Make labels wrong, and count how many are among the first tenth."""
    rows = []
    for name in datasets:
        data = skal.load_dataset(name, image_size=size if Path(name).is_dir() else None)
        n_classes = len(data.classes)
        asked = skal.ImageClassifier(**FROZEN, classes=range(n_classes))
        features = skal.embed(asked, data.X, cache)
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            drawn = np.sort(rng.choice(len(data.y), n_labels, replace=False))
            wrong = rng.choice(n_labels, n_labels // 10, replace=False)
            y = data.y[drawn].copy()
            y[wrong] = (y[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
            X = np.asarray(features[drawn])
            once = held_out(X, y, n_classes, seed, np.ones(n_labels))
            twice = held_out(X, y, n_classes, seed, weights_by(y, once))
            for way, order in WAYS.items():
                proba = twice if way == "skal doubts" else once
                shown = order(y, proba, seed)[: n_labels // 10]
                found[way].append(np.isin(wrong, shown).mean())
        for way, shares in found.items():
            spread = f"{np.mean(shares):.1%} ± {np.std(shares, ddof=1):.1%}"
            rows.append((Path(name).name, way, spread))
    columns = ("dataset", "ranked by", "of the wrong labels among the first tenth")
    note = (
        f"Mean and deviation of {seeds} draws of {n_labels} labels, a tenth wrong. "
        "Target: 70 %, and not below cleanlab's. `find_label_issues`, by its default filter and "
        "ranked by self_confidence, may show fewer than a tenth. openclipart has wrong labels of "
        "its own: files that are in two of its classes."
    )
    report("Wrong labels found", columns, rows, note)


if __name__ == "__main__":
    main()
