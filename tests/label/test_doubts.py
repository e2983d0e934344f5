"""Labels that the network contradicts."""

from __future__ import annotations

import csv
import io
import json
import queue
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from label_server import PATIENCE, write_images
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

import skal
from skal.cli import main
from skal.core.errors import DataError
from skal.label.doubts import Doubts, contradicted, doubts_of, find_doubts, folds
from skal.label.importing import import_into
from skal.label.learning import BatchRequest, Learner
from skal.label.picking import Picker
from skal.label.project import LabelProject
from skal.label.store import Action

CLASSES = ["low", "middle", "top"]
FAST = {"image_size": 12, "steps": 30, "model": "lenet"}
WRONG = {4: 0, 31: 2, 57: 1}


FROZEN = {"image_size": 32, "model": "efficientnet-lite0", "pretrained": True, "freeze": True}


@pytest.fixture
def folder(tmp_path: Path, tiny: skal.ImageDataset) -> Path:
    """Ninety bars at three heights, labelled by the number modulo three, three of them wrongly."""
    return bars(tmp_path, tiny, FAST)


def bars(tmp_path: Path, tiny: skal.ImageDataset, settings: dict[str, Any]) -> Path:
    root = tmp_path / "bars"
    write_images(root, tiny.X[:, 0])
    project = LabelProject.open(root, CLASSES, settings)
    labels = {image: WRONG.get(image, image % 3) for image in project.paths}
    project.record([Action("me", "label", image, label) for image, label in labels.items()])
    project.close()
    return root


def noisy(seed: int, n: int = 400) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 2 * np.eye(3)[y]
    y[: n // 10] = rng.integers(0, 3, n // 10)
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return proba.astype(np.float32), y


def by_the_paper(proba: NDArray[Any], y: NDArray[np.int64]) -> list[bool]:
    """Section 3.1 of the paper, image by image, in float64."""
    p = proba.astype(np.float64)
    n_classes = p.shape[1]
    thresholds = [np.mean([p[i, k] for i in range(len(y)) if y[i] == k]) for k in range(n_classes)]
    found = []
    for row, label in zip(p, y, strict=True):
        reached = [k for k in range(n_classes) if row[k] >= thresholds[k]]
        likely = max(reached, key=lambda k: row[k]) if reached else label
        found.append(bool(likely != label and np.argmax(row) != label))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_is_contradicted_is_so_by_the_paper(seed: int) -> None:
    proba, y = noisy(seed)
    found = contradicted(proba, y)
    assert found.tolist() == by_the_paper(proba, y)
    assert 10 < found.sum() < 100


@pytest.mark.parametrize("seed", range(3))
def test_order_and_verdicts_are_those_of_cleanlab(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = pytest.importorskip("cleanlab.filter")
        rank = pytest.importorskip("cleanlab.rank")
    proba, y = noisy(seed)
    ours = Doubts(np.arange(len(y)), y, proba)
    theirs = filters.find_label_issues(y, proba, filter_by="confident_learning", n_jobs=1)
    np.testing.assert_array_equal(ours.contradicted, theirs)
    quality = rank.get_label_quality_scores(y, proba, method="self_confidence")
    order = [doubt.image for doubt in ours.ranked]
    np.testing.assert_array_equal(order, np.argsort(quality, kind="stable"))


def test_a_class_without_labels_contradicts_nothing() -> None:
    proba = np.array([[0.3, 0.1, 0.6], [0.2, 0.7, 0.1]], np.float32)
    assert not contradicted(proba, np.array([0, 1])).any()


def test_wrong_labels_come_first(folder: Path) -> None:
    project = LabelProject.open(folder, create=False)
    ranked = doubts_of(project).ranked
    assert {doubt.image for doubt in ranked} == set(project.labels)
    first = ranked[: len(WRONG)]
    assert {doubt.image: doubt.label for doubt in first} == WRONG
    assert all(doubt.contradicted and doubt.guess == doubt.image % 3 for doubt in first)
    assert not any(doubt.contradicted for doubt in ranked[2 * len(WRONG) :])


def test_doubts_are_of_networks_that_were_not_told_the_label(folder: Path) -> None:
    project = LabelProject.open(folder, create=False)
    picker, labels = Picker(project.learner_setup()), dict(project.labels)
    images, y = np.array([*labels]), np.array([*labels.values()])
    found = {doubt.image: doubt for doubt in doubts_of(project).ranked}
    split = StratifiedKFold(5, shuffle=True, random_state=project.config.seed).split(y, y)
    train, test = next(iter(split))
    known = {int(image): labels[int(image)] for image in images[train]}
    network = picker.train(BatchRequest(tuple(CLASSES), known, (), 0))
    for image, proba in picker.proba(network, images[test].tolist()).items():
        assert found[image].label_probability == pytest.approx(proba[labels[image]], abs=1e-6)


def test_labels_that_are_probably_wrong_weigh_less_where_heads_are_solved(
    tmp_path: Path, tiny: skal.ImageDataset
) -> None:
    project = LabelProject.open(bars(tmp_path, tiny, FROZEN), create=False)
    picker, labels = Picker(project.learner_setup()), dict(project.labels)
    ranked = doubts_of(project).ranked
    assert {doubt.image: doubt.label for doubt in ranked[: len(WRONG)]} == WRONG
    # by hand: what the networks say of labels that they were not told, beside the mean of a class,
    # is what these weigh
    parts, first = folds(labels, project.config.seed), dict[int, float]()
    networks = []
    for part in parts:
        known = {image: labels[image] for image in labels if image not in part}
        networks.append(picker.train(BatchRequest(tuple(CLASSES), known, (), 0)))
        for image, proba in picker.proba(networks[-1], part).items():
            first[image] = float(proba[labels[image]])
    trained = networks[0]
    places = {path: row for row, path in enumerate(trained.data.paths)}
    row_of = {image: places[path] for image, path in project.paths.items()}
    weights = np.ones(len(trained.y))
    means = [np.mean([p for image, p in first.items() if labels[image] == k]) for k in range(3)]
    for image, p in first.items():
        weights[row_of[image]] = min(max(p / means[labels[image]], 0.02), 1)
    again = trained.classifier.variant().fit(trained.X, trained.y, weights)
    found = {doubt.image: doubt.label_probability for doubt in ranked}
    for image in parts[0]:
        proba = again.predict_proba(trained.X[[row_of[image]]])[0]
        assert found[image] == pytest.approx(proba[labels[image]], abs=1e-5)


def test_the_process_that_trains_answers_with_doubts(folder: Path) -> None:
    project = LabelProject.open(folder, create=False)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    learner = Learner(project.learner_setup())
    try:
        labels = dict(project.labels)
        learner.ask(partial(find_doubts, tuple(CLASSES), labels), answers.put, answers.put)
        found = answers.get(timeout=PATIENCE)
    finally:
        learner.stop()
    assert isinstance(found, Doubts)
    assert {doubt.image: doubt.label for doubt in found.ranked[: len(WRONG)]} == WRONG


def test_folds_need_two_classes_with_two_labels() -> None:
    assert folds({1: 0, 2: 0, 3: 1}, 0) == []
    assert folds({}, 0) == []
    parts = folds({1: 0, 2: 0, 3: 1, 4: 1}, 0)
    assert sorted(image for part in parts for image in part) == [1, 2, 3, 4]


def test_too_few_labels_are_an_error_of_one_line(tmp_path: Path, tiny: skal.ImageDataset) -> None:
    write_images(tmp_path / "bars", tiny.X[:9, 0])
    project = LabelProject.open(tmp_path / "bars", CLASSES, FAST)
    project.record([Action("me", "label", 0, 0), Action("me", "label", 1, 1)])
    with pytest.raises(DataError, match="two classes with two labels each"):
        doubts_of(project)


def run(*words: str) -> str:
    done = CliRunner().invoke(main, ["doubts", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_what_is_contradicted_and_all_as_a_table_or_json(folder: Path) -> None:
    before = (folder / ".skal" / "labels.sqlite").read_bytes()
    lines = run(str(folder)).splitlines()
    paths = LabelProject.open(folder, create=False).paths
    named = {paths[image]: CLASSES[label] for image, label in WRONG.items()}
    told = [line.split("\t") for line in lines[: len(WRONG)]]
    assert {path: label for path, label, _ in told} == named
    objects = json.loads(run(str(folder), "--json"))
    rows = list(csv.DictReader(io.StringIO(run(str(folder), "--csv"))))
    assert len(objects) == len(rows) == len(paths)
    assert [row["path"] for row in rows] == [one["path"] for one in objects]
    assert sum(one["contradicted"] for one in objects) == len(lines)
    assert [row["contradicted"] for row in rows] == [str(int(o["contradicted"])) for o in objects]
    assert (folder / ".skal" / "labels.sqlite").read_bytes() == before
    assert CliRunner().invoke(main, ["doubts", str(folder), "--json", "--csv"]).exit_code == 2


def test_the_command_prints_what_is_noted_too_where_that_is_asked_for(folder: Path) -> None:
    project = LabelProject.open(folder, create=False)
    noted = next(path for image, path in project.paths.items() if image not in WRONG)
    project.close()
    (folder.parent / "x.csv").write_text(f"path,is_dark_issue,dark_score\n{noted},True,0.1\n")
    import_into(folder, folder.parent / "x.csv")
    assert not any(line.startswith(f"{noted}\t") for line in run(str(folder)).splitlines())
    first, *others = [line.split("\t") for line in run(str(folder), "--noted").splitlines()]
    assert (first[0], first[-1]) == (noted, "cleanvision: dark (0.10)")
    assert "?" not in first[2] and all("?" in line[2] for line in others)
