"""An exported network against skal's own: what it answers, and how many images a second.

    python benchmarks/exports.py --folder FOLDER

of class folders: `efficientnet-lite0`, frozen, at 112 px and `small-cnn` at 48 px are trained on
100 labels, exported, and asked about 1,000 of the images, decoded before, by each program in turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from _report import report

import skal
from skal.prediction.exports import export_model, read_exported
from skal.prediction.networks import ExportedNetwork

N, REPEATS = 1_000, 3
KINDS: dict[str, dict[str, Any]] = {
    "efficientnet-lite0, frozen": {
        "model": "efficientnet-lite0",
        "freeze": True,
        "image_size": 112,
    },
    "small-cnn": {"model": "small-cnn", "image_size": 48},
}
FORMATS = ("onnx", "torchscript")


def speed(answer: Callable[[Any], Any], images: Any) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        answer(images)
        best = min(best, time.perf_counter() - start)
    return len(images) / best


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--print-only", is_flag=True, help="Leave RESULTS.md as it is.")
def main(folder: Path, print_only: bool) -> None:
    """Compare."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, settings) in enumerate(KINDS.items()):
            settings = {**settings, "pretrained": settings.get("freeze", False)}
            data = skal.load_dataset(folder, image_size=settings.pop("image_size"))
            run = Path(scratch) / str(number)
            skal.run(data, "random", n_init=100, n_rounds=0, out=run, **settings)
            images = np.asarray(data.X_test[:N])
            classifier = skal.load_classifier(run, "cpu")
            expected = classifier.predict_proba(images)
            ours = speed(classifier.predict_proba, images)
            rows.append([name, "skal", f"{ours:,.0f}", "", "", ""])
            for form in FORMATS:
                path = export_model(run, format=form, images=images).out
                network, _ = read_exported(path, trust=True)
                assert isinstance(network, ExportedNetwork)
                found = network(images)[0]
                same = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
                theirs = speed(network, images)
                difference = np.abs(found - expected).max()
                agreed = f"{same:,} of {len(images):,}"
                row = [f"{theirs:,.0f}", f"{theirs / ours:.2f}", f"{difference:.1e}", agreed]
                rows.append([name, form, *row])
    report(
        "An exported network against skal's own",
        ["network", "program", "images a second", "of skal's", "largest difference", "same class"],
        rows,
        f"{N:,} test images of a folder, best of {REPEATS}; onnxruntime and torch with the threads "
        "that torch has. Target: the same classes, probabilities within 1e-4.",
        keep=not print_only,
    )


if __name__ == "__main__":
    main()
