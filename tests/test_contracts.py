"""What holds for everything that is registered."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import skal
from skal.cli import main
from skal.models import MODELS
from skal.strategies import STRATEGIES, resolve_strategy, select
from skal.strategies.catalogue import NEEDS
from skal.testing import (
    check_classifier,
    check_dataset,
    check_model,
    check_strategy,
    example_scores,
)

RESTING = {"resnet18": {"image_sizes": (8, 64), "channels": (3,)}}
CATALOGUE = {
    "random", "least-confidence", "margin", "entropy", "greedy-bald", "batch-bald", "core-set",
    "typiclust", "probcover", "max-herding", "clue", "drop-query", "falcun", "contrastive",
    "discriminative", "query-by-committee", "badge", "bald", "diverse-entropy", "diverse-batch",
    "k-means", "committee-variance", "expected-gradient-length", "power-margin", "power-bald",
    "tcm", "uncertainty-herding", "auto",
}  # fmt: skip
FAST = {"n_init": 6, "n_query": 5, "n_rounds": 2, "steps": 2}


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen colour PNGs of each of three classes, which differ by what colour is bright."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for number in range(16):
            pixels = rng.integers(0, 90, (14, 12, 3), dtype=np.uint8)
            pixels[4:10, 4:10, channel] += 150
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def few_digits() -> skal.ImageDataset:
    """Return 40 digits of each set."""
    digits = skal.load_dataset("digits")
    return skal.ImageDataset(
        digits.X[:40], digits.y[:40], digits.classes, digits.X_test[:40], digits.y_test[:40],
        name="few-digits",
    )  # fmt: skip


def picked(result: skal.Run) -> list[int]:
    return [row["index"] for row in result.queries]


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_keeps_its_contract(name: str) -> None:
    check_model(name, **RESTING.get(name, {}))


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_makes_a_classifier(name: str, tiny: skal.ImageDataset) -> None:
    check_classifier(skal.ImageClassifier(name, classes=[0, 1, 2], steps=2, random_state=0), tiny)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_keeps_its_contract(name: str) -> None:
    check_strategy(name)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_runs_on_an_image_folder(name: str, image_folder: Path, cache: Path) -> None:
    settings = {"image_size": 12, "data_dir": cache, **FAST}
    first, again, other = (
        skal.run(image_folder, name, seed=seed, **settings) for seed in (0, 0, 1)
    )
    for result in (first, other):
        assert [row["n_labeled"] for row in result.rounds] == [6, 11, 16]
        assert [row["round"] for row in result.queries] == [0] * 6 + [1] * 5 + [2] * 5
        assert len(set(picked(result))) == 16
    assert first.queries == again.queries
    assert [row["path"] for row in first.queries] != [row["path"] for row in other.queries]


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_takes_all_that_is_left_of_digits(
    name: str, few_digits: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {**FAST, "n_init": 10, "n_query": 13, "n_rounds": 4}
    first, again = (skal.run(few_digits, name, **settings) for _ in range(2))
    # 13, 13, and the last 4 of them; then there is nothing to ask for
    assert [row["n_labeled"] for row in first.rounds] == [10, 23, 36, 40]
    assert sorted(picked(first)) == list(range(40))
    assert picked(first) == picked(again)
    assert "asked for 13 images, but only 4 are left" in caplog.text


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_goes_on_when_one_class_alone_is_labelled(
    name: str, few_digits: skal.ImageDataset
) -> None:
    result = skal.run(few_digits, name, oracle=lambda rows: np.full(len(rows), 7), **FAST)
    assert {row["label"] for row in result.queries} == {"7"}
    assert len(set(picked(result))) == 16


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_takes_the_first_batch_of_a_pool_without_labels(name: str) -> None:
    picks = select(
        resolve_strategy(name),
        np.full(60, -1),
        7,
        scores=example_scores(),
        seed=0,
    )
    assert len(set(picks.tolist())) == 7


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_has_a_utility_for_each_image_that_it_can_pick(
    name: str, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = resolve_strategy(name)
    query = chosen.cls.query  # type: ignore[attr-defined]
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    @functools.wraps(query)
    def watched(
        self: Any, X: Any, y: Any, *args: Any, return_utilities: bool = False, **options: Any
    ) -> Any:
        picks, utilities = query(self, X, y, *args, return_utilities=True, **options)
        seen.append((y, utilities))
        return (picks, utilities) if return_utilities else picks

    monkeypatch.setattr(chosen.cls, "query", watched)
    for n_labeled in (0, 12):
        y = np.where(np.arange(60) < n_labeled, np.arange(60) % 3, -1)
        select(chosen, y, 5, scores=example_scores(ties), seed=0)
    assert len(seen) == 2
    for y, utilities in seen:
        missing = np.isnan(utilities[:, y == -1]).sum(axis=1)
        assert (missing <= np.arange(len(utilities))).all()  # of what was picked before


def test_the_catalogue_is_complete() -> None:
    answer = CliRunner().invoke(main, ["list", "strategies", "--json"])
    assert answer.exit_code == 0
    rows = json.loads(answer.stdout)
    names = [row["name"] for row in rows]
    assert set(names) == CATALOGUE
    assert len(names) == len(CATALOGUE)
    for row in rows:
        assert row["needs"] in NEEDS, row["name"]
        for fact in ("summary", "cost", *([] if row["name"] in ("random", "auto") else ["paper"])):
            assert row[fact].strip(), (row["name"], fact)
            assert "\n" not in row[fact]


def test_parameters_that_the_catalogue_sets_are_those_of_the_classes() -> None:
    for entry in STRATEGIES:
        takes = set(inspect.signature(entry.load()).parameters)
        assert set(entry.facts.get("params", {})) <= takes, entry.name
        targets = entry.facts.get("aliases", {}).values()
        assert {target.partition(".")[0] for target in targets} <= takes, entry.name


def test_digits_keeps_the_contract_of_datasets() -> None:
    check_dataset(skal.load_dataset("digits"))


def test_the_checks_find_what_is_wrong(tiny: skal.ImageDataset) -> None:
    twice = skal.ImageDataset(tiny.X, tiny.y, tiny.classes, tiny.X[:9], tiny.y[:9])
    with pytest.raises(AssertionError, match="also in X"):
        check_dataset(twice)
    one = skal.ImageDataset(tiny.X, np.zeros_like(tiny.y), ("a",), tiny.X_test[:1], tiny.y[:1] * 0)
    with pytest.raises(AssertionError, match="expected at least 2"):
        check_dataset(one)
