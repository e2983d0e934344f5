"""The end: the next images for those who label elsewhere, the final network, and its answers."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..core.durable import write_atomic
from ..core.errors import DataError, RunFolderError
from ..core.progress import hidden
from ..datasets.base import MISSING_LABEL, Images
from ..datasets.decoding import try_decode
from ..datasets.index import find_images
from ..models.classifier import ImageClassifier
from ..models.persistence import class_names, load_classifier, save_classifier
from ..runs.environment import environment
from ..runs.plan import default_folder
from ..runs.record import ENVIRONMENT, SUMMARY, check_free
from ..strategies.scores import score_pool
from .accuracy import Accuracy
from .batches import BatchRequest
from .exporting import export_csv
from .ledger import TEST
from .names import shown
from .picking import Picker
from .project import LabelProject
from .queue import TEST_EVERY

AT_ONCE = 1024
"""Images that are decoded before they are classified."""

_log = logging.getLogger("skal")


def next_images(project: LabelProject, n: int) -> list[tuple[int, str]]:
    """Choose the images to label next, without keeping that they were chosen.

    Parameters
    ----------
    project : LabelProject
        Whose labels are trained on.
    n : int
        How many; every tenth is one for the test.

    Returns
    -------
    list of (image, source)
        The source is "strategy", "start" while there are no two classes with a label, or "test".
    """
    reserve = [image for image in project.reserve if not project.ledger.is_touched(image)]
    kept = reserve[: n // TEST_EVERY]
    gone = set(project.reserve) | set(project.ledger.images())
    candidates = sorted(project.pool - gone)
    job = BatchRequest(
        tuple(project.classes),
        project.training_labels,
        candidates,
        project.reserve,
        n - len(kept),
        project.n_batches,
    )
    answer = Picker(project.learner_setup()).answer(job)
    project.guesses = answer.guesses
    picks = [(image, answer.kind) for image in answer.picks]
    for number, image in enumerate(kept, start=1):
        picks.insert(number * TEST_EVERY - 1, (image, TEST))
    return picks


def train(project: LabelProject, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Train the final network on all labels, and write it into a folder.

    The accuracy that is stated is that of a network trained on the same labels without those of
    the test sample; the final one, trained on these too, should be no worse.

    Parameters
    ----------
    project : LabelProject
        Whose labels.
    out : Path, optional
        The folder, which must not exist; by default a new one under ``runs/``.

    Returns
    -------
    folder : Path
    summary : dict
        The content of ``summary.json``.

    Raises
    ------
    DataError
        If there are not two classes with a label.
    RunExistsError
        If `out` is taken.
    """
    if out is not None:
        check_free(out)
    picker = Picker(project.learner_setup())
    labels, test = project.labels, project.test_labels
    classes = tuple(project.classes)
    accuracy = None
    if test:
        honest = picker.train(BatchRequest(classes, project.training_labels, (), (), 0))
        predicted = picker.predict(honest, list(test))
        n_right = sum(predicted[image] == test[image] for image in predicted)
        accuracy = Accuracy.of(n_right, len(predicted)) if predicted else None
    unseen = sorted(set(range(len(classes))) - set(labels.values()))
    if unseen:
        names = ", ".join(classes[label] for label in unseen)
        _log.warning("no image is labelled as %s: the network cannot know it by sight", names)
    final = picker.train(BatchRequest(classes, labels, (), (), 0), calibrated=True)
    folder = out or default_folder(final.config.replace(strategy="label"), final.data)
    folder.mkdir(parents=True)
    summary = {
        "dataset": project.name,
        "model": final.config.model,
        "seed": final.config.seed,
        "n_labeled": int((final.y != MISSING_LABEL).sum()),
        "n_test": accuracy.n if accuracy else 0,
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "temperature": final.classifier.temperature,
        "classes": list(classes),
    }
    save_classifier(final.classifier, folder, class_names=classes, dataset=project.name)
    write_atomic(folder / "config.toml", final.config.to_toml())
    write_atomic(folder / "labels.csv", export_csv(project))
    write_atomic(folder / ENVIRONMENT, _json(environment(final.config)))
    write_atomic(folder / SUMMARY, _json(summary))
    return folder, summary


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


def find_files(places: Sequence[Path]) -> list[Path]:
    """Return the images named, and those in the folders named, each in its order.

    Raises
    ------
    DataError
        If one of them is not there, or a folder has no image.
    """
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            files.extend(place / file.path for file in sorted(find_images(place), key=_path))
        elif place.exists():
            files.append(place)
        else:
            raise DataError(f"{str(place)!r} does not exist")
    return files


def _path(file: Any) -> str:
    return str(file.path)


def predict(folder: Path, files: Sequence[Path], out: TextIO, device: str = "auto") -> int:
    """Classify image files by a trained network and write a row of CSV for each.

    The images are prepared as those that the network was trained on. The columns are `path`,
    `class`, `probability`, that of this class, and ``p_<class>`` for each class. Of images that
    cannot be read, damaged or on a disk that fails, all but the first are empty, and the log says
    why.

    Parameters
    ----------
    folder : Path
        A run folder, or one of `train`.
    files : sequence of Path
        The images.
    out : text file
        Where to.
    device : str
        See `load_classifier`.

    Returns
    -------
    int
        How many images have a class.

    Raises
    ------
    RunFolderError
        If there is no usable network in the folder.
    DataError
        If none of the images can be read.
    """
    classifier = _load(folder, device)
    names = class_names(folder)
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["path", "class", "probability", *(f"p_{name}" for name in names)])
    n_done = 0
    reason = "there is none"
    for paths, images in _decoded(files, classifier.image_shape_):
        for path, image in zip(paths, images, strict=True):
            if isinstance(image, str):
                reason = shown(f"{path}: {image}")
                _log.warning("left out %s", reason)
        kept = [image for image in images if not isinstance(image, str)]
        of_kept = iter(score_pool(classifier, np.stack(kept)).proba if kept else ())
        for path, image in zip(paths, images, strict=True):
            row = None if isinstance(image, str) else next(of_kept)
            rows.writerow([path, *_prediction(row, names)])
        n_done += len(kept)
    if not n_done:
        raise DataError(f"none of the {len(files)} images can be read ({reason})")
    return n_done


def _load(folder: Path, device: str) -> ImageClassifier:
    try:
        return load_classifier(folder, device)
    except RunFolderError as error:
        if not folder.is_dir() or (folder / "model.json").exists():
            raise
        raise RunFolderError(
            f"no usable model in {str(folder)!r}: it has no model.json; expected the folder of a "
            "run, or one that skal train wrote"
        ) from error


def _prediction(proba: NDArray[np.float32] | None, names: Sequence[str]) -> list[str]:
    """Return class, its probability and those of all; empty where the image cannot be read."""
    if proba is None:
        return [""] * (2 + len(names))
    best = int(proba.argmax())
    shares = [f"{value:.6f}" for value in proba]
    return [names[best], shares[best], *shares]


def _decoded(
    files: Sequence[Path], shape: tuple[int, ...]
) -> Iterator[tuple[Sequence[Path], list[Images | str]]]:
    """Yield files in parts, with their pixels or why they have none."""
    n_channels, size, _ = shape

    def read(path: Path) -> Images | str:
        pixels = try_decode(path, size, strict=False)
        if isinstance(pixels, str) or n_channels == 3:
            return pixels
        return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]

    with (
        ThreadPoolExecutor(os.cpu_count()) as workers,
        tqdm(total=len(files), unit="image", disable=hidden(), leave=False) as bar,
    ):
        for start in range(0, len(files), AT_ONCE):
            part = files[start : start + AT_ONCE]
            yield part, list(workers.map(read, part))
            bar.update(len(part))
