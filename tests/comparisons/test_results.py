"""What is read of finished runs, and which of them may be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from made_up import made_up_results

import skal
from skal.comparisons.pairs import group_by_setting, tell_apart
from skal.comparisons.results import (
    Result,
    find_runs,
    read_result,
    read_results,
    strategy_label,
)
from skal.comparisons.verdicts import analyse
from skal.core.durable import signed
from skal.core.errors import RunFolderError
from skal.models import build_network
from skal.runs.config import RunConfig
from skal.runs.record import Answers, Record

IMAGES: Mapping[str, Any] = {
    "number of images": [30, 10],
    "image shape": [3, 8, 8],
    "classes": ["daisy", "rose"],
    "paths": 1,
    "pixels": 2,
    "test labels": 3,
}


def leave(folder: Path, data: Mapping[str, Any] = IMAGES, **settings: Any) -> Path:
    """Leave the folder of a finished run of three rounds."""
    config = RunConfig(**{"dataset": "flowers", "model": "lenet", **settings})
    record = Record.create(folder, config, {}, {"config": config.as_dict(), "data": dict(data)})
    for k in range(3):
        answers = Answers([2 * k, 2 * k + 1], [0, 1], ["", ""], ["daisy", "rose"])
        record.add_labels(answers, {}, {})
        row = dict.fromkeys(("balanced_accuracy", "macro_f1", "nll", "ece"), 0.5)
        seconds = dict.fromkeys(("fit_seconds", "score_seconds", "query_seconds"), 0.1)
        numbers = {"round": k, "n_labeled": 2 * k + 2, "accuracy": 0.5 + k / 30}
        record.add_round({**numbers, **row, **seconds}, 1.0)
    name = Path(config.dataset).name
    record.write_summary({"dataset": name, "n_labeled": 6, "accuracy": 0.5 + 2 / 30})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_is_read_and_nothing_is_written(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", strategy="margin", seed=4)
    before = contents(folder)
    found = read_result(folder)
    assert contents(folder) == before
    assert (found.strategy, found.config.seed, found.folder) == ("margin", 4, folder)
    assert [(row["round"], row["n_labeled"]) for row in found.rounds] == [(0, 2), (1, 4), (2, 6)]
    assert found.rounds[2]["accuracy"] == 0.5 + 2 / 30
    assert [row["label"] for row in found.queries] == ["daisy", "rose"] * 3
    assert found.data == IMAGES


# damage


@pytest.mark.parametrize("name", ["rounds.csv", "queries.csv", "summary.json"])
@pytest.mark.parametrize("old_and_new", [("", None), ("4", "5"), ("0.5", "0.6"), ("\n", "")])
def test_what_was_altered_does_not_count_and_is_told(
    name: str,
    old_and_new: tuple[str, str | None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = leave(tmp_path / "run")
    before, path = read_result(folder), folder / name
    old, new = old_and_new
    altered = "something else" if new is None else path.read_text().replace(old, new)
    is_other = altered != path.read_text()
    path.write_text(altered)
    found = read_result(folder)
    assert (found.rounds, found.queries, found.summary) == (
        before.rounds,
        before.queries,
        before.summary,
    )
    assert path.read_text() == altered
    assert (f"{name} differs from the run's journal" in caplog.text) is is_other


def test_settings_that_were_altered_after_the_end_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = leave(tmp_path / "run", strategy="margin", seed=4)
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("seed = 4", "seed = 5"))
    assert read_result(folder).config.seed == 4
    assert "seed is 5, but the run used 4, which is kept" in caplog.text


def test_a_journal_that_begins_with_nothing_is_damaged(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run")
    (folder / "journal.jsonl").write_text("nothing")
    with pytest.raises(RunFolderError, match=r"journal\.jsonl, line 1: damaged"):
        read_result(folder)


def test_a_run_that_is_not_finished_is_said_to_be(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run")
    journal = folder / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunFolderError, match="skal resume"):
        read_result(folder)
    with pytest.raises(RunFolderError, match="no finished run"):
        find_runs([tmp_path])


# the order of a comparison


def test_the_runs_of_a_comparison_have_the_order_of_its_grid(tmp_path: Path) -> None:
    strategies = ["random", "margin", "badge?subset=20", "entropy"]
    for seed in (0, 1):
        for model in ("lenet", "small-cnn"):
            for rate in (0.3, 0.0):
                for name in strategies:
                    strategy, _, params = name.partition("?")
                    leave(
                        tmp_path / "cells" / f"{name.replace('?', '.')}-{model}-{rate}-s{seed}",
                        strategy=strategy,
                        strategy_params={"subset": 20} if params else {},
                        seed=seed,
                        model=model,
                        noise_rate=rate,
                    )
    axes = {"models": ["small-cnn", "lenet"], "noise_rates": ["0%", "30%"]}
    asked = {"dataset": "flowers", "compare": {"strategies": strategies, **axes}}
    (tmp_path / "compare.toml").write_text(signed(tomli_w.dumps(asked)))
    found = read_results([tmp_path])
    assert [(r.config.seed, r.strategy, r.setting.model, r.setting.noise_rate) for r in found] == [
        (seed, strategy, model, rate)
        for seed in (0, 1)
        for strategy in strategies
        for model in ("small-cnn", "lenet")
        for rate in (0.0, 0.3)
    ]
    analysis = analyse(found)
    assert list(analysis["groups"][0]["strategies"]) == strategies
    (tmp_path / "compare.toml").unlink()
    assert [r.folder for r in read_results([tmp_path])] == find_runs([tmp_path])


# what runs are called


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "margin"),
        ({"explore": "0%"}, "margin"),
        ({"explore": "10%"}, "margin, explore 10%"),
        ({"explore": 0.1}, "margin, explore 10%"),
        ({"explore": 0.125, "strategy_params": {"b": 2, "a": 1}}, "margin?a=1&b=2, explore 12.5%"),
        ({"explore": "10%", "strategy": "random"}, "random"),
    ],
)
def test_a_strategy_is_called_by_all_that_it_picks_by(settings: dict[str, Any], label: str) -> None:
    assert strategy_label(RunConfig(**{"strategy": "margin", **settings})) == label


def test_runs_that_explore_are_not_taken_for_others() -> None:
    results = made_up_results(["random", "margin"], 4)
    mixed = [
        replace(r, config=r.config.replace(explore="100%"))
        if r.strategy == "margin" and r.config.seed > 1
        else r
        for r in results
    ]
    found = analyse(mixed)["strategies"]
    assert {name: entry["n_seeds"] for name, entry in found.items()} == {
        "random": 4,
        "margin": 2,
        "margin, explore 100%": 2,
    }


# what data they are on


def at(place: str, strategy: str = "random", seed: int = 0, **data: Any) -> Result:
    config = RunConfig(dataset=place, strategy=strategy, seed=seed, model="lenet")
    rounds = [{"round": 0, "n_labeled": 2, "accuracy": 0.5}]
    return Result(config, {"dataset": Path(place).name}, rounds, data={**IMAGES, **data})


def test_the_same_images_at_two_places_are_one_dataset() -> None:
    results = [at("a/flowers"), at("b/flowers", "margin"), at("b/flowers", seed=1, pixels=9)]
    assert [result.setting.dataset for result in tell_apart(results)] == ["flowers"] * 3
    (group,) = group_by_setting(tell_apart(results)).values()
    assert {name: list(of_seed) for name, of_seed in group.items()} == {
        "random": [0, 1],
        "margin": [0],
    }
    assert len(analyse(results)["groups"]) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"pixels": 9},
        {"paths": 9},
        {"test labels": 9},
        {"classes": ["daisy", "tulip"]},
        {"number of images": [60, 20]},
    ],
    ids=str,
)
def test_other_images_of_the_same_name_are_another_dataset(other: dict[str, Any]) -> None:
    results = [at(place, name, **more) for name in ("random", "margin")
               for place, more in (("x/a/flowers", {}), ("x/b/flowers", other))]  # fmt: skip
    names = [result.setting.dataset for result in tell_apart(results)]
    assert names == ["a/flowers", "b/flowers"] * 2
    assert tell_apart(tell_apart(results))[0].setting == tell_apart(results)[0].setting
    found = analyse(results)
    assert [group["name"] for group in found["groups"]] == ["a/flowers", "b/flowers"]
    assert found["groups"][0]["seeds"] == [0]


def test_other_seeds_have_other_splits_of_the_same_images() -> None:
    other = {"pixels": 9, "paths": 9, "test labels": 9, "number of images": [31, 9]}
    results = [at("a/flowers"), at("b/flowers", seed=1, **other)]
    assert {result.setting.dataset for result in tell_apart(results)} == {"flowers"}


def test_a_folder_that_changed_between_two_runs_makes_no_pair() -> None:
    results = [at("a/flowers"), at("a/flowers", "margin", paths=9)]
    with pytest.raises(RunFolderError, match="their images differ in paths"):
        analyse(results)


def test_weights_are_the_same_by_their_content(tmp_path: Path) -> None:
    for place, content in (("a", "one"), ("b", "one"), ("c", "other")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "net.pt").write_text(content)

    def pair(one: str, other: str) -> list[Result]:
        return [
            replace(r, config=r.config.replace(weights=str(tmp_path / place / "net.pt")))
            for r, place in zip(made_up_results(["random", "badge"], 1), (one, other), strict=True)
        ]

    assert len(analyse(pair("a", "b"))["groups"]) == 1
    with pytest.raises(RunFolderError, match="weights is"):
        analyse(pair("a", "c"))


def test_weights_whose_hash_was_kept_are_the_same_by_it_alone(tmp_path: Path) -> None:
    def runs(*names_and_hashes: tuple[str, str | None]) -> list[Result]:
        results: list[Result] = []
        for result, (name, kept) in zip(made_up_results(n_seeds=1), names_and_hashes, strict=False):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)  # what the file holds today is in no two of them the same
            config = result.config.replace(weights=str(path))
            folder = Path(f"run {len(results) + 1}")
            results.append(replace(result, config=config, weights=kept, folder=folder))
        return results

    assert len(analyse(runs(("a/net.pt", "1"), ("b/net.pt", "1"), ("c.pt", "1")))["groups"]) == 1
    for one, other in (("a/net.pt", "a/net.pt"), ("a/net.pt", "b/net.pt"), ("a/net.pt", "c.pt")):
        with pytest.raises(RunFolderError, match=r"cannot be compared: .*weights"):
            analyse(runs((one, "1"), (other, "2")))
    with pytest.raises(RunFolderError, match="'run 2' and 'run 3' cannot be compared"):
        analyse(runs(("a/net.pt", None), ("a/net.pt", "1"), ("a/net.pt", "2")))


def test_weights_that_were_replaced_between_two_runs_make_no_pair(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    def run_all(*strategies: str) -> skal.Comparison:
        quick = {"model": "lenet", "n_init": 6, "n_query": 4, "n_rounds": 0, "steps": 1}
        return skal.compare(
            tiny, strategies, 1, threads=1, weights=str(path), **quick, out=tmp_path / "c"
        )

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        options = {"n_classes": 3, "in_channels": 1, "image_size": 12, "dropout": 0.0}
        torch.save(dict(build_network("lenet", **options).backbone.state_dict()), path)

    path = tmp_path / "net.pth"
    save(0)
    run_all("margin")
    assert len(run_all("margin", "entropy").results) == 3
    save(1)
    with pytest.raises(RunFolderError, match=r"weights in '.*net\.pth' differ"):
        run_all("margin", "least-confidence")


def test_a_rate_is_a_rate_however_it_is_written() -> None:
    one, other = made_up_results(["random", "badge"], 1, settings=[{"noise_rate": "10%"}])
    other = replace(other, config=other.config.replace(noise_rate=0.1))
    assert len(analyse([one, other])["groups"]) == 1


def test_runs_written_before_this_are_read(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", {})
    assert read_result(folder).data == {}
    assert json.loads((folder / "summary.json").read_text())["n_labeled"] == 6


@pytest.mark.parametrize("damage", ["empty", "other"])
def test_a_damaged_grid_is_told(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = signed(tomli_w.dumps({"dataset": "flowers", "compare": {"seeds": 2}}))
    leave(tmp_path / "cells/run")
    (tmp_path / "compare.toml").write_text("" if damage == "empty" else text.replace("2", "3"))
    assert len(read_results([tmp_path])) == 1
    assert "compare.toml' is damaged or was edited: its checksum" in caplog.text
