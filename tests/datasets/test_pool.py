from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import Interrupter, fits_heard
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

import skal
from skal.core.errors import DataError, ParameterError
from skal.datasets.pool import Pool
from skal.runs.journal import Journal
from skal.runs.metrics import evaluate
from skal.runs.plots import learning_curve
from skal.strategies.catalogue import INIT_STRATEGIES

FAST: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}


@pytest.fixture
def pool() -> Pool:
    pool = Pool(np.zeros((10, 1, 8, 8), np.uint8), n_classes=3)
    pool.label([7, 2], [0, 2])
    return pool


def test_labels_are_kept_and_all_others_are_missing(pool: Pool) -> None:
    assert pool.y.tolist() == [-1, -1, 2, -1, -1, -1, -1, 0, -1, -1]
    assert pool.y.dtype == np.int64
    assert pool.labeled.tolist() == [2, 7]
    assert pool.unlabeled.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert len(pool) == 10


def test_nobody_else_can_write_labels(pool: Pool) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pool.y[0] = 1
    with pytest.raises(AttributeError):
        pool.y = np.zeros(10, np.int64)  # type: ignore[misc]
    assert pool.y[0] == -1


def test_what_was_found_of_images_is_there_until_others_are_asked_about(pool: Pool) -> None:
    pool.memo(None)["mean"] = 3
    pool.label([0], [1])
    assert pool.memo(None) == {"mean": 3}
    some = np.array([0, 2, 4])
    assert pool.memo(some) == {}
    pool.memo(some)["mean"] = 2
    assert pool.memo(some.copy()) == {"mean": 2}
    assert pool.memo(some[:2]) == {} and pool.memo(None) == {}


def test_images_are_not_copied() -> None:
    X = np.zeros((3, 1, 8, 8), np.uint8)
    pool = Pool(X, 2)
    assert np.shares_memory(pool.X, X)
    assert not pool.X.flags.writeable


@pytest.mark.parametrize(
    ("indices", "labels", "message"),
    [
        ([0, 1], [0], "1 label for 2 images"),
        ([[0, 1]], [[0, 1]], "labels for"),
        ([10], [0], "index 10 is out of range; expected 0 to 9"),
        ([-1], [0], "index -1 is out of range"),
        ([0, 10], [0, 0], "index 10 is out of range; expected 0 to 9"),
        ([0, 1], [0, -1], "label -1 is out of range; expected 0 to 2"),
        ([0], [3], "label 3 is out of range; expected 0 to 2"),
        ([0], [-1], "label -1 is out of range"),
        ([0], [1.0], "label of type float64; expected integers"),
        ([0], ["a"], "expected integers"),
        ([True], [1], "index of type bool"),
        ([1, 3, 3], [0, 0, 1], "index 3 occurs twice in one batch of labels"),
        ([0, 7], [1, 1], "image 7 already has the label"),
    ],
)
def test_bad_labels_are_refused_and_nothing_is_written(
    pool: Pool, indices: Any, labels: Any, message: str
) -> None:
    before = pool.y.copy()
    with pytest.raises(DataError, match=message):
        pool.label(indices, labels)
    assert np.array_equal(pool.y, before)


def test_no_labels_at_all_and_single_ones_are_fine(pool: Pool) -> None:
    pool.label([], [])
    pool.label(4, 1)
    pool.hold_out(5, [1])
    assert pool.labeled.tolist() == [2, 4, 7]


# images held out


def test_images_held_out_are_neither_labelled_nor_unlabelled(pool: Pool) -> None:
    assert pool.shown is None and pool.in_play.tolist() == list(range(10))
    pool.hold_out([5, 0], [2, 1])
    assert pool.y.tolist() == [-1, -1, 2, -1, -1, -1, -1, 0, -1, -1]
    assert pool.labeled.tolist() == [2, 7]
    assert pool.unlabeled.tolist() == [1, 3, 4, 6, 8, 9]
    assert pool.valid.tolist() == [0, 5] and pool.y_valid.tolist() == [1, 2]
    assert pool.in_play.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert pool.shown is not None and pool.shown.tolist() == pool.in_play.tolist()


@pytest.mark.parametrize("write", ["label", "hold_out"])
@pytest.mark.parametrize(
    ("index", "message"),
    [(5, "image 5 already has the label 2"), (7, "image 7 already has the label 0")],
)
def test_an_image_is_labelled_or_held_out_once(
    pool: Pool, write: str, index: int, message: str
) -> None:
    pool.hold_out([5], [2])
    with pytest.raises(DataError, match=message):
        getattr(pool, write)([1, index], [0, 0])
    assert pool.labeled.tolist() == [2, 7] and pool.valid.tolist() == [5]


def test_excluded_images_take_no_part_and_withheld_ones_are_not_chosen(pool: Pool) -> None:
    pool.restrict(excluded=[0], withheld=[3, 4])
    assert pool.in_play.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert pool.unlabeled.tolist() == [1, 5, 6, 8, 9]
    assert pool.shown is not None and pool.shown.tolist() == [1, 2, 5, 6, 7, 8, 9]
    pool.restrict()
    assert pool.in_play.tolist() == list(range(10)) and pool.shown is None


# images held out in a run


def valid_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "valid.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def indices_of(folder: Path) -> list[int]:
    return [int(row["index"]) for row in valid_of(folder)]


def figures(run: skal.Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in run.rounds]


def test_images_held_out_are_labelled_counted_and_kept(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    data = replace(tiny, paths=tuple(f"{i}.png" for i in range(90)))
    run = skal.run(data, "margin", **FAST, n_valid="10%", out=tmp_path / "run")
    assert [row["n_labeled"] for row in run.rounds] == [15, 19, 23]
    assert run.summary["n_labeled"] == 23
    assert run.config.n_valid == 9
    rows = valid_of(tmp_path / "run")
    assert list(rows[0]) == ["index", "path", "label"] and len(rows) == 9
    indices = indices_of(tmp_path / "run")
    assert indices == sorted(set(indices))
    for index, row in zip(indices, rows, strict=True):
        assert row["path"] == f"{index}.png"
        assert row["label"] == tiny.classes[tiny.y[index]]
    expected = evaluate(tiny.y[indices], run.classifier.predict_proba(tiny.X[indices]))
    last = run.rounds[-1]
    assert last["valid_accuracy"] == expected["accuracy"]
    assert last["valid_nll"] == pytest.approx(expected["nll"])
    header = (tmp_path / "run/rounds.csv").read_text().splitlines()[0].split(",")
    assert header.index("query_seconds") < header.index("valid_accuracy")


@pytest.mark.pictures
def test_the_learning_curve_shows_their_accuracy(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    run = skal.run(tiny, **FAST, n_valid=9, out=tmp_path / "run")
    title = f"tiny: {run.config.strategy}, lenet, seed 0"
    both = learning_curve(run.rounds, title)["svg"]
    alone = [{k: v for k, v in row.items() if k != "valid_accuracy"} for row in run.rounds]
    assert both != learning_curve(alone, title)["svg"]
    assert (tmp_path / "run/learning_curve.svg").read_bytes() == both


def test_without_any_there_is_neither_a_file_nor_a_column(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    run = skal.run(tiny, **FAST, n_valid=0, out=tmp_path / "run")
    assert not (tmp_path / "run/valid.csv").exists()
    assert not [name for name in run.rounds[0] if name.startswith("valid")]


def test_they_are_drawn_by_the_seed_the_same_for_every_strategy(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    found = {}
    for name, settings in {
        "random": {"strategy": "random"},
        "badge": {"strategy": "badge"},
        "more": {"strategy": "random", "n_valid": 14},
        "other": {"strategy": "random", "seed": 1},
    }.items():
        skal.run(tiny, **{**FAST, "n_rounds": 1, "n_valid": 8, **settings}, out=tmp_path / name)
        found[name] = indices_of(tmp_path / name)
    assert found["random"] == found["badge"] != found["other"]
    assert set(found["random"]) < set(found["more"])
    with_them, without = (
        skal.run(tiny, name, **{**FAST, "n_valid": 8}).queries[:6] for name in ("random", "badge")
    )
    assert with_them == without


@pytest.mark.parametrize(
    "settings",
    [
        *({"init_strategy": name} for name in INIT_STRATEGIES.names()),
        *(
            {"strategy": name}
            for name in ("badge", "bald", "core-set", "clue", "query-by-committee", "drop-query")
        ),
        {"strategy": "margin", "max_candidates": 10},
        {"strategy": "typiclust", "max_candidates": 10, "explore": "50%"},
        {"strategy": "random", "explore": 1},
        {"strategy": "margin", "calibrate": "temperature"},
        {"strategy": "auto", "stream": "in-order", "budget": 1},
        {"strategy": "variable-uncertainty", "stream": "shuffled", "budget": 1},
    ],
    ids=str,
)
def test_nothing_is_trained_on_them_and_nobody_chooses_them(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = fits_heard(monkeypatch)
    chosen = {**FAST, "n_query": 30, "n_rounds": 3, **settings, "n_valid": 20}
    if "stream" in settings:
        del chosen["n_query"]
    run = skal.run(tiny, **chosen, out=tmp_path / "run")
    apart = set(indices_of(tmp_path / "run"))
    asked = {row["index"] for row in run.queries}
    assert len(apart) == 20 and not apart & asked
    if "stream" not in settings:
        assert apart | asked == set(range(90))  # the pool was emptied
    trained_on = {image.tobytes() for X, y in fits for image in X[y != -1]}
    assert trained_on == {tiny.X[index].tobytes() for index in asked}


class Spy(SingleAnnotatorPoolQueryStrategy):
    """Writes down what it is shown, and picks the first."""

    seen: list[tuple[np.ndarray, np.ndarray]] = []  # noqa: RUF012

    def query(
        self,
        X: Any,
        y: Any,
        clf: Any,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        Spy.seen.append((np.array(y), clf.predict_proba(X)))
        return np.flatnonzero(y == -1)[:batch_size]


def test_a_strategy_does_not_see_them(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    Spy.seen = []
    run = skal.run(tiny, Spy, **{**FAST, "n_rounds": 1}, n_valid=20, out=tmp_path / "run")
    [(y, proba)] = [seen for seen in Spy.seen if len(seen[0]) != 40]  # it was tried on 40
    assert y.shape == (70,) and proba.shape == (70, 3)
    shown = np.setdiff1d(np.arange(90), indices_of(tmp_path / "run"))
    picked = [row["index"] for row in run.queries if row["round"] == 1]
    assert picked == shown[y == -1][:4].tolist()
    known = {row["index"]: tiny.classes.index(row["label"]) for row in run.queries[:6]}
    assert {int(shown[row]): int(y[row]) for row in np.flatnonzero(y != -1)} == known


def test_who_tells_when_to_stop_does_not_look_at_them(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    skal.run(tiny, **FAST, n_valid=20, out=tmp_path / "run")
    entries = Journal(tmp_path / "run/journal.jsonl").read()
    assert {len(entry["predicted"]) for entry in entries if entry["event"] == "round"} == {70}


def test_they_are_labelled_by_the_oracle_before_all_others_and_once(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    asked: list[list[int]] = []

    def answer(indices: np.ndarray) -> np.ndarray:
        asked.append(indices.tolist())
        return (tiny.y[indices] + 1) % 3

    run = skal.run(tiny, "badge", **FAST, n_valid=5, oracle=answer, out=tmp_path / "run")
    assert [len(indices) for indices in asked] == [5, 6, 4, 4]
    assert asked[0] == indices_of(tmp_path / "run")
    wrong = (tiny.y[asked[0]] + 1) % 3
    assert [row["label"] for row in valid_of(tmp_path / "run")] == [tiny.classes[y] for y in wrong]
    # who has nothing but these labels can measure by nothing but them
    proba = run.classifier.predict_proba(tiny.X[asked[0]])
    assert run.rounds[-1]["valid_nll"] == pytest.approx(evaluate(wrong, proba)["nll"])


@pytest.mark.parametrize("settings", [{}, {"stream": "shuffled", "budget": "30%"}], ids=str)
def test_a_run_goes_on_from_any_line_of_its_journal(
    tiny: skal.ImageDataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {**FAST, "n_valid": 9, "label_noise": 0.3, **settings}
    if "stream" in settings:
        del settings["n_query"]
    straight = skal.run(tiny, **settings, out=tmp_path / "straight")
    files = ("queries.csv", "valid.csv", "model.safetensors")
    lines = (tmp_path / "straight/journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 12
    for number in range(1, 12):
        for kept in (0, len(lines[number]) - 1):
            folder = tmp_path / f"{number}-{kept}"
            folder.mkdir()
            for name in ("config.toml", "environment.json"):
                shutil.copy(tmp_path / "straight" / name, folder)
            torn = b"".join(lines[:number]) + lines[number][:kept]
            (folder / "journal.jsonl").write_bytes(torn)
            resumed = skal.resume(folder, data=tiny)
            assert figures(resumed) == figures(straight), (number, kept)
            for name in files:
                expected = (tmp_path / "straight" / name).read_bytes()
                assert (folder / name).read_bytes() == expected, (number, kept, name)


def test_another_label_of_theirs_is_noticed_when_a_run_is_gone_on_with(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        skal.run(
            tiny, **FAST, n_valid=5, out=tmp_path / "run", trackers=[Interrupter("querying 0")]
        )
    changed = tiny.y.copy()
    changed[indices_of(tmp_path / "run")[2]] += 1
    with pytest.raises(DataError, match="different labels"):
        skal.resume(tmp_path / "run", data=replace(tiny, y=changed % 3))


def test_answers_that_are_no_labels_are_not_kept(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="returned the class 9; expected 5 class ids"):
        skal.run(tiny, **FAST, n_valid=5, out=tmp_path / "run", oracle=lambda i: np.full(len(i), 9))
    assert not (tmp_path / "run/valid.csv").exists()
    events = [entry["event"] for entry in Journal(tmp_path / "run/journal.jsonl").read()]
    assert events == ["start"]


@pytest.mark.parametrize("n_valid", [90, 91, "100%"])
def test_an_image_at_least_must_be_left(
    tiny: skal.ImageDataset, tmp_path: Path, n_valid: Any
) -> None:
    with pytest.raises(ParameterError, match=r"n_valid: got .*, but the pool has 90 images"):
        skal.run(tiny, **FAST, n_valid=n_valid, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = skal.run(tiny, **{**FAST, "n_rounds": 0}, n_valid=89)
    assert run.summary["n_labeled"] == 90


@pytest.mark.parametrize("n_valid", [-1, "-5%", "many", 1.5, None, True])
def test_what_is_no_number_of_images_is_refused(tiny: skal.ImageDataset, n_valid: Any) -> None:
    with pytest.raises(ParameterError, match=r"n_valid: got .* a whole number of at least 0, or"):
        skal.run(tiny, **FAST, n_valid=n_valid)
