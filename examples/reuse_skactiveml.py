"""scikit-activeml's strategies on your own images, without skal's loop.

python examples/reuse_skactiveml.py FOLDER     one subfolder of images per class
python examples/reuse_skactiveml.py            the digits, written to such a folder first
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skactiveml.pool import Badge, GreedyBALD, RandomSampling, UncertaintySampling
from sklearn.datasets import load_digits

import skal


def write_digits(root: Path) -> Path:
    """Write scikit-learn's digits as PNG files, a folder for each class."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{number:04}.png")
    return root


def main(folder: Path) -> None:
    """Label 30 images, train, and query the next five with four strategies."""
    data = skal.load_dataset(folder, image_size=16, data_dir=folder.parent / "cache")
    X, y = data.X, np.full(len(data.X), -1)
    first = RandomSampling(missing_label=-1, random_state=0).query(X, y, batch_size=30)
    y[first] = data.y[first]  # here you would ask a person

    clf = skal.ImageClassifier("small-cnn", classes=range(len(data.classes)), random_state=0)
    clf.fit(X, y)
    print(f"accuracy with 30 labels: {clf.score(data.X_test, data.y_test):.3f}")

    common = {"missing_label": -1, "random_state": 0}
    uncertainty = UncertaintySampling(method="margin_sampling", **common)
    badge = Badge(clf_embedding_flag_name={"extra_outputs": "emb"}, **common)
    bald = GreedyBALD(sample_predictions_method_name="sample_proba", **common)
    picks = {
        "RandomSampling": RandomSampling(**common).query(X, y, batch_size=5),
        "UncertaintySampling": uncertainty.query(X, y, clf, fit_clf=False, batch_size=5),
        "Badge": badge.query(X, y, clf, fit_clf=False, batch_size=5),
        "GreedyBALD": bald.query(X, y, clf, fit_ensemble=False, batch_size=5),
    }
    for name, indices in picks.items():
        print(f"{name:<20}", [data.paths[index] for index in indices])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(write_digits(Path(temporary) / "digits"))
