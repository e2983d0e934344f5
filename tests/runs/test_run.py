from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import fits_heard
from PIL import Image
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

import skal
from skal.core.errors import (
    DataError,
    ParameterError,
    RunExistsError,
    RunFolderError,
    SkalError,
    UnknownNameError,
    UsageError,
)
from skal.datasets.oracles import FunctionOracle, Oracle, TrueLabels
from skal.models.inference import NotFittedError
from skal.runs.metrics import evaluate

FAST: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}
ROUNDS = range(3)
FILES = {
    "config.toml",
    "environment.json",
    "evaluation.json",
    "journal.jsonl",
    "rounds.csv",
    "queries.csv",
    "summary.json",
    "learning_curve.png",
    "learning_curve.svg",
    "model.safetensors",
    "model.json",
    "log.txt",
}


class Stop(Exception):
    """What a test stops a run with."""


def metrics(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rounds]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def straight(tiny: skal.ImageDataset, tmp_path: Path) -> skal.Run:
    """A run that nobody stopped."""
    return skal.run(tiny, "badge", **FAST, out=tmp_path / "straight")


def assert_same(found: skal.Run, straight: skal.Run) -> None:
    assert found.folder is not None and straight.folder is not None
    for name in ("queries.csv", "model.safetensors", "learning_curve.svg"):
        assert (found.folder / name).read_bytes() == (straight.folder / name).read_bytes(), name
    assert metrics(found.rounds) == metrics(straight.rounds)
    ours, theirs = dict(found.summary), dict(straight.summary)
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert content(found.folder).keys() == FILES


# the loop


def test_a_run_trains_before_each_query_and_after_the_last(straight: skal.Run) -> None:
    assert [row["round"] for row in straight.rounds] == [0, 1, 2]
    assert [row["n_labeled"] for row in straight.rounds] == [6, 10, 14]
    assert [row["round"] for row in straight.queries] == [0] * 6 + [1] * 4 + [2] * 4
    assert [row["rank"] for row in straight.queries] == [*range(6), *range(4), *range(4)]
    indices = [row["index"] for row in straight.queries]
    assert len(set(indices)) == 14 and set(indices) <= set(range(90))


def test_labels_are_the_names_of_the_true_classes(
    straight: skal.Run, tiny: skal.ImageDataset
) -> None:
    expected = [tiny.classes[tiny.y[row["index"]]] for row in straight.queries]
    assert [row["label"] for row in straight.queries] == expected


def test_enough_steps_learn_the_task(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "margin", n_init=12, n_query=6, n_rounds=1, steps=60, model="lenet")
    assert run.rounds[-1]["accuracy"] == 1.0


def test_the_figures_are_those_of_the_last_network(
    straight: skal.Run, tiny: skal.ImageDataset
) -> None:
    proba = straight.classifier.predict_proba(tiny.X_test)
    expected = evaluate(tiny.y_test, proba)
    assert {name: straight.rounds[-1][name] for name in expected} == pytest.approx(expected)
    assert straight.folder is not None
    loaded = skal.load_classifier(straight.folder)
    assert np.array_equal(loaded.predict_proba(tiny.X_test), proba)


def test_the_summary_says_what_came_out(straight: skal.Run) -> None:
    assert straight.folder is not None
    written = json.loads((straight.folder / "summary.json").read_text())
    assert written == straight.summary
    accuracy = [row["accuracy"] for row in straight.rounds]
    # all spans are equal, so that trapezoids are a weighted mean
    aulc = (accuracy[0] / 2 + accuracy[1] + accuracy[2] / 2) / 2
    assert {k: v for k, v in written.items() if k != "seconds"} == {
        "dataset": "tiny",
        "strategy": "badge",
        "model": "lenet",
        "seed": 0,
        "n_labeled": 14,
        "accuracy": accuracy[-1],
        "aulc": pytest.approx(aulc),
        "n_skipped_images": 0,
        "stop_round": None,
    }
    assert written["seconds"] > 0
    assert content(straight.folder).keys() == FILES


def test_the_table_has_a_line_a_round(straight: skal.Run) -> None:
    lines = straight.table().splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:3] == ["round", "labels", "accuracy"]
    assert lines[3].split()[:3] == ["2", "14", f"{straight.rounds[2]['accuracy']:.4f}"]


def test_nothing_is_written_unless_asked_for(
    tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = skal.run(tiny, **FAST)
    assert run.folder is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", ["random", "badge", "bald"])
def test_the_same_seed_repeats_the_run_and_another_does_not(
    tiny: skal.ImageDataset, strategy: str
) -> None:
    first, second, other = (skal.run(tiny, strategy, **FAST, seed=seed) for seed in (3, 3, 4))
    assert first.queries == second.queries
    assert metrics(first.rounds) == metrics(second.rounds)
    assert first.queries != other.queries


def test_strategies_start_from_the_same_images_and_network(tiny: skal.ImageDataset) -> None:
    runs = [skal.run(tiny, name, **FAST, seed=1) for name in ("random", "margin", "bald")]
    assert all(run.queries[:6] == runs[0].queries[:6] for run in runs)
    assert all(metrics(run.rounds[:1]) == metrics(runs[0].rounds[:1]) for run in runs)
    assert runs[0].queries != runs[1].queries


def test_global_random_states_play_no_part(tiny: skal.ImageDataset) -> None:
    first = skal.run(tiny, "badge", **FAST)
    np.random.seed(99)  # noqa: NPY002
    assert skal.run(tiny, "badge", **FAST).queries == first.queries


# honesty


class Spy(SingleAnnotatorPoolQueryStrategy):
    """Writes down the labels that it is shown, and picks at random."""

    seen: list[np.ndarray] = []  # noqa: RUF012

    def query(
        self,
        X: Any,
        y: Any,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        Spy.seen.append(np.array(y))
        assert not y.flags.writeable
        left = np.flatnonzero(y == -1)
        return np.random.default_rng(self.random_state).choice(left, batch_size, replace=False)


def test_a_strategy_and_a_learner_see_no_label_that_was_not_asked_for(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = fits_heard(monkeypatch)
    Spy.seen = []
    run = skal.run(tiny, Spy, **FAST)

    def known(rounds: int) -> np.ndarray:
        y = np.full(90, -1)
        for row in run.queries:
            if row["round"] <= rounds:
                y[row["index"]] = tiny.classes.index(row["label"])
        return y

    in_rounds = [y.tolist() for y in Spy.seen if len(y) == 90]  # it was tried on fewer
    assert in_rounds == [known(0).tolist(), known(1).tolist()]
    assert [y.tolist() for _, y in fits] == [known(k).tolist() for k in ROUNDS]


def test_the_labels_come_from_the_oracle_alone(
    tiny: skal.ImageDataset, straight: skal.Run, tmp_path: Path
) -> None:
    wrong = replace(tiny, y=(tiny.y + 1) % 3)
    run = skal.run(wrong, "badge", **FAST, oracle=TrueLabels(tiny.y), out=tmp_path / "other")
    assert_same(run, straight)


def test_images_without_labels_can_be_run_on_with_an_oracle(tiny: skal.ImageDataset) -> None:
    unknown = replace(tiny, y=np.full(90, -1))
    with pytest.raises(DataError, match="90 of 90 images have no known label"):
        skal.run(unknown, **FAST)
    run = skal.run(unknown, **FAST, oracle=FunctionOracle(lambda indices: indices % 3))
    assert run.queries == skal.run(tiny, **FAST).queries


def test_an_oracle_is_asked_once_for_each_image(tiny: skal.ImageDataset) -> None:
    asked: list[int] = []

    def answer(indices: np.ndarray) -> list[int]:
        asked.extend(indices.tolist())
        return [int(index) % 3 for index in indices]

    run = skal.run(tiny, **FAST, oracle=FunctionOracle(answer))
    assert asked == [row["index"] for row in run.queries]


def test_an_oracle_may_answer_a_single_image_by_a_number(tiny: skal.ImageDataset) -> None:
    oracle = FunctionOracle(lambda indices: int(indices[0]) % 3)
    run = skal.run(tiny, **{**FAST, "n_init": 1, "n_query": 1}, oracle=oracle)
    assert len(run.queries) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda indices: indices * 0 + 3, "returned the class 3; expected 6 class ids"),
        (lambda indices: indices * 0 - 1, "returned the class -1; expected 6 class ids"),
        (lambda indices: indices[1:] * 0, r"returned int64 of shape \(5,\).*expected 6 class ids"),
        (lambda indices: indices * 0.5, "float64.*expected 6 class ids, integers from 0 to 2"),
    ],
)
def test_answers_that_are_no_labels_end_the_run_and_are_not_kept(
    tiny: skal.ImageDataset, tmp_path: Path, answer: Callable[..., Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        skal.run(tiny, **FAST, oracle=FunctionOracle(answer), out=tmp_path / "run")
    resumed = skal.resume(tmp_path / "run", data=tiny, oracle=TrueLabels(tiny.y))
    assert resumed.queries == skal.run(tiny, **FAST).queries


# pools of all sizes


def test_an_empty_pool_ends_the_run_and_says_so(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "badge", **{**FAST, "n_init": 50, "n_query": 30, "n_rounds": 5})
    assert [row["n_labeled"] for row in run.rounds] == [50, 80, 90]
    assert run.summary["n_labeled"] == 90
    assert "asked for 30 images, but only 10 are left" in caplog.text
    assert "the pool is empty: the run ends after round 2" in caplog.text


def test_a_run_may_start_with_all_labels(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "badge", **{**FAST, "n_init": 500})
    assert [row["n_labeled"] for row in run.rounds] == [90]
    assert "asked for 500 images, but only 90 are left" in caplog.text


def test_shares_are_of_the_pool(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, **{**FAST, "n_init": "10%", "n_query": "5%"})
    assert [row["n_labeled"] for row in run.rounds] == [9, 13, 17]
    assert (run.config.n_init, run.config.n_query) == (9, 4)


@pytest.mark.parametrize(
    ("shape", "told"),
    [((90, 4, 12, 12), "have 4 channels; expected 1 .grey. or 3"), ((90, 1, 12, 20), "12x20")],
)
@pytest.mark.parametrize("settings", [{}, {"freeze": True}])
def test_images_that_no_network_takes_are_refused_for_what_they_are(
    tiny: skal.ImageDataset, shape: tuple[int, ...], told: str, settings: dict[str, Any]
) -> None:
    X = np.zeros(shape, np.uint8)
    data = replace(tiny, X=X, X_test=X[: len(tiny.X_test)])
    with pytest.raises(DataError, match=f"the images of X .*{told}"):
        skal.run(data, "random", **FAST, **settings)


def test_images_whose_channels_were_moved_are_run_on_as_others(tiny: skal.ImageDataset) -> None:
    last = [np.repeat(np.moveaxis(X, 1, -1), 3, axis=-1) for X in (tiny.X, tiny.X_test)]
    moved = replace(
        tiny, **dict(zip(("X", "X_test"), (np.moveaxis(X, -1, 1) for X in last), strict=True))
    )
    copied = replace(moved, X=moved.X.copy(order="C"), X_test=moved.X_test.copy(order="C"))
    runs = [skal.run(data, "badge", **FAST, drop_duplicates=True) for data in (moved, copied)]
    assert runs[0].queries == runs[1].queries


def test_who_has_no_class_is_told_of_a_table_whose_columns_are_not_known(
    tmp_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"model": "lenet", "image_size": 8, "data_dir": str(data_dir)}
    for number in range(3):
        Image.new("L", (8, 8), 80 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("datei;klasse\n0.png;cat\n1.png;dog\n")
    told = r"labels.csv is not used: its columns are 'datei', 'klasse'; .*\(path, .*\(label, "
    with pytest.raises(DataError, match=rf"has no classes; .*{told}"):
        skal.run(tmp_path, "random", **settings)
    assert not caplog.records  # nor was any image decoded
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="has no classes"):
        skal.run(tmp_path, "random", **settings)
    assert "labels.csv is not used: its columns are 'datei', 'klasse'" in caplog.text


def test_no_rounds_are_the_initial_one_alone(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "badge", **{**FAST, "n_rounds": 0})
    assert len(run.rounds) == 1
    assert run.summary["aulc"] == run.summary["accuracy"] == run.rounds[0]["accuracy"]


@pytest.mark.parametrize("strategy", ["margin", "badge", "bald"])
def test_an_initial_set_of_one_class_or_one_image_will_do(
    tiny: skal.ImageDataset, strategy: str
) -> None:
    one_class = FunctionOracle(lambda indices: indices * 0)
    run = skal.run(tiny, strategy, **FAST, oracle=one_class)
    assert {row["label"] for row in run.queries} == {"low"}
    assert len(skal.run(tiny, strategy, **{**FAST, "n_init": 1}).rounds) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("only",), "y": 0, "y_test": 0}, "tiny has only the class 'only'"),
        (
            {"X_test": slice(0, 0), "y_test": slice(0, 0)},
            "tiny has no test images; pass X_test and y_test to skal.ImageDataset",
        ),
        ({"X": slice(0, 0), "y": slice(0, 0)}, "tiny has no labelled training image"),
    ],
)
def test_data_that_cannot_be_run_on_are_refused_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    changes = {
        name: getattr(tiny, name)[value]
        if isinstance(value, slice)
        else getattr(tiny, name) * value
        if isinstance(value, int)
        else value
        for name, value in change.items()
    }
    with pytest.raises(DataError, match=message):
        skal.run(replace(tiny, **changes), **FAST, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"strategy": "bagde"}, UnknownNameError, "did you mean badge"),
        ({"strategy": "margin", "strategy_params": {"metod": 1}}, UnknownNameError, "mean method"),
        ({"strategy": "pathlib:Path"}, ParameterError, "is not a query strategy"),
        ({"model": "lenett"}, UnknownNameError, "did you mean lenet"),
        ({"n_init": 0}, ParameterError, "n_init: got 0"),
        ({"seed": -1}, ParameterError, "seed"),
        ({"pretrained": True, "weights": "x"}, ParameterError, "not both"),
        ({"weights": "no-such-file"}, ParameterError, "no such file: 'no-such-file'"),
        ({"data": "digts"}, UnknownNameError, "did you mean digits"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        skal.run(**{"data": tiny, **FAST, **settings, "out": tmp_path / "run"})
    assert isinstance(caught.value, UsageError)
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_is_an_error(tiny: skal.ImageDataset) -> None:
    with pytest.raises(SkalError, match="training diverged: its loss became NaN or infinite"):
        skal.run(tiny, **{**FAST, "steps": 20}, lr=1e30, precision="fp32")


# folders


def test_an_existing_folder_is_refused_and_not_touched(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(RunExistsError, match="already exists"):
        skal.run(tiny, **FAST, out=tmp_path / "mine")
    assert content(tmp_path / "mine") == {"notes.txt": b"keep"}


def test_the_default_name_says_what_was_run_and_is_numbered_when_taken(
    tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**FAST, "n_rounds": 0, "seed": 3, "out": True}
    runs = [skal.run(tiny, "badge", **settings) for _ in range(3)]
    assert [str(run.folder) for run in runs] == [
        "runs/tiny-badge-lenet-s3",
        "runs/tiny-badge-lenet-s3-2",
        "runs/tiny-badge-lenet-s3-3",
    ]
    by_path = skal.run(tiny, "skactiveml.pool:RandomSampling", **settings)
    assert str(by_path.folder) == "runs/tiny-skactiveml.pool.RandomSampling-lenet-s3"


def test_the_log_keeps_what_was_shown(straight: skal.Run) -> None:
    assert straight.folder is not None
    log = (straight.folder / "log.txt").read_text()
    assert "round 2/2: 14 labels, accuracy" in log
    assert straight.table() in log


def test_a_run_leaves_the_logger_as_it_was(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    log = logging.getLogger("skal")
    before = (log.level, list(log.handlers))
    skal.run(tiny, **FAST, out=tmp_path / "run")
    assert (log.level, log.handlers) == before


# trackers


class Watcher(skal.Tracker):
    """Writes down what it is told; raises where it is told to."""

    def __init__(self, fail_at: str | None = None, error: BaseException | None = None) -> None:
        self.events: list[str] = []
        self.fail_at, self.error = fail_at, error or Stop()

    def _note(self, event: str) -> None:
        self.events.append(event)
        if event == self.fail_at:
            raise self.error

    def on_start(self, config: Any, folder: Path | None) -> None:
        self._note("start")

    def on_phase(self, round_number: int, phase: str) -> None:
        self._note(f"{phase} {round_number}")

    def on_round(self, row: Mapping[str, Any]) -> None:
        self._note(f"round {row['round']}")

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._note("end")

    def on_close(self) -> None:
        self._note("close")


EVENTS = [
    "start",
    *(f"{what} {k}" for k in ROUNDS for what in ("querying", "training", "evaluating", "round")),
    "end",
    "close",
]


def test_a_tracker_is_told_all_in_order(tiny: skal.ImageDataset) -> None:
    watcher = Watcher()
    skal.run(tiny, **FAST, trackers=[watcher])
    assert watcher.events == EVENTS


def test_trackers_that_were_started_are_closed_whatever_happens(tiny: skal.ImageDataset) -> None:
    first, second = Watcher(), Watcher(fail_at="start")
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, trackers=[first, second])
    assert first.events == ["start", "close"]
    third = Watcher(fail_at="training 1")
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, trackers=[third])
    assert third.events[-1] == "close"


# resuming


@pytest.mark.parametrize("where", EVENTS[:-2])
def test_a_run_stopped_in_any_phase_ends_as_if_it_had_not_been(
    tiny: skal.ImageDataset, tmp_path: Path, straight: skal.Run, where: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        watcher = Watcher(where, KeyboardInterrupt())
        skal.run(tiny, "badge", **FAST, out=tmp_path / "run", trackers=[watcher])
    assert not (tmp_path / "run/summary.json").exists()
    assert_same(skal.resume(tmp_path / "run", data=tiny), straight)


class FailingOracle(Oracle):
    def __init__(self, y: np.ndarray, fail_at: int) -> None:
        self.y, self.left = y, fail_at

    def label(self, indices: np.ndarray) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return self.y[indices]


@pytest.mark.parametrize("number", ROUNDS)
def test_a_run_whose_oracle_fails_goes_on_with_another(
    tiny: skal.ImageDataset, tmp_path: Path, straight: skal.Run, number: int
) -> None:
    with pytest.raises(DataError, match="the oracle FailingOracle failed"):
        oracle = FailingOracle(tiny.y, number)
        skal.run(tiny, "badge", **FAST, out=tmp_path / "run", oracle=oracle)
    with pytest.raises(ParameterError, match=r"labelled by .*skal\.resume"):
        skal.resume(tmp_path / "run", data=tiny)
    resumed = skal.resume(tmp_path / "run", data=tiny, oracle=FailingOracle(tiny.y, 9))
    assert_same(resumed, straight)


@pytest.mark.parametrize("number", ROUNDS)
def test_a_run_whose_learner_fails_goes_on(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    straight: skal.Run,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit, calls = skal.ImageClassifier.fit, []

    def failing_fit(self: Any, X: Any, y: Any, **params: Any) -> Any:
        calls.append(len(calls))
        fit(self, X, y, **params)
        if calls[-1] == number:
            raise Stop
        return self

    with monkeypatch.context() as patch:
        patch.setattr(skal.ImageClassifier, "fit", failing_fit)
        with pytest.raises(Stop):
            skal.run(tiny, "badge", **FAST, out=tmp_path / "run")
    assert len((tmp_path / "run/queries.csv").read_text().splitlines()) == 1 + 6 + 4 * number
    assert_same(skal.resume(tmp_path / "run", data=tiny), straight)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_ctrl_c_while_training_ends_the_run_and_keeps_no_half_trained_round(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    straight: skal.Run,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from skal.models.network import ImageModule

    forward, calls = ImageModule.forward, []

    def interrupted_forward(self: Any, *args: Any) -> Any:
        calls.extend([1] if self.training else [])
        if len(calls) == step:  # step 5 is the first of round 2
            raise KeyboardInterrupt
        return forward(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ImageModule, "forward", interrupted_forward)
        with pytest.raises(KeyboardInterrupt):
            skal.run(tiny, "badge", **FAST, out=tmp_path / "run")
    rounds = (tmp_path / "run/rounds.csv").read_text().splitlines() if step == 5 else ["", "", ""]
    assert len(rounds) == 3
    assert (step == 5) == (tmp_path / "run/rounds.csv").exists()
    assert_same(skal.resume(tmp_path / "run", data=tiny), straight)


def test_a_run_goes_on_from_any_line_of_its_journal_whole_or_torn(
    tiny: skal.ImageDataset, tmp_path: Path, straight: skal.Run
) -> None:
    assert straight.folder is not None
    lines = (straight.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 11
    for number in range(1, 11):
        for kept in (0, 1, len(lines[number]) - 1):
            folder = tmp_path / f"{number}-{kept}"
            folder.mkdir()
            shutil.copy(straight.folder / "config.toml", folder)
            shutil.copy(straight.folder / "environment.json", folder)
            torn = b"".join(lines[:number]) + lines[number][:kept]
            (folder / "journal.jsonl").write_bytes(torn)
            resumed = skal.resume(folder, data=tiny)
            assert resumed.queries == straight.queries, (number, kept)
            assert metrics(resumed.rounds) == metrics(straight.rounds), (number, kept)


def test_a_full_disk_at_any_write_leaves_a_run_that_goes_on(
    tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**FAST, "n_rounds": 1, "steps": 1, "model": "lenet"}
    straight = skal.run(tiny, **settings, out=tmp_path / "straight")
    fsync = os.fsync
    for number in range(100):
        left = [number]

        def full(descriptor: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        folder = tmp_path / f"full-{number}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                # a table that could not be written comes with its next rows
                assert_same(skal.run(tiny, **settings, out=folder), straight)
                queries = [(tmp_path / run / "queries.csv") for run in (folder.name, "straight")]
                assert queries[0].read_bytes() == queries[1].read_bytes()
                if left[0] >= 0:  # nothing failed
                    break
                continue
            except OSError as error:
                assert str(tmp_path) in str(error)
        if folder.exists():
            assert_same(skal.resume(folder, data=tiny), straight)
    assert 20 < number < 99


def test_resuming_twice_in_a_row_and_stopping_again_works(
    tiny: skal.ImageDataset, tmp_path: Path, straight: skal.Run
) -> None:
    with pytest.raises(Stop):
        skal.run(
            tiny, "badge", **FAST, out=tmp_path / "run", trackers=[Watcher(fail_at="training 0")]
        )
    for where in ("querying 1", "evaluating 1", "round 2"):
        with pytest.raises(Stop):
            skal.resume(tmp_path / "run", data=tiny, trackers=[Watcher(fail_at=where)])
    assert_same(skal.resume(tmp_path / "run", data=tiny), straight)


def test_a_run_whose_pool_was_emptied_can_be_gone_on_with(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    settings = {**FAST, "n_init": 50, "n_query": 40, "n_rounds": 5}
    with pytest.raises(Stop):
        skal.run(tiny, **settings, out=tmp_path / "run", trackers=[Watcher(fail_at="round 1")])
    resumed = skal.resume(tmp_path / "run", data=tiny)
    assert [row["n_labeled"] for row in resumed.rounds] == [50, 90]
    assert resumed.summary["n_labeled"] == 90


def test_seconds_of_a_query_outlive_a_stop(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        watcher = Watcher(fail_at="training 1")
        skal.run(tiny, "badge", **FAST, out=tmp_path / "run", trackers=[watcher])
    resumed = skal.resume(tmp_path / "run", data=tiny)
    for row in resumed.rounds[1:]:
        assert row["score_seconds"] > 0 and row["query_seconds"] > 0


def test_a_finished_run_is_left_as_it_is(
    tiny: skal.ImageDataset, straight: skal.Run, caplog: pytest.LogCaptureFixture
) -> None:
    assert straight.folder is not None
    before = content(straight.folder)
    caplog.set_level(logging.INFO, "skal")
    resumed = skal.resume(straight.folder)  # not even the data are needed
    assert content(straight.folder) == before
    assert "is already finished" in caplog.text
    assert (resumed.summary, resumed.rounds, resumed.queries, resumed.table()) == (
        straight.summary,
        straight.rounds,
        straight.queries,
        straight.table(),
    )
    expected = straight.classifier.predict_proba(tiny.X_test)
    assert np.array_equal(resumed.classifier.predict_proba(tiny.X_test), expected)


@pytest.fixture
def stopped(tiny: skal.ImageDataset, tmp_path: Path) -> Path:
    with pytest.raises(Stop):
        watcher = Watcher(fail_at="training 1")
        skal.run(tiny, "badge", **FAST, out=tmp_path / "stopped", trackers=[watcher])
    return tmp_path / "stopped"


def test_arrays_must_be_handed_over_again(stopped: Path) -> None:
    with pytest.raises(DataError, match=r"'tiny' cannot be loaded.*skal\.resume"):
        skal.resume(stopped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: replace(d, X=255 - d.X), "different pixels"),
        (lambda d: replace(d, X=d.X[:80], y=d.y[:80]), "different number of images"),
        (lambda d: replace(d, classes=("a", "b", "c")), "different classes"),
        (lambda d: replace(d, y=(d.y + 1) % 3), "different labels"),
        (lambda d: replace(d, y_test=(d.y_test + 1) % 3), "different test labels"),
        (lambda d: replace(d, paths=tuple(f"{i}.png" for i in range(90))), "different paths"),
    ],
)
def test_other_data_are_refused_and_nothing_is_changed(
    tiny: skal.ImageDataset, stopped: Path, change: Callable[..., Any], message: str
) -> None:
    before = content(stopped)
    with pytest.raises(DataError, match=message):
        skal.resume(stopped, data=change(tiny))
    assert content(stopped) == before


def test_settings_that_were_edited_are_refused_but_more_rounds_are_not(
    tiny: skal.ImageDataset, stopped: Path
) -> None:
    config = stopped / "config.toml"
    text = config.read_text()
    config.write_text(text.replace("seed = 0", "seed = 1"))
    with pytest.raises(ParameterError, match=r"seed in config.toml was 0 .* and is now 1"):
        skal.resume(stopped, data=tiny)
    config.write_text(text.replace("n_rounds = 2", "n_rounds = 3"))
    resumed = skal.resume(stopped, data=tiny)
    assert resumed.queries == skal.run(tiny, "badge", **{**FAST, "n_rounds": 3}).queries


@pytest.fixture
def started_from(tiny: skal.ImageDataset, tmp_path: Path) -> Path:
    """The weights of a run that was stopped."""
    torch.save(lenet_state(0), tmp_path / "net.pth")
    with pytest.raises(Stop):
        skal.run(
            tiny,
            **FAST,
            weights=tmp_path / "net.pth",
            out=tmp_path / "stopped",
            trackers=[Watcher(fail_at="training 1")],
        )
    return tmp_path / "net.pth"


def lenet_state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = skal.models.build_network(
        "lenet", n_classes=3, in_channels=1, image_size=12, dropout=0.0
    )
    return dict(network.backbone.state_dict())


def test_other_weights_in_a_file_of_the_same_name_are_refused(
    tiny: skal.ImageDataset, started_from: Path, tmp_path: Path
) -> None:
    expected = hashlib.sha256(started_from.read_bytes()).hexdigest()[:16]
    right = started_from.rename(tmp_path / "right.pth")
    torch.save(lenet_state(1), started_from)
    got = hashlib.sha256(started_from.read_bytes()).hexdigest()[:16]
    before = content(tmp_path / "stopped")
    with pytest.raises(DataError, match=f"net.pth' .SHA-256 {got}.* {expected}.*name the file"):
        skal.resume(tmp_path / "stopped", data=tiny)
    assert content(tmp_path / "stopped") == before
    config = tmp_path / "stopped" / "config.toml"
    config.write_text(config.read_text().replace("net.pth", "right.pth"))
    whole = skal.run(tiny, **FAST, weights=right)
    assert skal.resume(tmp_path / "stopped", data=tiny).queries == whole.queries


def test_weights_that_are_gone_are_said(
    tiny: skal.ImageDataset, started_from: Path, tmp_path: Path
) -> None:
    started_from.unlink()
    with pytest.raises(DataError, match=r"cannot read the weights .*net\.pth': No such file"):
        skal.resume(tmp_path / "stopped", data=tiny)
    config = tmp_path / "stopped" / "config.toml"
    lines = [line for line in config.read_text().splitlines() if "net.pth" not in line]
    config.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"weights in config\.toml is None"):
        skal.resume(tmp_path / "stopped", data=tiny)


def test_a_damaged_journal_is_an_error_and_nothing_is_changed(
    tiny: skal.ImageDataset, stopped: Path
) -> None:
    journal = stopped / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"indices"', b'"indicez"', 1))
    before = content(stopped)
    with pytest.raises(RunFolderError, match="line 2: damaged"):
        skal.resume(stopped, data=tiny)
    assert content(stopped) == before


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no run folder"):
        skal.resume(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"is not a run folder .it has no config\.toml"):
        skal.resume(tmp_path)
    assert not list(tmp_path.glob("journal*"))


def test_a_run_that_is_going_on_cannot_be_gone_on_with(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    errors = []

    class Meddler(skal.Tracker):
        def on_phase(self, round_number: int, phase: str) -> None:
            try:
                skal.resume(tmp_path / "run", data=tiny)
            except RunFolderError as error:
                errors.append(str(error))

    skal.run(tiny, **{**FAST, "n_rounds": 0}, out=tmp_path / "run", trackers=[Meddler()])
    assert len(errors) == 3
    assert "another process is writing to" in errors[0]


def test_arguments_of_a_strategy_are_kept(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    given = {"n_samples": np.int64(3)}
    settings: dict[str, Any] = {**FAST, "strategy": "bald", "strategy_params": given}
    with pytest.raises(Stop):
        watcher = Watcher(fail_at="training 1")
        skal.run(tiny, **settings, out=tmp_path / "run", trackers=[watcher])
    resumed = skal.resume(tmp_path / "run", data=tiny)
    assert resumed.config.strategy_params == {"n_samples": 3}
    assert resumed.queries == skal.run(tiny, **settings).queries


def test_a_strategy_that_cannot_be_kept_is_said_and_not_gone_on_with_wrongly(
    tiny: skal.ImageDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Spy):
        def __init__(self, function: Any = None, missing_label: Any = -1, random_state: Any = None):
            super().__init__(missing_label=missing_label, random_state=random_state)
            self.function = function

    with pytest.raises(Stop):
        watcher = Watcher(fail_at="training 1")
        skal.run(tiny, Odd(print), **FAST, out=tmp_path / "run", trackers=[watcher])
    assert "config.toml cannot hold the strategy's function" in caplog.text
    with pytest.raises(ParameterError, match=r"config\.toml cannot hold the strategy's function"):
        skal.resume(tmp_path / "run", data=tiny)


# what is found before anything is written or trained


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pretrained": True}, "no pretrained weights"),
        ({"strategy": "bald", "strategy_params": {"n_samples": 0}}, "n_samples"),
        ({"strategy": "bald", "strategy_params": {"n_samples": "abc"}}, "n_samples"),
        ({"strategy": "margin", "strategy_params": {"method": "foo"}}, "foo"),
        ({"oracle": "tru"}, "did you mean true"),
        ({"trackers": ["no-such"]}, "unknown tracker"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(skal.SkalError, match=message) as error:
        skal.run(tiny, **{"strategy": "random", **FAST, **wrong}, out=tmp_path / "run")
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_said_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot read the weights"):
        skal.run(tiny, **FAST, weights=tmp_path / "weights.pth", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_config_names_the_very_data_of_a_folder_called_like_a_dataset(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos.rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    data = skal.load_dataset("./digits", image_size=16, data_dir="elsewhere")
    run = skal.run(data, **FAST, out="run")
    assert run.config.dataset == str(tmp_path / "digits")
    assert run.config.data_dir == str(tmp_path / "elsewhere")
    again = skal.run(Path("digits"), **FAST, image_size=16)
    assert again.queries == run.queries


def test_a_split_by_another_seed_is_said(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    data = skal.load_dataset("digits", seed=5)
    run = skal.run(data, **{**FAST, "n_rounds": 0}, seed=0)
    assert run.config.dataset == "digits"
    assert "the test set was drawn with seed 5, not the run's seed 0" in caplog.text


def test_going_on_elsewhere_is_said(
    tiny: skal.ImageDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, out=tmp_path / "run", trackers=[Watcher(fail_at="training 1")])
    path = tmp_path / "run" / "journal.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    start = json.loads(first.partition(" ")[2])
    start["environment"]["packages"]["torch"], start["environment"]["threads"] = "2.0.0", 77
    text = json.dumps(start)
    path.write_text("".join([f"{zlib.crc32(text.encode()):08x} {text}\n", *rest]))
    skal.resume(tmp_path / "run", data=tiny)
    assert "started with torch 2.0.0 and is resumed with" in caplog.text
    assert "started with threads 77 and is resumed with" in caplog.text


OWN = """
import numpy as np
from skal.strategies import ScoreStrategy

class Mine(ScoreStrategy):
    def score(self, scores):
        return scores.proba.max(axis=1)
"""


def test_a_strategy_that_was_edited_in_between_is_said(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited_in_between.py"
    file.write_text(OWN)
    mine = "edited_in_between:Mine"
    for name in ("as-before", "run"):
        with pytest.raises(Stop):
            stop = Watcher(fail_at="training 1")
            skal.run(tiny, mine, **FAST, out=tmp_path / name, trackers=[stop])
    skal.resume(tmp_path / "as-before", data=tiny, trust=True)
    assert "has changed" not in caplog.text
    file.write_text(OWN.replace("max", "min"))
    skal.resume(tmp_path / "run", data=tiny, trust=True)
    assert "the code of edited_in_between has changed since the run started" in caplog.text


def test_fewer_rounds_than_were_labelled_are_refused(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, out=tmp_path / "run", trackers=[Watcher(fail_at="training 2")])
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("n_rounds = 2", "n_rounds = 1"))
    with pytest.raises(ParameterError, match=r"n_rounds in config\.toml is 1, but"):
        skal.resume(tmp_path / "run", data=tiny)


@pytest.mark.parametrize("params", [{"classes": range(5)}, {"classes": None}])
def test_a_classifier_of_other_classes_is_refused(
    tiny: skal.ImageDataset, params: dict[str, Any]
) -> None:
    with pytest.raises(ParameterError, match=r"expected range\(3\), the ids of low, middle, top"):
        skal.ActiveLearner(tiny, skal.ImageClassifier(**params))
    with pytest.raises(ParameterError, match="missing_label=-2; expected -1"):
        skal.ActiveLearner(tiny, skal.ImageClassifier(classes=range(3), missing_label=-2))


# folders of images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        for part, n in (("train", 8), ("test", 3)):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 100, (12, 12, 3), dtype=np.uint8) + 150 * number
                Image.fromarray(pixels.astype(np.uint8)).save(
                    tmp_path / "photos" / part / name / f"{i}.png"
                )
    return tmp_path / "photos"


SMALL = {**FAST, "image_size": 12, "n_init": 4, "n_query": 3, "n_rounds": 2}


def test_queries_say_where_each_image_lies(photos: Path, tmp_path: Path) -> None:
    run = skal.run(photos, **SMALL, out=tmp_path / "run")
    assert run.config.dataset == str(photos.resolve())
    for row in run.queries:
        assert (photos / row["path"]).is_file()
        assert Path(row["path"]).parent.name == row["label"]


def test_a_run_on_a_folder_is_gone_on_with_unless_an_image_was_moved(
    photos: Path, tmp_path: Path
) -> None:
    straight = skal.run(photos, **SMALL, out=tmp_path / "straight")
    with pytest.raises(Stop):
        skal.run(photos, **SMALL, out=tmp_path / "run", trackers=[Watcher(fail_at="training 1")])
    (photos / "train/cat/0.png").rename(photos / "train/dog/new.png")
    with pytest.raises(DataError, match="different paths"):
        skal.resume(tmp_path / "run")
    (photos / "train/dog/new.png").rename(photos / "train/cat/0.png")
    assert_same(skal.resume(tmp_path / "run"), straight)
    shutil.rmtree(tmp_path / "run")
    shutil.rmtree(photos)
    with pytest.raises(RunFolderError):
        skal.resume(tmp_path / "run")


def test_images_that_cannot_be_read_are_counted(photos: Path, tmp_path: Path) -> None:
    (photos / "train/cat/torn.png").write_bytes(b"\x89PNG nothing")
    run = skal.run(photos, **{**SMALL, "n_rounds": 0}, out=tmp_path / "run")
    assert run.summary["n_skipped_images"] == 1


# in steps


@pytest.fixture
def learner(tiny: skal.ImageDataset) -> skal.ActiveLearner:
    classifier = skal.ImageClassifier("lenet", classes=range(3), steps=2, random_state=0)
    return skal.ActiveLearner(tiny, classifier, "badge", seed=5)


def test_learning_in_steps(learner: skal.ActiveLearner, tiny: skal.ImageDataset) -> None:
    for number in range(3):
        picks = learner.query(6)
        assert np.array_equal(learner.query(6), picks)
        assert (learner.y[picks] == -1).all()
        assert learner.teach(picks, tiny.y[picks]) is learner
        assert (learner.y != -1).sum() == 6 * (number + 1)
    expected = evaluate(tiny.y_test, learner.classifier.predict_proba(tiny.X_test))
    assert learner.evaluate() == pytest.approx(expected)


def test_the_first_query_is_random_by_the_seed(tiny: skal.ImageDataset) -> None:
    first, same, other = (
        skal.ActiveLearner(tiny, skal.ImageClassifier("lenet", classes=range(3)), seed=seed)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.query(9), same.query(9))
    assert not np.array_equal(first.query(9), other.query(9))
    assert len(first.query("10%")) == 9


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2],
        ["low", "top"],
        np.array(["low", "top"]),
        np.array(["low", "top"], object),
        np.array([0, 2], object),
    ],
)
def test_labels_are_ids_or_names(learner: skal.ActiveLearner, labels: Any) -> None:
    learner.teach([4, 8], labels)
    assert learner.y[[4, 8]].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("indices", "labels", "error"),
    [
        ([0, 1], [0], DataError),
        ([0, 1], [0, 3], DataError),
        ([0, 1], [0.5, 1.5], DataError),
        ([0, 90], [0, 1], DataError),
        ([0, 0], [0, 1], DataError),
        ([0, 4], [0, 1], DataError),
        ([0, 1], ["low", "hgih"], UnknownNameError),
        ([0], [], DataError),
    ],
)
def test_bad_labels_change_nothing(
    learner: skal.ActiveLearner, indices: Any, labels: Any, error: type[Exception]
) -> None:
    learner.teach([4, 8], [0, 2])
    before, picks = learner.y.copy(), learner.query(5)
    with pytest.raises(error):
        learner.teach(indices, labels)
    assert np.array_equal(learner.y, before)
    assert np.array_equal(learner.query(5), picks)


def test_teaching_nothing_changes_nothing(learner: skal.ActiveLearner) -> None:
    picks = learner.query(3)
    learner.teach([], [])
    assert np.array_equal(learner.query(3), picks)
    with pytest.raises(NotFittedError):
        learner.evaluate()


def test_all_can_be_labelled(learner: skal.ActiveLearner, tiny: skal.ImageDataset) -> None:
    learner.teach(np.arange(88), tiny.y[:88])
    assert sorted(learner.query(10)) == [88, 89]
    learner.teach([88, 89], tiny.y[88:])
    assert learner.query(10).shape == (0,)


def test_the_datasets_own_labels_are_not_looked_at(tiny: skal.ImageDataset) -> None:
    def picks(data: skal.ImageDataset) -> list[int]:
        classifier = skal.ImageClassifier("lenet", classes=range(3), steps=2, random_state=0)
        learner = skal.ActiveLearner(data, classifier, "margin")
        return learner.teach(np.arange(6), np.arange(6) % 3).query(8).tolist()

    assert picks(tiny) == picks(replace(tiny, y=np.full(90, -1)))


def test_unlabelled_images_alone_are_a_pool_and_need_no_test_set(tiny: skal.ImageDataset) -> None:
    data = skal.ImageDataset(
        tiny.X[:0], tiny.y[:0], tiny.classes, X_unlabeled=tiny.X, name="unlabelled"
    )
    classifier = skal.ImageClassifier("lenet", classes=range(3), steps=2)
    learner = skal.ActiveLearner(data, classifier, "margin")
    learner.teach(learner.query(6), np.arange(6) % 3)
    assert len(learner.query(4)) == 4
    with pytest.raises(DataError, match="unlabelled has no test images"):
        learner.evaluate()


def test_a_folder_without_images_is_not_said_to_lack_classes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(DataError, match=r"no images under .*1 \.txt"):
        skal.run(tmp_path, "random")


def test_images_without_classes_come_with_the_command_that_labels_them(
    tmp_path: Path, data_dir: Path
) -> None:
    for number in range(3):
        Image.new("L", (8, 8), 80 * number).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=r"has no classes; .*label them with `skal label`"):
        skal.run(tmp_path, "random", model="lenet", image_size=8, data_dir=str(data_dir))
    (tmp_path / "train").mkdir()
    for number in range(3):
        (tmp_path / f"{number}.png").rename(tmp_path / f"train/{number}.png")
    with pytest.raises(DataError, match="has no classes"):
        skal.run(tmp_path, "random", model="lenet", image_size=8, data_dir=str(data_dir))
