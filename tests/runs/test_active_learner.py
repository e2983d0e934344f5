"""The loop in steps: the same picks as a run, a record, and what may go wrong."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skal
from skal.core.errors import DataError, ParameterError, RunExistsError, RunFolderError
from skal.models.inference import NotFittedError

SETTINGS: dict[str, Any] = {"n_init": 6, "n_query": 4, "n_rounds": 2}
FAST: dict[str, Any] = {**SETTINGS, "model": "lenet", "steps": 2}


def classifier(**params: Any) -> skal.ImageClassifier:
    return skal.ImageClassifier("lenet", classes=range(3), steps=2, **params)


def picks_of(run: skal.Run, number: int) -> list[int]:
    return [row["index"] for row in run.queries if row["round"] == number]


def queries(folder: Path) -> list[dict[str, str]]:
    with (folder / "queries.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def teach_rounds(learner: skal.ActiveLearner, data: skal.ImageDataset, n: int) -> list[list[int]]:
    picks = []
    for _ in range(n):
        picks.append(learner.query().tolist())
        learner.teach(picks[-1], data.y[picks[-1]]).fit().evaluate()
    return picks


@pytest.mark.parametrize("strategy", ["random", "margin", "badge", "bald", "typiclust"])
def test_picks_and_figures_are_those_of_a_run(tiny: skal.ImageDataset, strategy: str) -> None:
    run = skal.run(tiny, strategy, **FAST, seed=3)
    learner = skal.ActiveLearner(tiny, classifier(), strategy, **SETTINGS, seed=3)
    picks = teach_rounds(learner, tiny, 3)
    assert picks == [picks_of(run, number) for number in range(3)]
    assert learner.evaluate()["accuracy"] == run.rounds[-1]["accuracy"]
    proba = learner.classifier.predict_proba(tiny.X_test)
    assert np.array_equal(proba, run.classifier.predict_proba(tiny.X_test))


def test_a_classifier_can_be_left_to_the_settings(tiny: skal.ImageDataset) -> None:
    one = skal.ActiveLearner(tiny, classifier(), "margin", **SETTINGS)
    other = skal.ActiveLearner(tiny, strategy="margin", **FAST)
    assert teach_rounds(one, tiny, 2) == teach_rounds(other, tiny, 2)


def test_a_record_is_that_of_a_run_and_continues_to_the_same_bytes(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    run = skal.run(tiny, "badge", **FAST, out=tmp_path / "run")
    learner = skal.ActiveLearner(tiny, strategy="badge", out=tmp_path / "steps", **FAST)
    teach_rounds(learner, tiny, 1)
    picks = learner.query()
    # left in the middle of a round, and again after labels that no network has seen
    opened = skal.ActiveLearner.open(tmp_path / "steps", data=tiny)
    assert np.array_equal(opened.query(), picks)
    opened.teach(picks, tiny.y[picks])
    again = skal.ActiveLearner.open(tmp_path / "steps", data=tiny)
    again.fit().evaluate()
    teach_rounds(again, tiny, 1)
    finished = again.finish()
    assert finished.folder == tmp_path / "steps"
    for name in ("queries.csv", "model.safetensors"):
        assert (tmp_path / "steps" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert finished.summary["accuracy"] == run.summary["accuracy"]
    assert len(queries(tmp_path / "steps")) == 14


@pytest.mark.parametrize("options", [{}, {"max_candidates": 40}])
def test_what_a_learner_keeps_between_rounds_changes_no_pick(
    tiny: skal.ImageDataset, tmp_path: Path, options: dict[str, Any]
) -> None:
    settings = {**SETTINGS, "model": "lenet", "freeze": True, "n_rounds": 3, **options}
    whole = skal.run(tiny, "uncertainty-herding", **settings)
    folder = tmp_path / "steps"
    skal.ActiveLearner(tiny, strategy="uncertainty-herding", out=folder, **settings)
    for number in range(4):  # each round by one that has seen none before
        learner = skal.ActiveLearner.open(folder, data=tiny)
        picks = learner.query().tolist()
        assert picks == picks_of(whole, number)
        learner.teach(picks, tiny.y[picks]).fit().evaluate()


def test_a_stopped_run_can_be_continued_by_hand(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    straight = skal.run(tiny, "margin", **FAST)

    class Stop(skal.Tracker):
        def on_round(self, row: Any) -> None:
            if row["round"] == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        skal.run(tiny, "margin", **FAST, out=tmp_path / "run", trackers=[Stop()])
    learner = skal.ActiveLearner.open(tmp_path / "run", data=tiny)
    assert learner.query().tolist() == picks_of(straight, 2)


def test_what_a_person_labelled_is_not_resumed_without_an_oracle(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    learner = skal.ActiveLearner(tiny, strategy="margin", out=tmp_path / "run", **FAST)
    teach_rounds(learner, tiny, 1)
    with pytest.raises(ParameterError, match=r"labelled by hand.*ActiveLearner\.open"):
        skal.resume(tmp_path / "run", data=tiny)
    run = skal.resume(tmp_path / "run", data=tiny, oracle="true")
    assert run.queries == skal.run(tiny, "margin", **FAST).queries


def test_a_classifier_of_ones_own_is_kept_as_far_as_a_file_can(
    tiny: skal.ImageDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = classifier(dropout=0.5)
    learner = skal.ActiveLearner(tiny, ours, "bald", out=tmp_path / "kept", **SETTINGS)
    teach_rounds(learner, tiny, 1)
    opened = skal.ActiveLearner.open(tmp_path / "kept", data=tiny)
    assert opened.template.dropout == 0.5
    assert np.array_equal(opened.query(), learner.query())

    ours = classifier(callbacks=[object()])
    skal.ActiveLearner(tiny, ours, "bald", out=tmp_path / "not kept", **SETTINGS)
    assert "config.toml cannot hold the classifier's callbacks" in caplog.text
    with pytest.raises(ParameterError, match=r"sets callbacks .*classifier=\.\.\."):
        skal.ActiveLearner.open(tmp_path / "not kept", data=tiny)
    assert skal.ActiveLearner.open(tmp_path / "not kept", data=tiny, classifier=ours)


def test_two_that_write_to_one_record_are_told(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    one = skal.ActiveLearner(tiny, strategy="margin", out=tmp_path / "run", **FAST)
    other = skal.ActiveLearner.open(tmp_path / "run", data=tiny)
    other.teach([0, 1, 2], [0, 1, 2])
    with pytest.raises(RunFolderError, match="another process has written to"):
        one.teach([3, 4, 5], [0, 1, 2])
    assert (one.y == -1).all()
    with pytest.raises(RunExistsError):
        skal.ActiveLearner(tiny, strategy="margin", out=tmp_path / "run", **FAST)


def test_labels_whose_training_failed_are_kept(tiny: skal.ImageDataset) -> None:
    class Fails(skal.ImageClassifier):
        def fit(self, X: Any, y: Any, **params: Any) -> Any:
            if not self.callbacks:
                return super().fit(X, y, **params)
            raise KeyboardInterrupt

    ours = Fails("lenet", classes=range(3), steps=2, callbacks=("on",))
    learner = skal.ActiveLearner(tiny, ours, "margin", **SETTINGS)
    picks = learner.query()
    learner.teach(picks, tiny.y[picks])
    with pytest.raises(KeyboardInterrupt):
        learner.fit()
    assert (learner.y >= 0).sum() == 6
    ours.callbacks = ()
    assert len(learner.query()) == 4


def test_a_setting_is_said_once(tiny: skal.ImageDataset) -> None:
    with pytest.raises(ParameterError, match=r"classifier: got str; .* of a network as model="):
        skal.ActiveLearner(tiny, "lenet")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="steps: set by the classifier already"):
        skal.ActiveLearner(tiny, classifier(), "margin", steps=3)


def test_images_to_validate_on_are_held_out_first(tiny: skal.ImageDataset) -> None:
    learner = skal.ActiveLearner(tiny, strategy="margin", **FAST, n_valid=9)
    with pytest.raises(ParameterError, match=r"n_valid=9: .*hold_out"):
        learner.query()
    learner.hold_out(learner.plan.oracle())
    assert len(learner.pool.valid) == 9
    assert not set(learner.query()) & set(learner.pool.valid)
    run = skal.run(tiny, "margin", **FAST, n_valid=9)
    assert learner.query().tolist() == picks_of(run, 0)


def test_in_a_stream_what_was_asked_for_is_taught(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "stream": "in-order", "budget": "40%"}
    del settings["n_query"]
    run = skal.run(tiny, **settings)
    learner = skal.ActiveLearner(tiny, **settings)
    assert teach_rounds(learner, tiny, 3) == [picks_of(run, number) for number in range(3)]
    learner = skal.ActiveLearner(tiny, **settings)
    teach_rounds(learner, tiny, 1)
    learner.query()
    with pytest.raises(ParameterError, match="teach exactly the images that `query` returned"):
        learner.teach([80], [0])


def test_figures_need_labels_and_test_images(tiny: skal.ImageDataset) -> None:
    with pytest.raises(NotFittedError, match="no labels yet"):
        skal.ActiveLearner(tiny, strategy="margin", **FAST).evaluate()
    data = replace(tiny, X_test=tiny.X[:0], y_test=tiny.y[:0])
    learner = skal.ActiveLearner(data, strategy="margin", **FAST)
    with pytest.raises(DataError, match="no test image"):
        learner.teach([0, 1, 2], [0, 1, 2]).evaluate()


def test_a_run_in_a_notebook_is_its_table(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "random", **FAST)
    lines = repr(run).splitlines()
    assert lines[0] == "tiny: random, lenet, seed 0"
    assert "\n".join(lines[1:]) == run.table()


def test_a_learner_in_a_notebook_says_how_far_it_is(tiny: skal.ImageDataset) -> None:
    learner = skal.ActiveLearner(tiny, strategy="random", **FAST)
    of = f"of {len(tiny.X)} images labelled"
    assert repr(learner) == f"tiny: random, lenet, seed 0; 0 {of}"
    picks = teach_rounds(learner, tiny, 1)[0]
    lines = repr(learner).splitlines()
    assert lines[0].endswith(f"; {len(picks)} {of}")
    assert lines[1].split()[:2] == ["round", "labels"] and len(lines) == 3
