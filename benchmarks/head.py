"""The solved head on frozen features against scikit-learn's, and against the head by gradients.

    apt-get install openclipart-png dataset-fashion-mnist
    python benchmarks/openclipart.py openclipart
    OMP_NUM_THREADS=1 python benchmarks/head.py openclipart digits fashion-mnist

Features of length 1 of the bundled network; labels drawn at random, the same for all.
scikit-learn's is `LogisticRegressionCV` with its ten strengths, five folds and L-BFGS, the cross
entropy deciding as here; a class without a label gets a probability of 1e-6 from it. Accuracy, NLL
and ECE are on the test images; times are of single fits.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
from _report import report
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

import skal
from skal.runs.metrics import evaluate

FROZEN: dict[str, Any] = {"model": "efficientnet-lite0", "pretrained": True, "freeze": True}
MOST = 6000


def features_of(name: str, cache: Path, size: int) -> tuple[np.ndarray, ...]:
    """Return features and labels to train on, and to test on."""
    is_folder = Path(name).is_dir()
    where = None if is_folder else "/usr/share/datasets"
    data = skal.load_dataset(name, image_size=size if is_folder else None, data_dir=where)
    asked = skal.ImageClassifier(**FROZEN, classes=range(len(data.classes)))
    X, X_test = (skal.embed(asked, x[:MOST], cache) for x in (data.X, data.X_test))
    return X, data.y[:MOST], X_test, data.y_test[:MOST]


def unit(X: np.ndarray) -> np.ndarray:
    X = np.asarray(X, np.float64)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def by_sklearn(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, n_classes: int) -> np.ndarray:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(
            Cs=10, cv=folds, scoring="neg_log_loss", max_iter=1000, use_legacy_attributes=False
        ).fit(unit(X), y)
    proba = np.full((len(X_test), n_classes), 1e-6)
    proba[:, model.classes_] = model.predict_proba(unit(X_test))
    return np.asarray(proba / proba.sum(axis=1, keepdims=True), np.float32)


def by_skal(head: str) -> Any:
    def proba(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, n_classes: int) -> np.ndarray:
        fitted = skal.ImageClassifier(**FROZEN, head=head, classes=range(n_classes), random_state=0)
        return np.asarray(fitted.fit(X, y).predict_proba(X_test))

    return proba


WAYS = {
    "logistic": by_skal("logistic"),
    "LogisticRegressionCV": by_sklearn,
    "linear, by gradients": by_skal("linear"),
}


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--seeds", default=3, show_default=True)
@click.option("--budgets", default="50,200,1000", show_default=True)
@click.option("--size", default=224, show_default=True, help="Of folders, in pixels.")
@click.option("--cache", default="data/cache", type=click.Path(path_type=Path), show_default=True)
def main(datasets: tuple[str, ...], seeds: int, budgets: str, size: int, cache: Path) -> None:
    """Print a table for each dataset."""
    for name in datasets:
        X, y, X_test, y_test = features_of(name, cache, size)
        n_classes, rows = int(y.max()) + 1, []
        for n in map(int, budgets.split(",")):
            found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
            for seed in range(seeds):
                chosen = np.random.default_rng(seed).choice(len(X), n, replace=False)
                for way, proba_of in WAYS.items():
                    start = time.perf_counter()
                    proba = proba_of(X[chosen], y[chosen], X_test, n_classes)
                    seconds = time.perf_counter() - start
                    measured = evaluate(y_test, proba)
                    found[way].append([measured[k] for k in ("accuracy", "nll", "ece")] + [seconds])
            for way, values in found.items():
                means, spread = np.mean(values, axis=0), np.std(values, axis=0)
                digits = zip(means[1:], (3, 3, 2), strict=True)
                figures = [f"{mean:.{places}f}" for mean, places in digits]
                rows.append([n, way, f"{means[0]:.4f} ± {spread[0]:.4f}", *figures])
                print(rows[-1], flush=True)
        report(
            f"The head on frozen features: {Path(name).name}",
            ["labels", "head", "accuracy", "NLL", "ECE", "seconds"],
            rows,
            f"Means over {seeds} seeds, ± standard deviation; the same labels for all.",
        )


if __name__ == "__main__":
    main()
