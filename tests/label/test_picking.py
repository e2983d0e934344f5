from __future__ import annotations

import csv
import importlib.util
import json
import multiprocessing
import queue
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_server import write_images
from sklearn.model_selection import StratifiedKFold

import skal
from skal.core.errors import (
    DataError,
    MissingExtraError,
    RunExistsError,
)
from skal.core.seeding import derive_seed
from skal.label.final import next_images, train
from skal.label.learning import BatchRequest, ComputedBatch, Failure, Learner
from skal.label.picking import Picker
from skal.label.project import LabelProject
from skal.label.sample import Accuracy
from skal.label.store import Action
from skal.strategies import memory
from skal.strategies.cold_start import start_embeddings
from skal.strategies.scores import Scores

CLASSES = ["low", "middle", "top"]
FAST = {"image_size": 12, "steps": 30, "model": "lenet"}


@pytest.fixture
def folder(tmp_path: Path, tiny: skal.ImageDataset) -> Path:
    """Ninety bars at three heights; the height of each is its number modulo three."""
    root = tmp_path / "bars"
    write_images(root, tiny.X[:, 0])
    return root


def opened(folder: Path, **settings: Any) -> LabelProject:
    return LabelProject.open(folder, CLASSES, {**FAST, **settings}, create=False)


def job(project: LabelProject, labeled: list[int], n: int = 6, **changes: Any) -> BatchRequest:
    """Ask for images after some were labelled as they are."""
    gone = {*labeled, *project.reserve}
    facts = {
        "classes": CLASSES,
        "labels": {image: image % 3 for image in labeled},
        "candidates": sorted(project.pool - gone),
        "n": n,
        **changes,
    }
    return BatchRequest(**facts)


LABELED = list(range(20, 50))


@pytest.mark.parametrize(
    "strategy",
    [
        "auto",
        "random",
        "margin",
        "badge",
        "bald",
        "batch-bald",
        "core-set",
        "typiclust",
        "drop-query",
        "committee-variance",
        "expected-gradient-length",
        "skactiveml.pool:FourDs",
    ],
)
def test_any_strategy_of_the_catalogue_picks_among_the_candidates(
    folder: Path, strategy: str
) -> None:
    project = opened(folder, strategy=strategy)
    labeled = [image for image in LABELED if image not in project.reserve]
    asked = job(project, labeled, candidates=list(range(50, 85)))
    answer = Picker(project.learner_setup()).answer(asked)
    assert answer.kind == "strategy"
    assert len(set(answer.picks)) == 6
    assert set(answer.picks) <= set(asked.candidates)


@pytest.mark.parametrize("strategy", ["random", "margin", "badge", "bald", "typiclust"])
def test_picks_are_those_of_a_run_and_of_the_loop_in_steps(folder: Path, strategy: str) -> None:
    settings: dict[str, Any] = {"n_init": 12, "n_query": 6, "init_strategy": "k-means"}
    project = opened(folder, strategy=strategy, init_strategy="k-means")
    images = sorted(project.paths)
    setup = replace(project.learner_setup(), of_test=())
    loaded = skal.load_dataset(folder, image_size=12)
    truth = {path: number % 3 for number, path in project.paths.items()}
    data = replace(
        loaded,
        X=loaded.X_unlabeled,
        y=np.array([truth[path] for path in loaded.paths_unlabeled]),
        classes=tuple(CLASSES),
        paths=loaded.paths_unlabeled,
        X_unlabeled=loaded.X[:0],
        paths_unlabeled=(),
        X_test=loaded.X_unlabeled[:6],
        y_test=np.arange(6) % 3,
    )
    facts = {"strategy": strategy, "model": project.config.model, "steps": project.config.steps}
    run = skal.run(data, **facts, **settings, n_rounds=1)
    learner = skal.ActiveLearner(data, **facts, **settings)
    picker, labels = Picker(setup), {}
    for number, n in ((0, 12), (1, 6)):
        free = sorted(set(images) - set(labels))
        answer = picker.answer(BatchRequest(CLASSES, labels, free, n, n_batches=number))
        expected = [row["path"] for row in run.queries if row["round"] == number]
        assert [project.paths[image] for image in answer.picks] == expected
        picks = learner.query()
        assert [data.paths[index] for index in picks] == expected
        learner.teach(picks, data.y[picks])
        labels |= {image: image % 3 for image in answer.picks}


def test_the_same_labels_give_the_same_answer(folder: Path) -> None:
    project = opened(folder, strategy="badge")
    first, second = (
        Picker(project.learner_setup()).answer(job(project, LABELED)) for _ in range(2)
    )
    assert first.picks == second.picks
    np.testing.assert_array_equal(first.guesses.proba, second.guesses.proba)


def test_guesses_are_those_of_the_trained_network(folder: Path) -> None:
    project = opened(folder)
    picker = Picker(project.learner_setup())
    answer = picker.answer(job(project, LABELED))
    trained = picker.train(job(project, LABELED))
    expected = trained.classifier.predict_proba(trained.data.X)
    for image in project.paths:
        row = list(trained.data.paths).index(project.paths[image])
        proba = answer.guesses.proba_of(image)
        assert proba is not None
        np.testing.assert_allclose(proba, expected[row], atol=1e-5)
    assert answer.guesses.n_labeled == len(LABELED)
    assert answer.guesses.model == "lenet"


def test_guesses_are_of_the_last_labels_also_when_nothing_is_left_to_pick(folder: Path) -> None:
    project = opened(folder)
    picker = Picker(project.learner_setup())
    picker.answer(job(project, LABELED))
    more = [*LABELED, 50, 51, 52]
    found = picker.answer(job(project, more, candidates=[])).guesses
    expected = Picker(project.learner_setup()).answer(job(project, more, candidates=[])).guesses
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(found.proba, expected.proba)


@pytest.mark.parametrize("labeled", [[], [3, 6, 9]])
def test_before_two_classes_have_a_label_the_batch_is_diverse(
    folder: Path, labeled: list[int]
) -> None:
    project = opened(folder)
    answer = Picker(project.learner_setup()).answer(job(project, labeled, n=9))
    assert answer.kind == "start"
    assert not answer.guesses.is_of_network
    assert not set(answer.picks) & {*labeled, *project.reserve}
    # of each height at least one: at random that is rare
    assert {image % 3 for image in answer.picks} == {0, 1, 2}


def test_the_first_batch_is_that_of_the_start_strategy(folder: Path) -> None:
    project = opened(folder, init_strategy="k-means")
    asked = job(project, [], n=9, candidates=sorted(project.paths))
    picker = Picker(project.learner_setup())
    answer = picker.answer(asked)
    embeddings, _ = start_embeddings(picker._pixels, None, derive_seed(0, "init"))
    strategy = skal.strategies.resolve_strategy("k-means")
    even = np.full((90, 3), 1 / 3, np.float32)
    expected = skal.strategies.select(
        strategy,
        np.full(90, -1),
        9,
        scores=Scores(np.arange(3), even, embeddings),
        seed=derive_seed(0, "init"),
    )
    assert answer.picks == expected.tolist()


def test_all_that_is_left_is_picked_when_it_is_less_than_asked_for(folder: Path) -> None:
    project = opened(folder)
    picker = Picker(project.learner_setup())
    for labeled in (LABELED, []):
        answer = picker.answer(job(project, labeled, candidates=[1, 5]))
        assert sorted(answer.picks) == [1, 5]
        assert picker.answer(job(project, labeled, candidates=[])).picks == []


def test_a_share_of_the_batch_is_drawn_at_random(folder: Path) -> None:
    plain = opened(folder, strategy="margin")
    mixed = opened(folder, strategy="margin", explore="50%")
    first, second = (
        Picker(p.learner_setup()).answer(job(p, LABELED, n=10)).picks for p in (plain, mixed)
    )
    assert second[:5] == first[:5]
    assert len(set(second)) == 10


def test_of_many_candidates_a_few_are_looked_at(folder: Path) -> None:
    project = opened(folder, strategy="margin", max_candidates=12)
    answer = Picker(project.learner_setup()).answer(job(project, LABELED))
    assert len(answer.picks) == 6
    known = set(answer.guesses.images.tolist())
    assert known >= {*project.reserve, *answer.picks}
    assert len(known) <= 12 + len(LABELED) + len(project.reserve)


def test_before_memory_runs_out_a_few_are_looked_at_and_that_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "UNASKED", 0)
    monkeypatch.setattr(memory, "available_memory", lambda device: 3000)
    project = opened(folder, strategy="margin")
    answer = Picker(project.learner_setup()).answer(job(project, LABELED))
    assert "margin needs about" in caplog.text
    assert len(answer.picks) == 6
    assert len(answer.guesses.images) < len(project.paths)


def test_images_that_cannot_be_read_are_told(folder: Path) -> None:
    (folder / "00007.png").write_bytes(b"no image")
    project = opened(folder)
    answer = Picker(project.learner_setup()).answer(job(project, LABELED))
    assert answer.unreadable == [7]
    assert 7 not in answer.guesses.rows


def test_a_folder_of_nothing_readable_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    project = LabelProject.open(tmp_path, ["a", "b"], create=False)
    with pytest.raises(DataError, match=r"cannot read any image under .*"):
        Picker(project.learner_setup())


class FirstImage(threading.Event):
    """That it is seen, as the page tells; notes what processes there were before."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[list[str]] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.processes.append([process.name for process in multiprocessing.active_children()])
        return super().wait(timeout=0)  # for nobody looks here


def test_a_learner_answers_from_its_own_process_and_tells_failures(
    folder: Path, tmp_path: Path
) -> None:
    project = opened(folder, strategy="margin")
    answers: queue.Queue[Any] = queue.Queue()
    seen = FirstImage()
    learner = Learner(replace(project.learner_setup(), keep=tmp_path / "guesses.npz"), seen)
    try:
        learner.ask(job(project, LABELED), answers.put, answers.put)
        answer = answers.get(timeout=120)
        assert len(seen.processes) == 1
        assert "skal-label-learner" not in seen.processes[0]
        expected = Picker(project.learner_setup()).answer(job(project, LABELED))
        assert answer.picks == expected.picks
        learner.ask(job(project, LABELED, labels={1: 0, 2: 17}), answers.put, answers.put)
        assert "17" in answers.get(timeout=120).reason
        # it goes on after a failure, and after its process was taken away
        learner._process.kill()
        learner._process.join()
        learner.ask(job(project, LABELED), answers.put, answers.put)
        assert answers.get(timeout=120).picks == expected.picks
        learner.ask(job(project, LABELED, n=7), answers.put, answers.put)
        learner._process.kill()
        told = answers.get(timeout=120)
        assert told.reason == "the background process ended with -9, perhaps because memory ran out"
        half = tmp_path / ".guesses.npz.17.tmp"
        half.write_bytes(b"half")  # as by a process that is killed while it writes
        learner.ask(job(project, LABELED), answers.put, answers.put)
        answers.get(timeout=120)
    finally:
        learner.stop()
    assert not learner._process or not learner._process.is_alive()
    assert [path.name for path in tmp_path.glob("*guesses*")] == ["guesses.npz"]


def test_a_learner_is_told_of_new_images_and_keeps_only_their_latest_pixels(
    folder: Path, tmp_path: Path
) -> None:
    data = {"data_dir": str(tmp_path / "data")}
    project, answers = opened(folder, **data), queue.Queue[Any]()
    learner = Learner(project.learner_setup())
    try:
        for n in (90, 91, 92):
            if n > 90:
                shutil.copy(folder / project.paths[n - 10], folder / f"new{n}.png")
                project = opened(folder, **data)
                learner.renew(project.learner_setup())
            learner.ask(job(project, LABELED), answers.put, answers.put)
            answer = answers.get(timeout=120)
            assert len(answer.guesses.images) == n
    finally:
        learner.stop()
    expected = Picker(project.learner_setup()).answer(job(project, LABELED))
    assert answer.picks == expected.picks
    assert len(list((tmp_path / "data/cache").glob("bars-*/pixels.npy"))) == 2


def test_a_batch_that_cannot_be_taken_in_ends_no_learning(folder: Path) -> None:
    """A full disk, perhaps, while it is written down."""
    told: queue.Queue[Failure] = queue.Queue()
    answers: queue.Queue[Any] = queue.Queue()

    def take(answer: Any) -> None:
        answers.put(answer)
        if answers.qsize() == 1:
            raise OSError(28, "No space left on device")

    learner = Learner(opened(folder).learner_setup())
    learner._answer_to = lambda job: ComputedBatch([], "x", None, [], 0.0)  # type: ignore[assignment, arg-type, method-assign]
    try:
        learner.ask(job(opened(folder), []), take, told.put)
        failure = told.get(timeout=60)
        assert "No space left on device" in failure.reason
        assert "Traceback" in failure.details
        learner.ask(job(opened(folder), []), take, told.put)
        while answers.qsize() < 2:
            time.sleep(0.01)
    finally:
        learner.stop()


def labeled_project(folder: Path, n_test: int = 8, **settings: Any) -> LabelProject:
    project = LabelProject.open(folder, CLASSES, {**FAST, **settings})
    kept = project.reserve[:n_test]
    images = [*sorted(project.pool - set(project.reserve))[:40], *kept]
    project.record(
        [
            Action("me", "label", n, n % 3, round=0, source="test" if n in kept else "strategy")
            for n in images
        ]
    )
    return project


def test_without_a_test_sample_the_accuracy_is_that_of_a_cross_validation(
    folder: Path, tmp_path: Path
) -> None:
    project = labeled_project(folder, n_test=0)
    labels = project.labels
    assert len(labels) == 40 and not project.test_labels
    _, summary = train(project, tmp_path / "model")
    assert summary["accuracy_from"] == "cross-validation"
    assert (summary["n_accuracy"], summary["n_test"]) == (40, 0)
    images, picker, n_right = np.array(list(labels)), Picker(project.learner_setup()), 0
    splitter = StratifiedKFold(5, shuffle=True, random_state=project.config.seed)
    for _, held_out in splitter.split(images, list(labels.values())):
        left = np.delete(images, held_out).tolist()
        request = BatchRequest(CLASSES, {n: labels[n] for n in left}, (), 0)
        said = picker.proba(picker.train(request), images[held_out].tolist())
        found = {image: int(proba.argmax()) for image, proba in said.items()}
        n_right += sum(found[image] == labels[image] for image in found)
    assert summary["accuracy"] == n_right / 40
    assert summary["accuracy_high"] == pytest.approx(Accuracy.of(n_right, 40).high)


def test_the_final_network_is_trained_on_all_labels_and_tested_honestly(
    folder: Path, tmp_path: Path
) -> None:
    project = labeled_project(folder)
    n_test = len(project.test_labels)
    where, summary = train(project, tmp_path / "model")
    assert where == tmp_path / "model"
    assert summary["n_labeled"] == 40 + n_test
    assert summary["n_test"] == n_test

    picker = Picker(project.learner_setup())
    honest = picker.train(BatchRequest(CLASSES, project.training_labels, (), 0))
    images = list(project.test_labels)
    predicted = honest.classifier.predict(honest.data.X[images])
    right = int((predicted == [project.test_labels[n] for n in images]).sum())
    assert summary["accuracy"] == right / n_test
    assert summary["accuracy_low"] == pytest.approx(Accuracy.of(right, n_test).low)

    final = picker.train(BatchRequest(CLASSES, project.labels, (), 0))
    network = skal.load_classifier(where)
    assert network.temperature == pytest.approx(summary["temperature"])
    logits = network.predict_proba(final.data.X, extra_outputs="logits")[1] * network.temperature
    expected = final.classifier.predict_proba(final.data.X, extra_outputs="logits")[1]
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    files = {path.name for path in where.iterdir()}
    assert files == {
        "config.toml",
        "environment.json",
        "labels.csv",
        "model.json",
        "model.safetensors",
        "summary.json",
    }
    assert json.loads((where / "summary.json").read_text()) == summary


def test_classes_without_a_label_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = LabelProject.open(folder, [*CLASSES, "basement", "attic"], {**FAST, "steps": 2})
    images = sorted(project.pool)[:12]
    project.record([Action("me", "label", n, n % 3, round=0) for n in images])
    train(project, tmp_path / "model")
    assert "no image has the label basement, attic" in caplog.text


def test_where_labels_are_too_few_the_accuracy_is_not_known(folder: Path, tmp_path: Path) -> None:
    project = opened(folder)
    project.record([Action("me", "label", n, n % 3, round=0, source="strategy") for n in (0, 1, 2)])
    _, summary = train(project, tmp_path / "model")
    assert (summary["accuracy"], summary["n_test"]) == (None, 0)


def test_training_needs_two_classes(folder: Path, tmp_path: Path) -> None:
    project = LabelProject.open(folder, CLASSES, FAST)
    project.record([Action("me", "label", n, 0, round=0) for n in range(5)])
    with pytest.raises(DataError, match="labels of at least two classes"):
        train(project, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_never_overwrites_another(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/file").touch()
    with pytest.raises(RunExistsError):
        train(labeled_project(folder), tmp_path / "model")


def test_images_are_decoded_once_for_labelling_and_for_runs(
    tmp_path: Path, tiny: skal.ImageDataset, data_dir: Path
) -> None:
    names = ["train/low/a.png", "train/b.png", "unlabeled/c.png", "test/low/d.png", "test/e.png"]
    write_images(tmp_path / "bars", tiny.X[:5, 0], names)
    skal.load_dataset(tmp_path / "bars", image_size=12)
    kept = sorted(data_dir.glob("cache/bars-*"))
    assert len(list(data_dir.glob("cache/bars-*/pixels.npy"))) == 1
    assert Picker(opened(tmp_path / "bars").learner_setup())._pixels.shape == (4, 3, 12, 12)
    assert sorted(data_dir.glob("cache/bars-*")) == kept


def test_predictions_are_those_of_the_network_on_images_prepared_alike(
    folder: Path, tmp_path: Path
) -> None:
    project = labeled_project(folder)
    where, _ = train(project, tmp_path / "model")
    skal.predict(where, [folder], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(folder / f"{n:05d}.png") for n in range(90)]
    network = skal.load_classifier(where)
    expected = network.predict_proba(Picker(project.learner_setup())._pixels)
    for row, proba in zip(rows, expected, strict=True):
        found = [float(row[f"p_{name}"]) for name in CLASSES]
        np.testing.assert_allclose(found, proba, atol=2e-6)
        assert row["class"] == CLASSES[int(np.argmax(proba))]


def test_the_next_images_for_elsewhere_have_some_for_the_test(folder: Path) -> None:
    project = labeled_project(folder, n_test=2)
    picks = next_images(project, 20)
    assert len({image for image, _ in picks}) == 20
    assert [kind for _, kind in picks].index("test") == 9
    assert [image for image, kind in picks if kind == "test"] == project.reserve[2:4]
    assert {kind for _, kind in picks} == {"strategy", "test"}
    assert not {image for image, _ in picks} & project.labels.keys()
    assert next_images(project, 20) == picks
    assert project.store.batches() == []


def frozen_lenet(data: skal.ImageDataset, folder: Path, steps: int) -> dict[str, Any]:
    """Save a network that was trained on a dataset; return the settings that freeze it."""
    network = skal.ImageClassifier("lenet", classes=[0, 1, 2], steps=steps, random_state=0)
    skal.save_classifier(network.fit(data.X, data.y), folder)
    return {"weights": str(folder / "model.safetensors"), "freeze": True}


def test_on_a_frozen_backbone_it_picks_and_the_final_network_takes_images(
    folder: Path, tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    frozen = frozen_lenet(tiny, tmp_path, steps=30)
    project = opened(folder, strategy="badge", head="mlp", **frozen)
    picker = Picker(project.learner_setup())
    start = picker.answer(job(project, []))
    assert start.kind == "start" and len(set(start.picks)) == 6
    answer = picker.answer(job(project, LABELED))
    assert answer.kind == "strategy" and len(set(answer.picks)) == 6
    trained = picker.train(job(project, LABELED), calibrated=True)
    proba = trained.classifier.predict_proba(trained.data.X)
    np.testing.assert_allclose(trained.classifier.predict_proba(trained.X), proba, atol=5e-3)
    assert trained.X.shape == (90, 84)
    reserved = {project.paths[number] for number in project.reserve}
    measured = trained.X[[path not in reserved for path in trained.data.paths]].astype(float)
    assert 0 < len(measured) < 90
    center = trained.classifier.neural_net_.module_.network.scaling.center
    np.testing.assert_allclose(center.numpy(), measured.mean(0), atol=1e-3)


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_what_images_are_alike_by_is_that_of_the_last_network(
    folder: Path, tiny: skal.ImageDataset, tmp_path: Path, head: str
) -> None:
    frozen = frozen_lenet(tiny, tmp_path, steps=5)
    steps = None if head == "logistic" else 30
    project = opened(folder, strategy="margin", head=head, steps=steps, **frozen)
    picker, more = Picker(project.learner_setup()), [*LABELED, 50, 51, 52]
    picker.answer(job(project, LABELED))
    found = picker.answer(job(project, more, candidates=[60, 61, 62])).guesses
    asked = job(project, more, candidates=[60, 61, 62])
    expected = Picker(project.learner_setup()).answer(asked).guesses
    assert found.embeddings.shape == (90, 32)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-4)
    assert np.array_equal(found.images, expected.images)


def test_what_images_are_alike_by_is_that_of_those_that_were_scored(
    folder: Path, tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    frozen = frozen_lenet(tiny, tmp_path, steps=5)
    settings = {"head": "logistic", "steps": None, "max_candidates": 20}
    project = opened(folder, strategy="margin", **settings, **frozen)
    picker, labels = Picker(project.learner_setup()), list(LABELED)
    for _ in range(3):
        answer = picker.answer(job(project, labels))
        guesses = answer.guesses
        expected = Picker(project.learner_setup()).answer(job(project, labels)).guesses
        assert np.array_equal(guesses.images, expected.images)
        np.testing.assert_allclose(guesses.embeddings, expected.embeddings, atol=1e-4)
        assert len(guesses.embeddings) == len(guesses.images)
        labels += answer.picks


@pytest.mark.skipif(importlib.util.find_spec("lightly") is None, reason="needs the extra ssl")
def test_networks_start_from_a_pretraining_on_all_images_but_those_of_the_test(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "skal")
    project = opened(folder, pretrain="simclr", pretrain_steps=3)
    picker = Picker(project.learner_setup())
    assert len(picker.answer(job(project, [])).picks) == 6
    trained = picker.train(job(project, LABELED))
    shown = [path not in {project.paths[i] for i in project.reserve} for path in picker._paths]
    assert 0 < len(project.reserve) < 90
    assert f"pretrained in 3 steps on {sum(shown)} images" in caplog.text

    plain = Picker(opened(folder).learner_setup()).train(job(project, LABELED))
    one, other = (t.classifier.predict_proba(trained.X) for t in (trained, plain))
    assert not np.array_equal(one, other)
    again = Picker(project.learner_setup()).train(job(project, LABELED))  # as after a restart
    assert np.array_equal(again.classifier.predict_proba(trained.X), one)
    assert caplog.text.count("pretrained in") == 1


def test_without_the_extra_pretraining_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'lightly'.*skal\[ssl\]"):
        LabelProject.open(folder, CLASSES, {**FAST, "pretrain": "simclr"})
    assert not (folder / ".skal").exists()
