"""To what size small images are enlarged for the bundled network, and with which of its features.

    python benchmarks/enlarged.py digits fashion-mnist FOLDER

The images, 4,000 at most, are enlarged, embedded once by each network, frozen, and classified by
its logistic regression on labels drawn at random, the same for all with the same seed; the accuracy
is that on 1,000 others. A folder is read at its own size, by default 32 px.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from _report import report

import skal

MODELS = ("efficientnet-lite0", "efficientnet-lite0-stages")
BUDGETS = (50, 200, 500)
MOST, N_TEST = 4000, 1000


def images_of(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return some images of a dataset, and their labels."""
    options = {"image_size": size} if Path(name).is_dir() else {"data_dir": "/usr/share/datasets"}
    data = skal.load_dataset(name, **options)
    X, y = np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test])
    rows = np.sort(np.random.default_rng(0).permutation(len(X))[:MOST])
    return X[rows], y[rows]


def enlarged(X: np.ndarray, size: int) -> np.ndarray:
    """Return images at a size, as the network enlarges them itself."""
    pixels = F.interpolate(torch.from_numpy(X).float(), size, mode="bilinear", antialias=True)
    return pixels.round().clamp(0, 255).byte().numpy()


@click.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("--size", default=32, show_default=True, help="Of the images of a folder.")
@click.option("--sizes", default="64,112,160", show_default=True, help="To enlarge them to.")
@click.option("--seeds", default=4, show_default=True)
def main(datasets: tuple[str, ...], size: int, sizes: str, seeds: int) -> None:
    """Print a table of accuracies."""
    rows = []
    for name in datasets:
        X, y = images_of(name, size)
        for px in map(int, sizes.split(",")):
            for model in MODELS:
                options = {"pretrained": True, "freeze": True, "classes": np.unique(y)}
                start = time.process_time()
                features = skal.embed(skal.ImageClassifier(model, **options), enlarged(X, px))
                took, cells = time.process_time() - start, []
                for n in BUDGETS:
                    scores = []
                    for seed in range(seeds):
                        order = np.random.default_rng(seed).permutation(len(X))
                        test, labeled = order[:N_TEST], order[N_TEST : N_TEST + n]
                        head = skal.ImageClassifier(model, **options, random_state=seed)
                        head.fit(features[labeled], y[labeled])
                        scores.append(np.mean(head.predict(features[test]) == y[test]))
                    cells.append(f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}")
                rows.append([Path(name).name, px, model, *cells, f"{took:.0f}"])
    report(
        "To what size small images are enlarged",
        ["images", "px", "network, frozen", *(f"{n} labels" for n in BUDGETS), "seconds to embed"],
        rows,
        f"Mean accuracy and standard deviation of {seeds} draws of labels, on {N_TEST:,} of at "
        f"most {MOST:,} images; seconds of processors.",
    )


if __name__ == "__main__":
    main()
