"""`--stop`: when further labels change predictions little, told without reading a label."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import Interrupter
from sklearn.metrics import cohen_kappa_score

import skal
import skal.runs.stopping
from skal.cli import main
from skal.core.errors import UnknownNameError
from skal.core.seeding import derive_seed
from skal.datasets.pool import Pool
from skal.runs.journal import Journal
from skal.runs.stopping import AGREEMENT, STOP_SET, WINDOW, StopMonitor, kappa, stabilised
from skal.strategies.scores import Scores

FAST: dict[str, Any] = {"model": "lenet", "steps": 3, "n_init": 6, "n_query": 4, "n_rounds": 2}
CALM_FROM = 2
"""The round from which on the made-up predictions are all the same."""

CALM: dict[str, Any] = {
    **FAST,
    "steps": 1,
    "n_query": 2,
    "n_rounds": CALM_FROM + 2 * WINDOW + 1,
}
NOTICE = "predictions have stabilised"


class BlindPool(Pool):
    """Raises when somebody looks at labels, but not at which there are."""

    @property
    def y(self) -> Any:
        raise AssertionError("labels were looked at")


def metrics(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rounds]


def labelled(run: skal.Run, number: int) -> list[int]:
    return [row["index"] for row in run.queries if row["round"] <= number]


def predictions(folder: Path) -> list[list[int]]:
    entries = Journal(folder / "journal.jsonl").read()
    return [entry["predicted"] for entry in entries if entry["event"] == "round"]


def likeliest(run: skal.Run, X: np.ndarray) -> np.ndarray:
    # of several that are equally likely, `predict` draws one
    return run.classifier.predict_proba(X).argmax(axis=1)


@pytest.fixture
def calming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks predict at random in the first rounds, and later the same."""
    numbers = {derive_seed(0, "training", k): k for k in range(CALM["n_rounds"] + 1)}

    def made_up(classifier: Any, X: Any, *, rows: np.ndarray, **options: Any) -> Scores:
        number = min(numbers[classifier.random_state], CALM_FROM)
        proba = np.random.default_rng(number).random((len(rows), 3))
        return Scores(np.arange(3), proba.astype(np.float32))

    monkeypatch.setattr(skal.runs.stopping, "score_pool", made_up)


# agreement


def test_agreement_is_the_kappa_of_the_networks_of_two_rounds(tmp_path: Path) -> None:
    digits = skal.load_dataset("digits")
    data = replace(digits, X=digits.X[:150], y=digits.y[:150], source={})
    settings = {**FAST, "n_init": 20, "steps": 20}
    run = skal.run(data, "margin", **settings, out=tmp_path / "run")
    shorter = [skal.run(data, "margin", **{**settings, "n_rounds": k}) for k in (0, 1)]
    said = [likeliest(other, data.X) for other in (*shorter, run)]
    # of what had no label when the later network was trained
    unknown = [np.setdiff1d(np.arange(150), labelled(run, k)) for k in (1, 2)]
    expected = [
        cohen_kappa_score(one[rows], other[rows])
        for (one, other), rows in zip(pairwise(said), unknown, strict=True)
    ]
    assert [row["agreement"] for row in run.rounds] == [None, *map(pytest.approx, expected)]
    assert all(0 < value < 1 for value in expected)
    assert predictions(tmp_path / "run") == [labels.tolist() for labels in said]
    with (tmp_path / "run/rounds.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[-1] == "agreement"
    assert [row["agreement"] for row in table] == ["", *(str(k) for k in map(float, expected))]


def test_a_large_pool_is_represented_by_the_same_images_in_every_round(
    tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skal.runs.stopping, "STOP_SET", 40)
    seen = []
    score_pool = skal.runs.stopping.score_pool

    def spy(*args: Any, **options: Any) -> Scores:
        seen.append(options["rows"].tolist())
        return score_pool(*args, **options)

    monkeypatch.setattr(skal.runs.stopping, "score_pool", spy)
    run = skal.run(tiny, "margin", **FAST, out=tmp_path / "run")
    assert seen[0] == seen[1] == seen[2] == sorted(set(seen[0]))
    assert len(seen[0]) == 40
    said = predictions(tmp_path / "run")
    for row, pair in zip(run.rounds[1:], pairwise(said), strict=True):
        unknown = ~np.isin(seen[0], labelled(run, row["round"]))
        one, other = (np.array(labels)[unknown] for labels in pair)
        assert row["agreement"] == pytest.approx(cohen_kappa_score(one, other))
    assert said[-1] == likeliest(run, tiny.X[seen[0]]).tolist()
    skal.run(tiny, "badge", **{**FAST, "n_rounds": 0})
    skal.run(tiny, "badge", **{**FAST, "n_rounds": 0}, seed=1)
    assert seen[3] == seen[0] != seen[4]  # whatever the strategy, but not the seed


def test_the_set_that_is_watched_is_never_larger_than_it_says(tmp_path: Path) -> None:
    data = skal.load_dataset("digits")
    assert len(data.X) > STOP_SET
    skal.run(data, "random", **{**FAST, "n_rounds": 0}, out=tmp_path / "run")
    assert [len(labels) for labels in predictions(tmp_path / "run")] == [STOP_SET]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 1, 2, 0], [0, 1, 2, 0], 1),
        ([1, 1, 1], [1, 1, 1], 1),
        ([1, 1, 1], [2, 2, 2], 0),
        ([0, 0, 1, 1], [0, 1, 0, 1], 0),
        ([0, 1], [1, 0], -1),
        ([2], [2], 1),
        ([0], [2], 0),
    ],
)
def test_kappa_of_predictions_of_one_class_is_a_number_too(
    one: list[int], other: list[int], expected: float
) -> None:
    assert kappa(np.array(one), np.array(other)) == expected


# no labels


def test_watching_reads_no_label(tiny: skal.ImageDataset) -> None:
    classifier = skal.ImageClassifier("lenet", classes=range(3), steps=2, random_state=0)
    classifier.fit(tiny.X[:9], tiny.y[:9])
    monitor = StopMonitor(BlindPool(tiny.X, 3), seed=0)
    assert monitor.observe(classifier) is None
    assert monitor.observe(classifier) == 1


def test_where_all_that_is_watched_is_labelled_there_is_no_agreement(
    tiny: skal.ImageDataset,
) -> None:
    settings = {**FAST, "n_init": 80, "n_query": 5, "stop": "end"}
    run = skal.run(tiny, "random", **settings)
    assert [row["n_labeled"] for row in run.rounds] == [80, 85, 90]
    assert run.rounds[1]["agreement"] is not None
    assert run.rounds[2]["agreement"] is None


def test_watching_asks_the_oracle_for_nothing(tiny: skal.ImageDataset) -> None:
    asked: list[int] = []

    def answer(indices: np.ndarray) -> np.ndarray:
        asked.extend(indices.tolist())
        return indices % 3

    unknown = replace(tiny, y=np.full(90, -1))
    run = skal.run(unknown, "margin", **FAST, oracle=answer, stop="notice")
    assert asked == [row["index"] for row in run.queries]
    assert None not in [row["agreement"] for row in run.rounds[1:]]


def test_watching_changes_neither_picks_nor_figures(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "strategy": "badge"}
    off, notice = (skal.run(tiny, **settings, stop=stop) for stop in ("off", "notice"))
    assert notice.queries == off.queries
    rows = [{k: v for k, v in row.items() if k != "agreement"} for row in metrics(notice.rounds)]
    assert rows == metrics(off.rounds)
    assert skal.run(tiny, **settings).rounds[1]["agreement"] == notice.rounds[1]["agreement"]


def test_not_watching_leaves_no_agreement(
    tiny: skal.ImageDataset, tmp_path: Path, calming: None, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "random", **CALM, stop="off", out=tmp_path / "run")
    assert "agreement" not in (tmp_path / "run/rounds.csv").read_text()
    assert run.summary["stop_round"] is None
    assert NOTICE not in caplog.text


# the rule


def test_predictions_have_stabilised_once_the_last_agreements_are_high_on_average() -> None:
    high, perfect, low = [AGREEMENT + 1e-9] * WINDOW, [1.0] * WINDOW, [AGREEMENT - 0.05] * WINDOW
    assert stabilised(high)
    assert stabilised(low + perfect)
    assert not stabilised(perfect[1:])
    assert not stabilised(low)
    assert not stabilised(perfect + low)
    assert not stabilised([])
    assert not stabilised([None, *perfect[1:]])


def test_predictions_that_stabilise_are_noticed_once_and_the_run_goes_on(
    tiny: skal.ImageDataset, tmp_path: Path, calming: None, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "random", **CALM, out=tmp_path / "run")
    agreements = [row["agreement"] for row in run.rounds]
    assert len(agreements) == CALM["n_rounds"] + 1
    assert agreements[0] is None
    assert max(agreements[1 : CALM_FROM + 1]) < 0.5
    assert agreements[CALM_FROM + 1 :] == [1.0] * (CALM["n_rounds"] - CALM_FROM)
    stop_round = run.summary["stop_round"]
    firsts = [k for k in range(len(agreements)) if stabilised(agreements[1 : k + 1])]
    assert CALM_FROM < stop_round == firsts[0] < CALM["n_rounds"]
    assert caplog.text.count(NOTICE) == 1
    log = (tmp_path / "run/log.txt").read_text()
    assert log.count(NOTICE) == 1
    before, after = (log.index(f"round {k}/") for k in (stop_round - 1, stop_round))
    assert before < log.index(NOTICE) < after
    assert json.loads((tmp_path / "run/summary.json").read_text())["stop_round"] == stop_round


def test_predictions_that_go_on_changing_are_not_noticed(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "random", **{**FAST, "n_rounds": WINDOW - 1})
    assert run.summary["stop_round"] is None
    assert NOTICE not in caplog.text


def test_a_run_that_is_to_end_then_ends_there_whole(
    tiny: skal.ImageDataset, tmp_path: Path, calming: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    whole = skal.run(tiny, "random", **CALM, out=tmp_path / "whole")
    run = skal.run(tiny, "random", **CALM, stop="end", out=tmp_path / "run")
    stop_round = whole.summary["stop_round"]
    assert run.summary["stop_round"] == stop_round
    assert metrics(run.rounds) == metrics(whole.rounds[: stop_round + 1])
    n_labeled = CALM["n_init"] + CALM["n_query"] * stop_round
    assert run.queries == whole.queries[:n_labeled]
    assert run.summary["n_labeled"] == n_labeled
    assert run.summary["accuracy"] == run.rounds[-1]["accuracy"]
    proba = skal.load_classifier(tmp_path / "run").predict_proba(tiny.X_test)
    assert np.array_equal(proba, run.classifier.predict_proba(tiny.X_test))

    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    caplog.clear()
    resumed = skal.resume(tmp_path / "run")
    assert "is already finished" in caplog.text
    assert resumed.rounds == run.rounds
    result = CliRunner().invoke(main, ["resume", str(tmp_path / "run")])
    assert result.exit_code == 0
    assert "is already finished" in result.stderr
    assert result.stdout == run.table() + "\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def places(stop_round: int) -> list[str]:
    return [
        "training 1",
        f"querying {CALM_FROM + 1}",
        f"evaluating {stop_round - 1}",
        f"training {stop_round}",
        f"round {stop_round}",
    ]


@pytest.mark.parametrize("stop", ["notice", "end"])
def test_a_stopped_run_ends_with_the_same_agreements_notice_and_stop_round(
    tiny: skal.ImageDataset, tmp_path: Path, calming: None, stop: str
) -> None:
    settings = {**CALM, "strategy": "random", "stop": stop}
    straight = skal.run(tiny, **settings, out=tmp_path / "straight")
    first, *others = places(straight.summary["stop_round"])
    with pytest.raises(KeyboardInterrupt):
        skal.run(tiny, **settings, out=tmp_path / "run", trackers=[Interrupter(first)])
    for place in others:
        with pytest.raises(KeyboardInterrupt):
            skal.resume(tmp_path / "run", data=tiny, trackers=[Interrupter(place)])
    assert not (tmp_path / "run/summary.json").exists()
    resumed = skal.resume(tmp_path / "run", data=tiny)
    assert metrics(resumed.rounds) == metrics(straight.rounds)
    assert {**resumed.summary, "seconds": 0} == {**straight.summary, "seconds": 0}
    assert (tmp_path / "run/log.txt").read_text().count(NOTICE) == 1
    assert predictions(tmp_path / "run") == predictions(tmp_path / "straight")
    for name in ("queries.csv", "model.safetensors"):
        expected = (tmp_path / "straight" / name).read_bytes()
        assert (tmp_path / "run" / name).read_bytes() == expected, name


# by name


def test_alone_the_option_means_end() -> None:
    def printed(*args: str) -> str:
        return CliRunner().invoke(main, ["run", *args, "--print-config"]).stdout

    assert 'stop = "end"' in printed("--stop")
    assert 'stop = "notice"' in printed()
    assert 'stop = "end"' in printed("--stop", "end")
    both = printed("--stop", "--stream")
    assert 'stop = "end"' in both and 'stream = "in-order"' in both
    assert 'stop = "notice"' in printed("--stop", "notice")


@pytest.mark.parametrize("value", ["ends", "on"])
def test_another_word_is_refused(tiny: skal.ImageDataset, value: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown stop '{value}'"):
        skal.run(tiny, **FAST, stop=value)
