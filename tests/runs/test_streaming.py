"""`--stream` and `--budget`: the pool passes by once, chunk by chunk."""

from __future__ import annotations

import math
import shutil
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import Interrupter, fits_heard
from skactiveml.base import SingleAnnotatorStreamQueryStrategy

import skal
import skal.runs.streaming
from skal.cli import main
from skal.core.errors import ParameterError, UnknownNameError
from skal.runs.journal import Journal
from skal.runs.streaming import DEFAULT_STRATEGY
from skal.strategies.streams import STREAM_STRATEGIES, WINDOW

NAMES = STREAM_STRATEGIES.names()
N_INIT, N_ROUNDS = 6, 3
FAST: dict[str, Any] = {
    "model": "lenet",
    "steps": 2,
    "n_init": N_INIT,
    "n_rounds": N_ROUNDS,
    "stream": "in-order",
    "budget": "20%",
}


def metrics(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rounds]


def picks(run: skal.Run, number: int) -> list[int]:
    return [row["index"] for row in run.queries if row["round"] == number]


def chunks(run: skal.Run, n_pool: int = 90) -> list[list[int]]:
    """What a stream in order presents in each round."""
    rest = np.setdiff1d(np.arange(n_pool), picks(run, 0))
    return [part.tolist() for part in np.array_split(rest, run.config.n_rounds)]


def flat(parts: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def assert_same(folder: Path, straight: Path, found: skal.Run, expected: skal.Run) -> None:
    for name in ("queries.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    assert metrics(found.rounds) == metrics(expected.rounds)
    assert {**found.summary, "seconds": 0} == {**expected.summary, "seconds": 0}


@pytest.fixture
def presented(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Rows that were scored, one entry a chunk, for strategies that need scores alone."""
    rows: list[list[int]] = []
    score_pool = skal.runs.streaming.score_pool

    def spy(*args: Any, **options: Any) -> Any:
        rows.append(options["rows"].tolist())
        return score_pool(*args, **options)

    monkeypatch.setattr(skal.runs.streaming, "score_pool", spy)
    return rows


# what passes by


@pytest.mark.parametrize("name", NAMES)
def test_each_chunks_images_are_chosen_in_order_within_the_budget(
    tiny: skal.ImageDataset, name: str
) -> None:
    run = skal.run(tiny, name, **FAST)
    n_presented, n_chosen = 0, 0
    for number, chunk in enumerate(chunks(run), start=1):
        chosen = picks(run, number)
        assert chosen == sorted(chosen)
        assert set(chosen) <= set(chunk)
        n_presented, n_chosen = n_presented + len(chunk), n_chosen + len(chosen)
        most = 0.2 * n_presented
        if name not in ("random", "periodic"):
            most = min(most + 0.2 * WINDOW + 1, math.ceil(0.2 * (90 - N_INIT)))
        assert n_chosen <= most
        assert run.rounds[number]["n_labeled"] == N_INIT + n_chosen
    assert n_presented == 90 - N_INIT
    assert len({row["index"] for row in run.queries}) == len(run.queries)
    if name != "fixed-uncertainty":  # it is for networks less sure than its threshold
        assert n_chosen > 0


def test_images_are_presented_once_in_their_order(
    tiny: skal.ImageDataset, presented: list[list[int]]
) -> None:
    run = skal.run(tiny, "variable-uncertainty", **FAST)
    assert presented == chunks(run)
    assert {len(chunk) for chunk in presented} == {28}


def test_shuffled_images_are_presented_once_in_an_order_drawn_by_the_seed(
    tiny: skal.ImageDataset, presented: list[list[int]]
) -> None:
    settings = {**FAST, "stream": "shuffled"}
    run = skal.run(tiny, "variable-uncertainty", **settings)
    order = flat(presented)
    assert sorted(order) == sorted(set(range(90)) - set(picks(run, 0)))
    assert order != sorted(order)
    for number, chunk in enumerate(presented, start=1):
        places = [chunk.index(pick) for pick in picks(run, number)]
        assert places == sorted(places)
    presented.clear()
    skal.run(tiny, "split", **settings)
    assert flat(presented) == order  # whatever the strategy
    presented.clear()
    skal.run(tiny, "split", **settings, seed=1)
    assert flat(presented) != order


def test_chunks_that_cannot_be_even_differ_by_one(
    tiny: skal.ImageDataset, presented: list[list[int]]
) -> None:
    run = skal.run(tiny, "variable-uncertainty", **{**FAST, "n_rounds": 8, "steps": 1})
    assert presented == chunks(run)
    assert {len(chunk) for chunk in presented} == {10, 11}


def test_each_chunk_is_judged_by_a_network_that_knows_the_labels_before_it(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, n_known = fits_heard(monkeypatch), []
    score_pool = skal.runs.streaming.score_pool

    def spying_score(*args: Any, **options: Any) -> Any:
        n_known.append(int((fits[-1][1] >= 0).sum()))
        return score_pool(*args, **options)

    monkeypatch.setattr(skal.runs.streaming, "score_pool", spying_score)
    run = skal.run(tiny, "variable-uncertainty", **FAST)
    assert n_known == [row["n_labeled"] for row in run.rounds[:-1]]
    assert [(y >= 0).sum() for _, y in fits] == [row["n_labeled"] for row in run.rounds]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_repeats_a_stream(tiny: skal.ImageDataset, name: str) -> None:
    settings = {**FAST, "stream": "shuffled"}
    first, again, other = (skal.run(tiny, name, **settings, seed=seed) for seed in (3, 3, 4))
    assert first.queries == again.queries
    assert metrics(first.rounds) == metrics(again.rounds)
    assert first.queries != other.queries


def test_a_stream_leaves_the_same_records_as_a_run_on_a_pool(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    streamed = skal.run(tiny, "split", **FAST, out=tmp_path / "stream")
    pool = {**FAST, "stream": "off", "n_query": 4}
    del pool["budget"]
    other = skal.run(tiny, "margin", **pool, out=tmp_path / "pool")
    assert list(streamed.summary) == list(other.summary)
    assert [list(row) for row in streamed.rounds] == [list(row) for row in other.rounds]
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("stream", "pool")]
    assert files[0] == files[1]
    for name in ("rounds.csv", "queries.csv"):
        headers = [(tmp_path / f / name).read_text().splitlines()[0] for f in ("stream", "pool")]
        assert headers[0] == headers[1]
    assert streamed.queries[:N_INIT] == other.queries[:N_INIT]
    assert metrics(streamed.rounds[:1]) == metrics(other.rounds[:1])
    assert streamed.summary["n_labeled"] == len(streamed.queries)


# all, and nothing


def test_a_budget_of_all_can_label_all(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "periodic", **{**FAST, "budget": "100%"})
    assert [picks(run, number) for number in (1, 2, 3)] == chunks(run)
    assert run.summary["n_labeled"] == 90


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_of_all_is_no_duty(tiny: skal.ImageDataset, name: str) -> None:
    run = skal.run(tiny, name, **{**FAST, "budget": "100%", "steps": 1})
    assert len(run.rounds) == N_ROUNDS + 1
    assert N_INIT + 9 < run.summary["n_labeled"] <= 90  # more than a tenth


def test_a_chunk_of_which_nothing_is_chosen_is_a_round_too(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    # one of four of the six images, which come in chunks of two
    settings = {**FAST, "n_init": 84, "budget": "25%", "strategy": "periodic"}
    run = skal.run(tiny, **settings, out=tmp_path / "run")
    assert [row["n_labeled"] for row in run.rounds] == [84, 84, 85, 85]
    for place in ("training 1", "querying 2", "querying 3", "round 3"):
        folder = tmp_path / place
        with pytest.raises(KeyboardInterrupt):
            skal.run(tiny, **settings, out=folder, trackers=[Interrupter(place)])
        assert_same(folder, tmp_path / "run", skal.resume(folder, data=tiny), run)


def test_more_rounds_than_images_are_empty_chunks(tiny: skal.ImageDataset) -> None:
    settings = {**FAST, "n_init": 86, "n_rounds": 7, "steps": 1, "budget": "50%"}
    run = skal.run(tiny, "periodic", **settings)
    assert [len(chunk) for chunk in chunks(run)] == [1, 1, 1, 1, 0, 0, 0]
    assert [row["n_labeled"] for row in run.rounds] == [86, 86, 87, 87, 88, 88, 88, 88]


def test_without_rounds_nothing_passes_by(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "split", **{**FAST, "n_rounds": 0})
    assert [row["n_labeled"] for row in run.rounds] == [N_INIT]


def test_a_start_with_all_labels_leaves_no_stream(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    run = skal.run(tiny, "split", **{**FAST, "n_init": 90})
    assert [row["n_labeled"] for row in run.rounds] == [90]
    assert "the pool is empty: the run ends after round 0" in caplog.text


# resuming


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {"stream": "shuffled"}) for name in NAMES),
        ("variable-uncertainty", {"calibrate": "temperature", "init_strategy": "stratified"}),
    ],
)
def test_a_stopped_stream_ends_as_if_it_had_not_been(
    tiny: skal.ImageDataset, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    settings = {**FAST, **changes, "strategy": name}
    straight = skal.run(tiny, **settings, out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        skal.run(tiny, **settings, out=tmp_path / "run", trackers=[Interrupter("querying 1")])
    for place in ("training 1", "querying 2", "evaluating 2", "round 2"):
        with pytest.raises(KeyboardInterrupt):
            skal.resume(tmp_path / "run", data=tiny, trackers=[Interrupter(place)])
    resumed = skal.resume(tmp_path / "run", data=tiny)
    assert_same(tmp_path / "run", tmp_path / "straight", resumed, straight)


def test_a_stream_goes_on_from_any_line_of_its_journal(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    settings = {**FAST, "strategy": "random-variable-uncertainty", "strategy_params": {"s": 0.1}}
    settings |= {"init_strategy": "k-means", "steps": 1}
    straight = skal.run(tiny, **settings, out=tmp_path / "straight")
    journal = (tmp_path / "straight/journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(journal) == 1 + 3 * (N_ROUNDS + 1) + 1
    for number in range(1, len(journal)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("config.toml", "environment.json"):
            shutil.copy(tmp_path / "straight" / name, folder)
        (folder / "journal.jsonl").write_bytes(b"".join(journal[:number]) + journal[number][:9])
        assert_same(folder, tmp_path / "straight", skal.resume(folder, data=tiny), straight)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_rounds = 3", "n_rounds = 4", "n_rounds in config.toml was 3"),
        ("n_rounds = 3", "n_rounds = 2", "n_rounds in config.toml was 3"),
        ("budget = 0.2", "budget = 0.3", "budget in config.toml was 0.2"),
        ('stream = "in-order"', 'stream = "shuffled"', "stream in config.toml was 'in-order'"),
    ],
)
def test_what_the_chunks_go_by_cannot_be_changed_before_going_on(
    tiny: skal.ImageDataset, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        skal.run(tiny, "split", **FAST, out=tmp_path / "run", trackers=[Interrupter("training 1")])
    config = tmp_path / "run/config.toml"
    assert config.read_text().count(old) == 1
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ParameterError, match=message):
        skal.resume(tmp_path / "run", data=tiny)
    config.write_text(config.read_text().replace(new, old))
    skal.resume(tmp_path / "run", data=tiny)


def test_a_stream_may_end_when_its_predictions_have_stabilised(
    tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skal.runs.stopping.stabilised", lambda agreements: len(agreements) == 2)
    run = skal.run(tiny, "split", **FAST, stop="end", out=tmp_path / "run")
    assert [row["round"] for row in run.rounds] == [0, 1, 2]
    assert run.summary["stop_round"] == 2


# names and budgets


def test_auto_is_the_default_stream_strategy_by_its_name(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    assert DEFAULT_STRATEGY in NAMES
    run = skal.run(tiny, **FAST, out=tmp_path / "run")
    config = tomllib.loads((tmp_path / "run/config.toml").read_text())
    assert config["strategy"] == run.summary["strategy"] == DEFAULT_STRATEGY
    assert run.queries == skal.run(tiny, DEFAULT_STRATEGY, **FAST).queries


@pytest.mark.parametrize("name", ["margin", "badge", "core-set", "query-by-committee"])
def test_a_strategy_for_pools_is_refused_with_the_names_there_are(
    tiny: skal.ImageDataset, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        skal.run(tiny, name, **FAST, out=tmp_path / "run")
    message = str(caught.value)
    assert message.startswith(f"unknown stream strategy {name!r}; known: ")
    assert all(other in message for other in NAMES)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        ("periodical", UnknownNameError, r"did you mean periodic\?"),
        ("skactiveml.pool:Falcun", ParameterError, "is not a stream strategy"),
        ("skactiveml.stream:Splt", UnknownNameError, "did you mean Split"),
        (object(), ParameterError, "expected a name from skal list stream-strategies"),
    ],
)
def test_what_is_no_stream_strategy_is_refused(
    tiny: skal.ImageDataset, strategy: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        skal.run(tiny, strategy, **FAST)


def test_a_stream_strategy_is_refused_for_a_pool(tiny: skal.ImageDataset) -> None:
    with pytest.raises(UnknownNameError, match="unknown strategy 'split'"):
        skal.run(tiny, "split", **{name: FAST[name] for name in FAST.keys() - {"stream", "budget"}})


def test_arguments_reach_the_stream_strategy_and_wrong_ones_are_refused(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    never = {"theta": 1e-9, "s": 1e-9}  # no network is so unsure
    run = skal.run(tiny, "variable-uncertainty", **FAST, strategy_params=never)
    assert run.summary["n_labeled"] == N_INIT
    assert run.config.strategy_params == never
    with pytest.raises(UnknownNameError, match=r"'thetta'; did you mean theta\?"):
        settings = {**FAST, "strategy_params": {"thetta": 1}, "out": tmp_path / "run"}
        skal.run(tiny, "variable-uncertainty", **settings)
    assert not (tmp_path / "run").exists()


class Picky(SingleAnnotatorStreamQueryStrategy):
    """Asks a function."""

    def __init__(
        self, rule: Any = None, every: int | None = 2, budget: Any = None, random_state: Any = None
    ) -> None:
        super().__init__(budget=budget, random_state=random_state)
        self.rule = rule
        self.every = every

    def query(self, candidates: Any, *, return_utilities: bool = False) -> Any:
        wanted = self.rule is not None and self.rule(int(candidates[0, 0]))
        wanted = wanted and (self.every is None or candidates[0, 0] % self.every == 0)
        return ([0] if wanted else []), np.ones(1)

    def update(self, candidates: Any, queried_indices: Any) -> Any:
        return self


PICKY = f"{__name__}:Picky"


@pytest.mark.parametrize(("every", "expected"), [(None, [0, 1, 2]), (2, [0, 2])])
def test_arguments_that_no_file_can_hold_reach_the_stream_strategy_and_are_named(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    every: int | None,
    expected: list[int],
) -> None:
    params = {"rule": lambda row: row < 3, "every": every}
    settings = {**FAST, "budget": "50%", "strategy_params": params, "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        skal.run(tiny, PICKY, **settings, trackers=[Interrupter("training 2")])
    names = "rule" if every else "rule, every"
    assert f"config.toml cannot hold the strategy's {names}: the run can" in caplog.text
    with pytest.raises(ParameterError, match=f"cannot hold the strategy's {names}"):
        skal.resume(tmp_path / "run", data=tiny)
    run = skal.run(tiny, PICKY, **{**settings, "out": None})
    for number, chunk in enumerate(chunks(run), start=1):
        assert picks(run, number) == [chunk[row] for row in expected]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"explore": "10%"}, "explore: got 0.1, which has no effect with stream"),
        ({"max_candidates": 50}, "max_candidates: got 50, which has no effect with stream"),
        ({"n_query": 10}, "n_query: got 10, which has no effect with stream; leave it out"),
        ({"n_query": "20%"}, "n_query: got '20%', which has no effect with stream"),
        ({"n_query": 20}, "n_query: got 20, which has no effect with stream"),
        ({"explore": 0}, "explore: got 0.0, which has no effect with stream"),
        ({"stream": "off"}, "budget: got 0.2, which has no effect without stream"),
    ],
)
def test_a_setting_that_changes_nothing_is_refused_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        skal.run(tiny, "random", **{**FAST, **settings}, out=tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_a_class_of_scikit_activeml_works_by_its_path(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "skactiveml.stream:Split", **FAST)
    assert run.queries == skal.run(tiny, "split", **FAST).queries


@pytest.mark.parametrize(
    "value", ["0%", 0, "10", -1, "abc", 1.5, "101%", "", None, True, "nan", float("nan")]
)
def test_a_budget_that_is_no_share_is_refused_before_anything_is_written(
    tiny: skal.ImageDataset, tmp_path: Path, value: Any
) -> None:
    with pytest.raises(ParameterError) as caught:
        skal.run(tiny, "random", **{**FAST, "budget": value}, out=tmp_path / "run")
    assert str(caught.value).startswith(f"budget: got {value!r}; expected a share from more than")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budget", ["25%", 0.25, "0.25", " 25 %"])
def test_a_budget_can_be_written_in_several_ways(tiny: skal.ImageDataset, budget: Any) -> None:
    run = skal.run(tiny, "periodic", **{**FAST, "budget": budget})
    assert run.summary["n_labeled"] == N_INIT + math.floor(0.25 * (90 - N_INIT))


@pytest.mark.parametrize("value", ["in-ordr", "on"])
def test_another_word_for_a_stream_is_refused(tiny: skal.ImageDataset, value: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown stream '{value}'"):
        skal.run(tiny, **{**FAST, "stream": value})


# the command line


def call(*args: object) -> Any:
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="skal")


def test_alone_the_option_means_in_order() -> None:
    printed = tomllib.loads(call("run", "--stream", "--budget", "5%", "--print-config").stdout)
    assert (printed["stream"], printed["budget"]) == ("in-order", 0.05)
    shuffled = tomllib.loads(call("run", "--stream", "shuffled", "--print-config").stdout)
    assert shuffled["stream"] == "shuffled"
    assert tomllib.loads(call("run", "--print-config").stdout)["stream"] == "off"


def test_a_stream_from_the_command_line_is_repeated_by_its_config(tmp_path: Path) -> None:
    flags: list[object] = ["--stream", "shuffled", "--budget", "5%", "--strategy", "split"]
    flags += ["--strategy-param", "v=0.3", "--model", "lenet", "--steps", 2, "--n-rounds", 2]
    result = call("run", *flags, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.stderr
    assert "split on digits" in result.stderr
    config = tmp_path / "one/config.toml"
    assert call("run", "--config", config, "--out", tmp_path / "two").exit_code == 0
    for name in ("config.toml", "queries.csv", "model.safetensors"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    entries = Journal(tmp_path / "two/journal.jsonl").read()
    n_presented = sum(len(entry.get("details", {}).get("utilities", ())) for entry in entries)
    assert n_presented == len(skal.load_dataset("digits").X) - 20
