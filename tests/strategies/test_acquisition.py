"""One round's choice: `--explore` and `--max-candidates`, and `--calibrate` before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import Interrupter
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

import skal
import skal.runs.acquisition
from skal.core.errors import ParameterError, SkalError
from skal.datasets.pool import Pool
from skal.models.iterators import SliceBatches
from skal.runs.acquisition import Choice
from skal.runs.metrics import evaluate
from skal.runs.record import ROUND_COLUMNS
from skal.strategies import memory, resolve_strategy

FAST: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}
Rows = np.ndarray | None


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    """Rows of the pool that were scored for a choice, one entry a round; None for all."""
    rows: list[Rows] = []
    score_pool = skal.runs.acquisition.score_pool

    def spy(*args: Any, **options: Any) -> Any:
        rows.append(options["rows"])
        scores = score_pool(*args, **options)
        assert len(scores) == (90 if options["rows"] is None else len(options["rows"]))
        return scores

    monkeypatch.setattr(skal.runs.acquisition, "score_pool", spy)
    return rows


class Lowest(SingleAnnotatorPoolQueryStrategy):
    """Picks the lowest indices that have no label."""

    def query(
        self,
        X: Any,
        y: Any,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        return np.flatnonzero(y == -1)[:batch_size]


def metrics(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rounds]


def picks(run: skal.Run, number: int) -> list[int]:
    return [row["index"] for row in run.queries if row["round"] == number]


def assert_goes_on_as_if_never_stopped(
    data: skal.ImageDataset, strategy: str, settings: dict[str, Any], folder: Path, *where: str
) -> None:
    straight = skal.run(data, strategy, **settings, out=folder / "straight")
    with pytest.raises(KeyboardInterrupt):
        watcher = Interrupter(where[0])
        skal.run(data, strategy, **settings, out=folder / "run", trackers=[watcher])
    for place in where[1:]:
        with pytest.raises(KeyboardInterrupt):
            skal.resume(folder / "run", data=data, trackers=[Interrupter(place)])
    resumed = skal.resume(folder / "run", data=data)
    for name in ("queries.csv", "model.safetensors"):
        expected = (folder / "straight" / name).read_bytes()
        assert (folder / "run" / name).read_bytes() == expected, name
    assert metrics(resumed.rounds) == metrics(straight.rounds)
    header, *_ = (folder / "straight/rounds.csv").read_text().splitlines()
    assert (folder / "run/rounds.csv").read_text().splitlines()[0] == header


# explore


@pytest.mark.parametrize(
    ("explore", "n_query", "n_random"),
    [
        ("10%", 10, 1),
        ("25%", 8, 2),
        ("30%", 6, 2),
        (0.3, 6, 2),
        ("0.3", 6, 2),
        (np.float64(0.5), 4, 2),
        ("1%", 4, 0),
        ("99%", 4, 4),
        ("100%", 4, 4),
        (1, 4, 4),
        ("0%", 4, 0),
        (0, 4, 0),
    ],
)
def test_that_share_of_each_batch_is_not_the_strategys(
    tiny: skal.ImageDataset, explore: Any, n_query: int, n_random: int
) -> None:
    settings = {**FAST, "n_query": n_query, "steps": 1, "stop": "off"}
    run = skal.run(tiny, Lowest, **settings, explore=explore)
    known = set(picks(run, 0))
    for number in (1, 2):
        batch = picks(run, number)
        left = sorted(set(range(90)) - known)
        n_theirs = n_query - n_random
        assert len(set(batch)) == n_query
        assert batch[:n_theirs] == left[:n_theirs]
        assert set(batch[n_theirs:]) <= set(left[n_theirs:])
        if n_random:
            assert batch[n_theirs:] != left[n_theirs:n_query]
        known |= set(batch)


def test_the_others_are_what_the_strategy_would_pick_without(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "n_query": 10, "n_rounds": 1}
    plain = skal.run(tiny, "margin", **settings)
    run = skal.run(tiny, "margin", **settings, explore="30%")
    assert picks(run, 0) == picks(plain, 0)
    assert picks(run, 1)[:7] == picks(plain, 1)[:7]
    assert picks(run, 1)[7:] != picks(plain, 1)[7:]


def test_exploring_nothing_changes_nothing(tiny: skal.ImageDataset) -> None:
    plain, run = (skal.run(tiny, "badge", **FAST, explore=share) for share in ("0%", "1%"))
    assert run.queries == plain.queries
    assert metrics(run.rounds) == metrics(plain.rounds)


def test_exploring_all_needs_no_scores(tiny: skal.ImageDataset, scored: list[Rows]) -> None:
    run = skal.run(tiny, "badge", **FAST, explore="100%")
    assert scored == []
    assert [row["score_seconds"] for row in run.rounds] == [0, 0, 0]
    other = skal.run(tiny, "bald", **FAST, explore="100%")
    assert other.queries == run.queries  # chance alone, whatever the strategy
    assert skal.run(tiny, "badge", **FAST, explore="100%", seed=1).queries != run.queries


def test_what_is_explored_is_drawn_evenly_from_what_the_strategy_left() -> None:
    pool = Pool(np.zeros((20, 1, 8, 8), np.uint8), 2)
    pool.label([0, 1], [0, 1])
    drawn = np.zeros(20, dtype=int)
    for seed in range(400):
        batch = Choice(resolve_strategy("random"), 6, seed, n_random=3).make(None, pool)
        assert len(set(batch)) == 6
        drawn[batch[3:]] += 1
    assert drawn[:2].tolist() == [0, 0]
    # 400 * 3 / 18 = 67 of each, give or take four standard deviations
    assert (np.abs(drawn[2:] - 1200 / 18) < 32).all()


def test_an_exploring_run_empties_its_pool(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "n_init": 50, "n_query": 18, "n_rounds": 5, "stop": "off"}
    run = skal.run(tiny, "margin", **settings, explore="50%")
    assert [row["n_labeled"] for row in run.rounds] == [50, 68, 86, 90]
    assert len({row["index"] for row in run.queries}) == 90


@pytest.mark.parametrize(
    "value", ["10", -1, "abc", 2.0, "101%", "-5%", "", "%", "nan", float("nan"), None, True]
)
def test_what_is_no_share_is_refused_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path, value: Any
) -> None:
    with pytest.raises(ParameterError) as caught:
        skal.run(tiny, **FAST, explore=value, out=tmp_path / "run")
    told = f"explore: got {value!r}; expected a share from 0% to 100%, such as 0.1 or 10%"
    meant = {"10": "; did you mean 10%?", 2.0: "; did you mean 2%?"}.get(value, "")
    assert str(caught.value) == f"{told}{meant}"
    assert not (tmp_path / "run").exists()
    with pytest.raises(ParameterError, match="explore: got"):
        skal.ActiveLearner(tiny, skal.ImageClassifier(classes=range(3)), explore=value)


# max_candidates


@pytest.mark.parametrize(
    ("strategy", "reads_labeled"),
    [("badge", False), ("bald", False), ("core-set", True), ("tcm", True), ("margin", True)],
)
def test_so_many_images_are_scored_and_the_labelled_ones_if_the_strategy_may_read_them(
    tiny: skal.ImageDataset, scored: list[Rows], strategy: str, reads_labeled: bool
) -> None:
    run = skal.run(tiny, strategy, **{**FAST, "n_rounds": 3}, max_candidates=20)
    labeled: list[int] = []
    seen = []
    for number, rows in enumerate(scored):
        labeled += picks(run, number)
        known = labeled if reads_labeled else []
        assert rows is not None
        assert len(rows) == len(set(rows.tolist())) == 20 + len(known)
        assert set(labeled) & set(rows.tolist()) == set(known)
        assert set(picks(run, number + 1)) <= set(rows.tolist())
        seen.append(set(rows.tolist()) - set(labeled))
    assert len(seen) == 3
    assert seen[0] - seen[1] and seen[1] - seen[2]  # a fresh subset each round


def test_the_others_are_not_even_read(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    pixels = SliceBatches._pixels

    def spy(self: Any, span: tuple[int, int]) -> Any:
        rows = np.arange(len(self.X)) if self.rows is None else self.rows
        read.append(rows[slice(*span)].tolist())
        return pixels(self, span)

    monkeypatch.setattr(SliceBatches, "_pixels", spy)
    run = skal.run(tiny, "badge", **FAST, max_candidates=20, stop="off")
    n_test = len(tiny.X_test)
    # and one image a round, to know how wide its embedding is
    assert [len(rows) for rows in read] == [n_test, 1, 20, n_test, 1, 20, n_test]
    assert set(picks(run, 1)) <= set(read[2]) and set(picks(run, 2)) <= set(read[5])


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many bytes be free, four fifths of which are taken at most."""

    def set_to(n_bytes: float) -> None:
        monkeypatch.setattr(memory, "available_memory", lambda device: int(n_bytes))
        monkeypatch.setattr(memory, "UNASKED", 0)

    return set_to


# what badge makes of lenet's embeddings of 84 features and of 3 probabilities, of 40 images
FREE = 40 * (84 * 10 + 3 * 17) / 0.8 + 100


def test_with_little_memory_as_many_images_are_scored_as_there_is_memory_for(
    tiny: skal.ImageDataset,
    scored: list[Rows],
    limit: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fewer = skal.run(tiny, "badge", **FAST, max_candidates=40)
    scored.clear()
    limit(FREE)
    run = skal.run(tiny, "badge", **FAST)
    assert [len(rows) for rows in scored if rows is not None] == [40, 40]
    assert caplog.text.count("badge needs about") == 2
    assert "choosing among 40, drawn at random (set max_candidates=40 to fix" in caplog.text
    # as the notice says
    assert run.queries == fewer.queries
    caplog.clear()
    skal.run(tiny, "badge", **FAST, max_candidates=40)
    skal.run(tiny, "badge", **{**FAST, "n_query": 84, "n_rounds": 1})  # there is no choice
    assert caplog.text == ""


def test_memory_that_does_not_suffice_for_the_batch_is_said_before_anything_is_scored(
    tiny: skal.ImageDataset, scored: list[Rows], limit: Callable[[float], None]
) -> None:
    limit(FREE / 20)
    with pytest.raises(SkalError, match=r"badge needs at least .* of memory to pick 4 images"):
        skal.run(tiny, "badge", **FAST)
    assert scored == []
    skal.run(tiny, "random", **FAST)  # which needs no scores
    skal.run(tiny, "badge", **FAST, explore="100%")


def test_candidates_are_the_same_with_the_same_seed(
    tiny: skal.ImageDataset, scored: list[Rows]
) -> None:
    first, again, other = (
        skal.run(tiny, "margin", **FAST, max_candidates=10, seed=seed) for seed in (1, 1, 2)
    )
    assert first.queries == again.queries
    assert metrics(first.rounds) == metrics(again.rounds)
    assert first.queries != other.queries
    assert [rows.tolist() for rows in scored[:2]] == [rows.tolist() for rows in scored[2:4]]


@pytest.mark.parametrize("max_candidates", [1, 3, 4])
def test_as_many_images_as_asked_for_are_picked_even_from_fewer_candidates(
    tiny: skal.ImageDataset, max_candidates: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "badge", **FAST, max_candidates=max_candidates)
    assert [row["n_labeled"] for row in run.rounds] == [6, 10, 14]
    assert "are left" not in caplog.text


@pytest.mark.parametrize("strategy", ["random", "margin", "badge"])
def test_more_candidates_than_there_are_change_nothing(
    tiny: skal.ImageDataset, scored: list[Rows], strategy: str
) -> None:
    plain = skal.run(tiny, strategy, **FAST)
    for max_candidates in (84, 90, 10_000):  # 84 are left in round 1
        run = skal.run(tiny, strategy, **FAST, max_candidates=max_candidates)
        assert run.queries == plain.queries
        assert metrics(run.rounds) == metrics(plain.rounds)
    assert all(rows is None for rows in scored)


@pytest.mark.parametrize(
    "strategy",
    ["random", "bald", "core-set", "tcm", "drop-query", "query-by-committee", "discriminative"],
)
def test_strategies_of_all_needs_choose_among_candidates_and_explore(
    tiny: skal.ImageDataset, strategy: str
) -> None:
    run = skal.run(tiny, strategy, **FAST, max_candidates=15, explore="25%", stop="off")
    assert [row["n_labeled"] for row in run.rounds] == [6, 10, 14]
    assert len({row["index"] for row in run.queries}) == 14


@pytest.mark.parametrize("value", [0, -1, 2.5, "20", "10%", True])
def test_what_is_no_number_of_candidates_is_refused(tiny: skal.ImageDataset, value: Any) -> None:
    with pytest.raises(ParameterError, match=r"max_candidates: got .*whole number of at least 1"):
        skal.run(tiny, **FAST, max_candidates=value)
    with pytest.raises(ParameterError, match=r"max_candidates: got .*whole number of at least 1"):
        skal.ActiveLearner(tiny, skal.ImageClassifier(classes=range(3)), max_candidates=value)


def test_a_loop_in_steps_explores_among_candidates(
    tiny: skal.ImageDataset, scored: list[Rows]
) -> None:
    def learner(**options: Any) -> skal.ActiveLearner:
        classifier = skal.ImageClassifier("lenet", classes=range(3), steps=2, random_state=0)
        return skal.ActiveLearner(tiny, classifier, "margin", **options).teach(
            np.arange(6), tiny.y[:6]
        )

    plain, exploring = learner(), learner(explore="30%")
    assert exploring.query(10)[:7].tolist() == plain.query(10)[:7].tolist()
    assert exploring.query(10)[7:].tolist() != plain.query(10)[7:].tolist()
    assert np.array_equal(exploring.query(10), exploring.query(10))
    scored.clear()
    few = learner(max_candidates=12)
    assert set(few.query(5)) <= set(scored[0].tolist())
    assert len(scored[0]) == 12 + 6


def test_a_stopped_run_draws_the_same_candidates_and_explores_the_same(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    settings = {**FAST, "explore": "50%", "max_candidates": 12, "init_strategy": "k-means"}
    places = ("querying 0", "querying 1", "querying 2", "evaluating 2")
    assert_goes_on_as_if_never_stopped(tiny, "badge", settings, tmp_path, *places)


# calibrate

EXTRA = ["temperature", "nll_uncalibrated", "ece_uncalibrated"]


def header(folder: Path) -> list[str]:
    return (folder / "rounds.csv").read_text().splitlines()[0].split(",")


@pytest.fixture
def digits() -> skal.ImageDataset:
    """Harder than `tiny`: a network that has seen few of them is wrong at times, and too sure."""
    data = skal.load_dataset("digits")
    return replace(data, X=data.X[:200], y=data.y[:200], source={})


def test_a_calibrated_run_says_its_temperature_and_what_it_would_be_without(
    digits: skal.ImageDataset, tmp_path: Path
) -> None:
    settings = {**FAST, "n_init": 40, "steps": 30}
    plain = skal.run(digits, "random", **settings, out=tmp_path / "plain")
    run = skal.run(digits, "random", **settings, calibrate="temperature", out=tmp_path / "run")
    assert header(tmp_path / "run") == [*ROUND_COLUMNS, *EXTRA, "agreement"]
    assert header(tmp_path / "plain") == [*ROUND_COLUMNS, "agreement"]
    assert run.queries == plain.queries
    for row, before in zip(run.rounds, plain.rounds, strict=True):
        for name in ("n_labeled", "accuracy", "balanced_accuracy", "macro_f1", "agreement"):
            assert row[name] == before[name], name
        assert row["temperature"] != 1
        for name in ("nll", "ece"):
            assert row[f"{name}_uncalibrated"] == pytest.approx(before[name], abs=1e-5)
            assert row[name] != pytest.approx(before[name], abs=1e-3)
    assert run.rounds[-1]["temperature"] == run.classifier.temperature
    loaded = skal.load_classifier(tmp_path / "run")
    assert loaded.temperature == run.classifier.temperature
    proba = loaded.predict_proba(digits.X_test)
    assert np.array_equal(proba, run.classifier.predict_proba(digits.X_test))
    assert evaluate(digits.y_test, proba)["nll"] == pytest.approx(run.rounds[-1]["nll"])


def test_the_strategy_sees_calibrated_scores(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperatures = []
    score_pool = skal.runs.acquisition.score_pool

    def spy(classifier: skal.ImageClassifier, *args: Any, **options: Any) -> Any:
        temperatures.append(classifier.temperature)
        return score_pool(classifier, *args, **options)

    monkeypatch.setattr(skal.runs.acquisition, "score_pool", spy)
    run = skal.run(tiny, "entropy", **{**FAST, "steps": 20}, calibrate="temperature")
    assert temperatures == [row["temperature"] for row in run.rounds[:-1]]


def test_labels_that_do_not_suffice_for_calibration_are_said_and_the_run_goes_on(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    def one_class(indices: np.ndarray) -> np.ndarray:
        return indices * 0

    run = skal.run(tiny, "margin", **FAST, oracle=one_class, calibrate="temperature")
    assert [row["temperature"] for row in run.rounds] == [1, 1, 1]
    assert "not calibrated" in caplog.text


def test_a_stopped_calibrated_run_ends_with_the_same_bytes(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    settings = {**FAST, "n_rounds": 2, "calibrate": "temperature"}
    places = ("querying 1", "training 1", "evaluating 2")
    assert_goes_on_as_if_never_stopped(tiny, "margin", settings, tmp_path, *places)


def test_a_calibrated_networks_weights_are_started_from_without_its_temperature(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {**FAST, "n_rounds": 0, "n_init": 12, "steps": 20}
    before = skal.run(tiny, **settings, calibrate="temperature", out=tmp_path / "before")
    assert before.classifier.temperature != 1
    run = skal.run(tiny, **settings, weights=tmp_path / "before/model.safetensors")
    assert run.classifier.temperature == 1
