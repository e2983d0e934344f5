"""The end: the next images for those who label elsewhere, and the final network."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.durable import write_atomic
from ..datasets.base import MISSING_LABEL
from ..models.folds import stratified_folds
from ..models.persistence import save_classifier
from ..runs.environment import environment
from ..runs.preparation import default_folder
from ..runs.record import ENVIRONMENT, SUMMARY, check_free
from .exporting import export_csv
from .learning import BatchRequest
from .ledger import TEST
from .picking import Picker
from .project import LabelProject
from .queue import TEST_EVERY
from .sample import Accuracy

_log = logging.getLogger("skal")


def next_images(project: LabelProject, n: int) -> list[tuple[int, str]]:
    """Choose `n` images to label next, every tenth for the test, without keeping that they were
    chosen.

    The source beside each is "strategy", "start" while there are no two classes with a label, or
    "test".
    """
    reserve = [image for image in project.reserve if not project.ledger.is_touched(image)]
    kept = reserve[: n // TEST_EVERY]
    candidates = sorted(project.pool.difference(project.reserve, project.ledger.images()))
    request = project.request(candidates, n - len(kept))
    answer = Picker(project.learner_setup()).answer(request)
    project.guesses = answer.guesses
    picks = [(image, answer.kind) for image in answer.picks]
    for number, image in enumerate(kept, start=1):
        picks.insert(number * TEST_EVERY - 1, (image, TEST))
    return picks


def train(project: LabelProject, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Train the final network on all labels; return its folder and the content of ``summary.json``.

    The folder is a new one under ``runs/`` unless `out` names one, which must not exist
    (RunExistsError); without two classes with a label it is a DataError. The accuracy stated is
    that of a network trained without the labels of the test sample; the final one, trained on these
    too, should be no worse. Where no image was labelled for the test it is that of a stratified
    cross-validation over the labels, which the strategy chose: it is biased.
    """
    if out is not None:
        check_free(out)
    picker = Picker(project.learner_setup())
    labels, test = project.labels, project.test_labels
    classes = tuple(project.classes)
    source, truth = ("test", test) if test else ("cross-validation", labels)
    rest = project.training_labels if test else labels
    predicted: dict[int, int] = {}
    folds = [list(test)] if test else _folds(labels, project.config.seed)
    if not test and folds:
        _log.info("cross-validation over the labels: %d more networks are trained", len(folds))
    for held_out in folds:
        known = {image: rest[image] for image in rest.keys() - set(held_out)}
        honest = picker.train(BatchRequest(classes, known, (), 0))
        predicted.update(picker.predict(honest, held_out))
    accuracy: dict[str, Any] = {"n": 0}
    if predicted:
        n_right = sum(predicted[image] == truth[image] for image in predicted)
        accuracy = Accuracy.of(n_right, len(predicted))._asdict()
    unseen = sorted(set(range(len(classes))) - set(labels.values()))
    if unseen:
        names = ", ".join(classes[label] for label in unseen)
        _log.warning("no image is labelled as %s: the network cannot know it by sight", names)
    final = picker.train(BatchRequest(classes, labels, (), 0), calibrated=True)
    folder = out or default_folder(final.config.replace(strategy="label"), final.data)
    folder.mkdir(parents=True)
    summary = {
        "dataset": project.name,
        "model": final.config.model,
        "seed": final.config.seed,
        "n_labeled": int((final.y != MISSING_LABEL).sum()),
        "n_test": len(test) and accuracy["n"],
        "n_accuracy": accuracy["n"],
        "accuracy_from": source if predicted else None,
        "accuracy": accuracy.get("value"),
        "accuracy_low": accuracy.get("low"),
        "accuracy_high": accuracy.get("high"),
        "temperature": final.classifier.temperature,
        "classes": list(classes),
    }
    facts = {"dataset": project.name, **final.data.decoded_as}
    save_classifier(final.classifier, folder, class_names=classes, **facts)
    write_atomic(folder / "config.toml", final.config.to_toml())
    write_atomic(folder / "labels.csv", export_csv(project))
    write_atomic(folder / ENVIRONMENT, _json(environment(final.config)))
    write_atomic(folder / SUMMARY, _json(summary))
    return folder, summary


def _folds(labels: Mapping[int, int], seed: int) -> list[list[int]]:
    """Divide images into five folds, or fewer, with each class in the same share; none if that
    would leave a single class to train on.
    """
    images, y = (np.array([*part], dtype=np.int64) for part in (labels, labels.values()))
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or np.sort(counts)[-2] < 2:
        return []
    return [images[test].tolist() for test in stratified_folds(y, seed)]


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
