"""The final network, and the next images for labelling in other tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.durable import new_folder, write_atomic
from ..core.text import counted
from ..datasets.base import MISSING_LABEL
from ..models.persistence import save_classifier
from ..runs.environment import environment
from ..runs.preparation import default_folder
from ..runs.record import ENVIRONMENT, SUMMARY, check_free
from .doubts import folds, held_out
from .exporting import export_csv
from .learning import BatchRequest
from .ledger import TEST
from .picking import Picker
from .project import LabelProject
from .queue import TEST_EVERY
from .sample import Accuracy

_log = logging.getLogger("skal")


def next_images(project: LabelProject, n: int) -> list[tuple[int, str]]:
    """Pick `n` images to label next, every tenth for the test set, without storing the picks.

    The source of each is "strategy", "start" until two classes have a label, or "test".
    """
    reserve = [image for image in project.reserve if not project.ledger.is_touched(image)]
    kept = reserve[: n // TEST_EVERY]
    candidates = sorted(project.pool - {*project.reserve, *project.ledger.images()})
    request = project.request(candidates, n - len(kept))
    answer = Picker(project.learner_setup()).answer(request)
    project.guesses = answer.guesses
    picks = [(image, answer.kind) for image in answer.picks]
    for number, image in enumerate(kept, start=1):
        picks.insert(number * TEST_EVERY - 1, (image, TEST))
    return picks


def train(project: LabelProject, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Train the final network on all labels; return its folder and the content of ``summary.json``.

    The folder is a new one under ``runs/``, or `out`, which must not exist. The reported accuracy
    is that of a network trained without the labels of the test set; the final one, trained on these
    too, should be no worse. Without test labels, it is that of a stratified cross-validation over
    the labels, which is biased if a strategy picked them. Raise a RunExistsError if `out` exists,
    and a DataError without two classes with a label.
    """
    if out is not None:
        check_free(out)
    picker = Picker(project.learner_setup())
    labels, test = project.labels, project.test_labels
    classes = tuple(project.classes)
    source, truth = ("test", test) if test else ("cross-validation", labels)
    parts = [list(test)] if test else folds(labels, project.config.seed, project.paths)
    if not test and parts:
        more = counted(len(parts), "more network")
        _log.info("cross-validation over the labels trains %s", more)
    predicted: dict[int, Any] = {}
    for network, part in held_out(picker, classes, labels, parts):
        predicted.update(picker.proba(network, part))
    accuracy: dict[str, Any] = {"n": 0}
    if predicted:
        n_right = sum(int(proba.argmax()) == truth[n] for n, proba in predicted.items())
        accuracy = Accuracy.of(n_right, len(predicted))._asdict()
    unseen = sorted(set(range(len(classes))) - set(labels.values()))
    if unseen:
        names = ", ".join(classes[label] for label in unseen)
        _log.warning("no image has the label %s, so the network cannot learn it", names)
    final = picker.train(BatchRequest(classes, labels, (), 0), calibrated=True)
    folder = out or default_folder(final.config.replace(strategy="label"), final.data)
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
    with new_folder(folder) as made:
        save_classifier(final.classifier, made, class_names=classes, **facts)
        write_atomic(made / "config.toml", final.config.to_toml())
        write_atomic(made / "labels.csv", export_csv(project))
        write_atomic(made / ENVIRONMENT, _json(environment(final.config)))
        write_atomic(made / SUMMARY, _json(summary))
    return folder, summary


def describe(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """Return lines on what `train` has made, and its accuracy."""
    labels = counted(summary["n_labeled"], "label")
    made = f"{folder}: {summary['model']} trained on {labels}"
    if summary["accuracy"] is None:
        return [
            made,
            "its accuracy is unknown: there are no test labels, and too few labels for "
            "cross-validation",
        ]
    names = ("accuracy", "accuracy_low", "accuracy_high", "n_accuracy")
    accuracy = Accuracy(*(summary[name] for name in names))
    if summary["accuracy_from"] == "test":
        return [made, f"accuracy when trained without the test labels: {accuracy}"]
    return [
        made,
        f"accuracy by cross-validation over the labels: {accuracy.value:.3f} ({accuracy.low:.3f} "
        f"to {accuracy.high:.3f} at 95 % confidence, {counted(accuracy.n, 'image')}); it is biased "
        "if a strategy picked these images: only randomly drawn test images give an unbiased "
        "estimate",
    ]


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
