from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import Interrupter, fits_heard

import skal
from skal.core.errors import DataError, ParameterError, RunFolderError, UnknownNameError, UsageError
from skal.core.seeding import derive_seed
from skal.datasets.oracles import FunctionOracle, NoisyLabels, TrueLabels, make_oracle
from skal.runs.config import read_config

FAST: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}
CLASSES = ("ant", "bee", "cat", "dog")
Y = np.random.default_rng(0).integers(0, 4, 1000)
ALL = np.arange(1000)


def test_true_labels_answer_by_index() -> None:
    oracle = TrueLabels(np.array([2, 0, 1]))
    assert oracle.label(np.array([2, 0])).tolist() == [1, 2]


def test_true_labels_do_not_follow_later_changes() -> None:
    y = np.array([2, 0, 1])
    oracle = TrueLabels(y)
    y[:] = 0
    assert oracle.label(np.arange(3)).tolist() == [2, 0, 1]


def test_unknown_true_labels_are_counted() -> None:
    with pytest.raises(DataError, match="2 of 3 images have no known label"):
        TrueLabels(np.array([-1, 0, -1]))


def test_a_function_is_asked_for_the_indices() -> None:
    oracle = FunctionOracle(lambda indices: indices % 2)
    assert np.asarray(oracle.label(np.array([3, 4]))).tolist() == [1, 0]


def test_oracles_are_known_by_name() -> None:
    data = skal.load_dataset("digits")
    assert isinstance(make_oracle(None, data, 0), TrueLabels)
    assert isinstance(make_oracle("true", data, 0), TrueLabels)
    assert isinstance(make_oracle(lambda indices: indices * 0, data, 0), FunctionOracle)
    with pytest.raises(UnknownNameError, match="unknown oracle 'tru'; did you mean true"):
        make_oracle("tru", data, 0)
    with pytest.raises(ParameterError, match="got 5; expected an Oracle"):
        make_oracle(5, data, 0)  # type: ignore[arg-type]


class Mine(skal.Oracle):
    """Errs at random, so that what it says depends on what it was asked before."""

    def __init__(self, data: skal.ImageDataset, seed: int, rate: float = 0.5) -> None:
        self.y, self.n_classes, self.rate = data.y, len(data.classes), rate
        self.rng = np.random.default_rng(seed)

    def label(self, indices: np.ndarray) -> np.ndarray:
        guesses = self.rng.integers(0, self.n_classes, len(indices))
        return np.where(self.rng.random(len(indices)) < self.rate, guesses, self.y[indices])


def always_the_last(indices: np.ndarray, which: int = 2) -> np.ndarray:
    return np.full(len(indices), which)


def without_a_seed(data: skal.ImageDataset) -> Any:
    return lambda indices: data.y[indices]


def test_oracles_go_by_their_import_path_with_arguments(tiny: skal.ImageDataset) -> None:
    oracle = make_oracle(f"{__name__}:Mine?rate=0.1", tiny, 3)
    assert isinstance(oracle, Mine) and oracle.rate == 0.1
    few = np.arange(5)
    for name, expected in (
        ("always_the_last", [2] * 5),
        ("always_the_last?which=1", [1] * 5),
        ("without_a_seed", tiny.y[:5].tolist()),
    ):
        answers = make_oracle(f"{__name__}:{name}", tiny, 3).label(few)
        assert np.asarray(answers).tolist() == expected
    for name, message in (
        ("Mine?rat=0.1", "'rat'; did you mean rate"),
        ("Y", "not callable"),
        ("Nobody", "did you mean|known"),
    ):
        with pytest.raises(UsageError, match=message):
            make_oracle(f"{__name__}:{name}", tiny, 3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda indices: ["ant"] * len(indices), "returned <U3 of shape .6,., such as 'ant'"),
        (lambda indices: indices * 0.5, "returned float64 of shape .6,., such as "),
        (lambda indices: indices[:2], r"returned int64 of shape \(2,\)"),
        (lambda indices: None, "returned None"),
        (lambda indices: [None] * len(indices), "returned object of shape .6,., such as None"),
        (lambda indices: [None] * len(indices), r"returned object of shape \(6,\), such as None"),
        (lambda indices: 1, r"returned int64 of shape \(\)"),
        (lambda indices: [[1], [1, 2]], "returned list with rows of different lengths"),
        (lambda indices: np.full(len(indices), 3), "returned the class 3"),
        (lambda indices: np.full(len(indices), -1), "returned the class -1"),
        (lambda indices: indices["a"], "failed: IndexError: "),
    ],
)
def test_an_oracle_that_answers_wrongly_is_named_before_anything_is_trained(
    answer: Any, message: str, tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(skal.Oracle):
        def label(self, indices: np.ndarray) -> Any:
            return answer(indices)

    phases: list[str] = []

    class Phases(skal.Tracker):
        def on_phase(self, round_number: int, phase: str) -> None:
            phases.append(phase)

    with pytest.raises(DataError, match=f"the oracle .*Wrong {message}") as caught:
        skal.run(tiny, **FAST, oracle=Wrong(), trackers=[Phases()])
    if "failed" not in message:
        assert "expected 6 class ids, integers from 0 to 2" in str(caught.value)
    assert "training" not in phases


# noise


@pytest.mark.parametrize("rate", [0, 0.1, 0.2345, 0.5, 1])
@pytest.mark.parametrize("kind", ["uniform", "pairs"])
def test_the_share_of_wrong_labels_is_exact(kind: str, rate: float) -> None:
    given = NoisyLabels(Y, CLASSES, rate, kind, seed=3).label(ALL)
    assert (given != Y).sum() == round(rate * 1000)
    assert given.min() >= 0 and given.max() < 4


def test_uniform_wrong_labels_are_any_other_class_evenly() -> None:
    y = np.repeat(np.arange(4), 3000)
    given = NoisyLabels(y, CLASSES, 0.5, "uniform", seed=1).label(np.arange(12000))
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (y, given), 1)
    others = counts[~np.eye(4, dtype=bool)]
    assert others.sum() == 6000
    # 500 expected of each, with a standard deviation of less than 23
    assert abs(others - 500).max() < 5 * 23


def test_pairs_become_the_next_class() -> None:
    given = NoisyLabels(Y, CLASSES, 1, "pairs").label(ALL)
    assert np.array_equal(given, np.array([1, 2, 3, 0])[Y])


@pytest.mark.parametrize("kind", ["class=cat:ant", "class=2:0", "class=cat:0"])
@pytest.mark.parametrize("rate", [0.3, 1])
def test_labels_of_one_class_alone_become_another(kind: str, rate: float) -> None:
    given = NoisyLabels(Y, CLASSES, rate, kind).label(ALL)
    wrong = given != Y
    assert set(Y[wrong]) == {2} and set(given[wrong]) == {0}
    assert wrong.sum() == round(rate * (Y == 2).sum())


def test_names_of_classes_win_over_ids_and_may_have_colons() -> None:
    y = np.array([0, 1, 2])
    given = NoisyLabels(y, ("2", "1", "0"), 1, "class=0:1").label(y)
    assert given.tolist() == [0, 1, 1]
    given = NoisyLabels(y, ("a:b", "a", "b"), 1, "class=a:b:b").label(y)
    assert given.tolist() == [2, 1, 2]


@pytest.mark.parametrize("kind", ["uniform", "pairs", "class=ant:bee"])
def test_an_image_gets_the_same_answer_whenever_it_is_asked_for(kind: str) -> None:
    one, other = (NoisyLabels(Y, CLASSES, 0.4, kind, seed=7) for _ in range(2))
    at_once = one.label(ALL)
    order = np.random.default_rng(0).permutation(1000)
    one_by_one = np.empty(1000, int)
    for index in order:
        one_by_one[index] = other.label(np.array([index]))[0]
    assert np.array_equal(one_by_one, at_once)
    assert np.array_equal(one.label(order), at_once[order])
    assert not np.array_equal(NoisyLabels(Y, CLASSES, 0.4, kind, seed=8).label(ALL), at_once)


@pytest.mark.parametrize("kind", ["uniform", "pairs", "class=ant:bee"])
def test_at_a_higher_rate_what_was_wrong_stays_so(kind: str) -> None:
    low, high = (NoisyLabels(Y, CLASSES, rate, kind).label(ALL) for rate in (0.1, 0.3))
    wrong = low != Y
    assert wrong.any() and np.array_equal(low[wrong], high[wrong])
    assert (high != Y).sum() > wrong.sum()


def test_the_true_labels_handed_over_are_not_changed() -> None:
    y = Y.astype(np.uint8)
    NoisyLabels(y, CLASSES, 1, "uniform")
    assert np.array_equal(y, Y)


def test_a_stratified_set_is_drawn_by_the_labels_as_given() -> None:
    oracle = NoisyLabels(Y, CLASSES, 0.8, "uniform")
    drawn = oracle.draw_stratified(ALL, 80, np.random.default_rng(0))
    assert np.bincount(oracle.label(drawn)).tolist() == [20] * 4
    assert np.bincount(Y[drawn]).tolist() != [20] * 4


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unifrom", "unknown label noise kind 'unifrom'; did you mean uniform"),
        ("class=bea:cat", "unknown class in label_noise_kind: 'bea'; did you mean bee"),
        ("class=cat:bea", "unknown class in label_noise_kind: 'bea'; did you mean bee"),
        ("class=4:0", "unknown class in label_noise_kind: '4'"),
        ("class=cat", "got 'class=cat'; expected class=A:B"),
        ("class=cat:2", "'class=cat:2' has no effect; expected two classes"),
    ],
)
def test_noise_that_there_is_not_is_refused(kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NoisyLabels(Y, CLASSES, 0.1, kind)


def test_label_noise_is_of_the_datasets_labels_alone(tiny: skal.ImageDataset) -> None:
    for name in (None, "true"):
        oracle = make_oracle(name, tiny, 4, label_noise=0.2, label_noise_kind="pairs")
        expected = NoisyLabels(tiny.y, tiny.classes, 0.2, "pairs", seed=4).label(np.arange(90))
        assert np.array_equal(oracle.label(np.arange(90)), expected)
    with pytest.raises(ParameterError, match="give label_noise or oracle, not both"):
        skal.run(tiny, **FAST, label_noise=0.2, oracle=lambda indices: indices % 3)
    with pytest.raises(DataError, match="1 of 90 images has no known label"):
        unknown = replace(tiny, y=np.where(np.arange(90) == 5, -1, tiny.y))
        skal.run(unknown, **FAST, label_noise=0.2)


def test_what_is_learnt_from_is_what_was_answered_and_nothing_truer(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fits = fits_heard(monkeypatch)
    noise = {"label_noise": 1, "label_noise_kind": "pairs"}
    run = skal.run(tiny, "badge", **FAST, **noise, calibrate="temperature", out=tmp_path / "run")
    wrong = (tiny.y + 1) % 3
    for _, y in fits:
        known = y != -1
        assert known.any() and np.array_equal(y[known], wrong[known])
    names = [tiny.classes[wrong[row["index"]]] for row in run.queries]
    assert [row["label"] for row in run.queries] == names
    # the test labels stay right: who learnt from wrong ones is wrong
    settings = {**FAST, "n_init": 60, "steps": 60, "n_rounds": 0}
    assert skal.run(tiny, **settings, **noise).rounds[0]["accuracy"] == 0


def test_every_strategy_gets_the_same_wrong_answers(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "label_noise": 0.4, "seed": 2}
    answers = NoisyLabels(tiny.y, tiny.classes, 0.4, seed=derive_seed(2, "oracle"))
    for strategy in ("random", "margin", "bald"):
        run = skal.run(tiny, strategy, **settings)
        indices = np.array([row["index"] for row in run.queries])
        expected = [tiny.classes[label] for label in answers.label(indices)]
        assert [row["label"] for row in run.queries] == expected


@pytest.mark.parametrize("n_valid", [0, 5])
def test_a_run_with_a_named_oracle_is_repeated_and_resumed_by_its_settings(
    tiny: skal.ImageDataset, tmp_path: Path, n_valid: int
) -> None:
    settings = {**FAST, "oracle": f"{__name__}:Mine?rate=0.4", "n_valid": n_valid}
    straight = skal.run(tiny, "margin", **settings, out=tmp_path / "straight")
    wrong = [tiny.classes[tiny.y[row["index"]]] != row["label"] for row in straight.queries]
    assert any(wrong)
    kept = read_config(tmp_path / "straight/config.toml")
    assert kept["oracle"] == settings["oracle"]
    again = skal.run(tiny, **{k: v for k, v in kept.items() if k != "dataset"})
    assert again.queries == straight.queries
    with pytest.raises(KeyboardInterrupt):
        skal.run(
            tiny, "margin", **settings, out=tmp_path / "run", trackers=[Interrupter("training 1")]
        )
    with pytest.raises(RunFolderError, match=r"names code .*oracle .*--trust"):
        skal.resume(tmp_path / "run", data=tiny)
    resumed = skal.resume(tmp_path / "run", data=tiny, trust=True)
    assert resumed.queries == straight.queries


def test_an_oracle_that_was_an_object_must_be_given_again(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    def answers(indices: np.ndarray) -> np.ndarray:
        return tiny.y[indices]

    with pytest.raises(KeyboardInterrupt):
        skal.run(
            tiny, **FAST, oracle=answers, out=tmp_path / "run", trackers=[Interrupter("training 1")]
        )
    kept = read_config(tmp_path / "run/config.toml")
    assert kept["oracle"].startswith("object of ") and kept["oracle"].endswith("answers")
    with pytest.raises(ParameterError, match=r"labelled by .*answers.*resume\(folder, oracle="):
        skal.resume(tmp_path / "run", data=tiny)
    with pytest.raises(ParameterError, match="was a Python object, which settings cannot store"):
        skal.run(tiny, **FAST, oracle=kept["oracle"])
    assert len(skal.resume(tmp_path / "run", data=tiny, oracle=answers).rounds) == 3


def test_other_true_labels_are_noticed_under_noise_when_a_run_is_gone_on_with(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    settings = {**FAST, "label_noise": 0.5}
    straight = skal.run(tiny, "badge", **settings, out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        skal.run(
            tiny, "badge", **settings, out=tmp_path / "run", trackers=[Interrupter("training 1")]
        )
    with pytest.raises(DataError, match="different labels"):
        skal.resume(tmp_path / "run", data=replace(tiny, y=(tiny.y + 1) % 3))
    assert skal.resume(tmp_path / "run", data=tiny).queries == straight.queries
