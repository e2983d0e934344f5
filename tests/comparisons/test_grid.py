"""Comparisons, as their users notice them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_up import bars
from PIL import Image

import skal
from skal.cli import main
from skal.comparisons.config import GridConfig, base_config
from skal.comparisons.pairs import group_by_setting
from skal.comparisons.results import find_runs, read_result
from skal.comparisons.worker import CellRunner
from skal.core.durable import locked
from skal.core.errors import (
    ParameterError,
    RunExistsError,
    RunFolderError,
    SkalError,
    UnknownNameError,
)
from skal.strategies import BatchStrategy

QUICK: dict[str, Any] = {"n_init": 6, "n_query": 4, "n_rounds": 2, "steps": 4, "precision": "fp32"}


def compared(data: skal.ImageDataset, out: Path | None = None, **changed: Any) -> skal.Comparison:
    asked = {"strategies": ["margin"], "seeds": 2, "threads": 1, **QUICK, **changed}
    return skal.compare(data, **asked, out=out)


def rows_of(folder: Path, name: str = "results.csv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def but_seconds(folder: Path) -> list[dict[str, str]]:
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in rows_of(folder)
    ]


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Tell what was written anew: names to inode and time of change."""
    stats = {str(path): path.stat() for path in sorted((folder / "cells").rglob("*"))}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison") / "c"
    compared(bars(), folder)
    return folder


@pytest.fixture
def finished(made_once: Path, tmp_path: Path) -> Path:
    """Return a copy of a comparison of margin and random over two seeds."""
    return Path(shutil.copytree(made_once, tmp_path / "c"))


class TestTheGrid:
    def test_every_cell_is_an_ordinary_finished_run(
        self, tiny: skal.ImageDataset, tmp_path: Path, finished: Path
    ) -> None:
        cells = sorted(path.name for path in (tmp_path / "c/cells").iterdir())
        assert cells == [
            f"{strategy}-small-cnn-s{seed}" for strategy in ("margin", "random") for seed in (0, 1)
        ]
        for cell in cells:
            result = read_result(tmp_path / "c/cells" / cell)
            assert [row["n_labeled"] for row in result.rounds] == [6, 10, 14]
        place = {"data_dir": result.config.data_dir, "out": tmp_path / "alone"}
        alone = skal.run(tiny, "margin", seed=1, **place, **QUICK)
        assert alone.folder is not None
        for name in ("queries.csv", "config.toml"):
            of_cell = tmp_path / "c/cells/margin-small-cnn-s1" / name
            assert of_cell.read_bytes() == (alone.folder / name).read_bytes()

    def test_runs_of_a_seed_are_pairs_and_those_of_others_are_not(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        compared(tiny, tmp_path / "c", strategies=["margin", "core-set"])
        rows = rows_of(tmp_path / "c")
        first = {(row["strategy"], row["seed"]): row for row in rows if row["round"] == "0"}
        assert len(first) == 6
        for seed in ("0", "1"):
            same = [first[name, seed] for name in ("random", "margin", "core-set")]
            assert len({(row["accuracy"], row["nll"], row["ece"]) for row in same}) == 1
        assert first["random", "0"]["nll"] != first["random", "1"]["nll"]
        initial = {
            path.parent.name: [
                q["index"] for q in read_result(path.parent).queries if not q["round"]
            ]
            for path in (tmp_path / "c").rglob("queries.csv")
        }
        for seed in (0, 1):
            of_seed = [picks for name, picks in initial.items() if name.endswith(f"s{seed}")]
            assert len(of_seed) == 3
            assert of_seed[0] == of_seed[1] == of_seed[2]

    def test_random_is_there_whether_it_is_named_or_not(self, tiny: skal.ImageDataset) -> None:
        for strategies in (["margin"], ["margin", "random"], ["random", "margin"]):
            done = compared(tiny, strategies=strategies, seeds=1, n_rounds=0)
            assert sorted({result.strategy for result in done.results}) == ["margin", "random"]
            assert done.analysis["baseline"] == "random"

    def test_two_jobs_come_to_the_same_as_one(
        self, tiny: skal.ImageDataset, tmp_path: Path, finished: Path, two_processes: int
    ) -> None:
        compared(tiny, tmp_path / "two", jobs=two_processes)
        compared(tiny, tmp_path / "again")
        assert len(but_seconds(finished)) == 12
        for other in ("two", "again"):
            assert but_seconds(tmp_path / other) == but_seconds(finished)
            for cell in (finished / "cells").iterdir():
                theirs = tmp_path / other / "cells" / cell.name
                assert (theirs / "queries.csv").read_bytes() == (cell / "queries.csv").read_bytes()

    def test_models_and_rates_are_grids_of_their_own(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        done = compared(
            tiny,
            tmp_path / "c",
            seeds=1,
            n_rounds=0,
            models=["lenet", "small-cnn"],
            noise_rates=["0", "0.3"],
        )
        groups = group_by_setting(done.results)
        assert {(s.model, s.noise_rate) for s in groups} == {
            (model, rate) for model in ("lenet", "small-cnn") for rate in (0.0, 0.3)
        }
        assert (tmp_path / "c/cells/margin-lenet-noise0.3-s0/summary.json").is_file()
        assert len(done.analysis["groups"]) == 4
        clean = {r.setting.noise_rate: r.rounds[0]["nll"] for r in done.results[:4]}
        assert len(set(clean.values())) == 2

    def test_auto_and_what_it_stands_for_are_one(self, tiny: skal.ImageDataset) -> None:
        done = compared(tiny, strategies=["auto", "clue"], seeds=1, n_rounds=0)
        assert [result.strategy for result in done.results] == ["random", "clue"]

    def test_streams_and_import_paths_are_compared_too(self, tiny: skal.ImageDataset) -> None:
        path = "skactiveml.pool:Falcun?gamma=5"
        done = compared(tiny, strategies=[path], seeds=1, n_rounds=1)
        assert path in {result.strategy for result in done.results}
        quick = {name: value for name, value in QUICK.items() if name != "n_query"}
        streamed = skal.compare(tiny, ["auto"], 1, stream="in-order", budget="20%", **quick)
        assert [r.strategy for r in streamed.results] == ["random", "variable-uncertainty"]

    def test_a_strategy_may_have_arguments(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        done = compared(
            tiny, tmp_path / "c", strategies=["k-means", "k-means?pick_from=farthest"], seeds=1
        )
        assert set(done.analysis["strategies"]) == {
            "random",
            "k-means",
            "k-means?pick_from=farthest",
        }
        picks = [[q["index"] for q in result.queries] for result in done.results[1:]]
        assert picks[0] != picks[1]

    def test_without_a_folder_nothing_is_written(
        self, tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        done = compared(tiny)
        assert sorted(tmp_path.rglob("*")) == before
        assert "margin" in done.table()
        assert repr(done) == done.table()

    def test_threads_are_as_before_afterwards(self, tiny: skal.ImageDataset) -> None:
        before = torch.get_num_threads()
        compared(tiny, seeds=1, n_rounds=0, threads=before + 1)
        assert torch.get_num_threads() == before


class TestGoingOn:
    def test_a_finished_cell_is_never_run_again(
        self, tiny: skal.ImageDataset, tmp_path: Path, finished: Path
    ) -> None:
        results, before = (tmp_path / "c/results.csv").read_bytes(), inodes(tmp_path / "c")
        compared(tiny, tmp_path / "c")
        assert inodes(tmp_path / "c") == before
        assert (tmp_path / "c/results.csv").read_bytes() == results

    def test_runs_of_code_that_was_edited_since_are_told(
        self,
        tiny: skal.ImageDataset,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        file = tmp_path / "edited_since.py"
        text = "from skal.strategies import PowerMargin\n\nclass Mine(PowerMargin):\n    pass\n"
        file.write_text(text)
        asked = {"strategies": ["edited_since:Mine"], "n_rounds": 0}
        compared(tiny, tmp_path / "c", **asked, seeds=1)
        compared(tiny, tmp_path / "c", **asked, seeds=2)
        assert "has changed" not in caplog.text
        file.write_text(f"{text}    n = 1\n")
        compared(tiny, tmp_path / "c", **asked, seeds=3)
        assert "the code of edited_since has changed since 2 of these runs were made" in caplog.text

    def test_it_may_be_widened_by_strategies_and_seeds(
        self, tiny: skal.ImageDataset, tmp_path: Path, finished: Path
    ) -> None:
        before = inodes(tmp_path / "c")
        done = compared(tiny, tmp_path / "c", strategies=["margin", "entropy"], seeds=3)
        assert len(done.results) == 9
        after = inodes(tmp_path / "c")
        assert {path: after[path] for path in before if "-s" in Path(path).name} == {
            path: what for path, what in before.items() if "-s" in Path(path).name
        }
        compared(tiny, tmp_path / "whole", strategies=["margin", "entropy"], seeds=3)
        assert but_seconds(tmp_path / "c") == but_seconds(tmp_path / "whole")

    def test_strategies_of_several_calls_are_judged_together(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        """One after the other, each would be corrected for itself alone."""
        short = {"n_rounds": 1}
        compared(tiny, tmp_path / "c", **short, strategies=["margin"])
        compared(tiny, tmp_path / "c", **short, strategies=["entropy"], seeds=1)
        done = compared(tiny, tmp_path / "c", **short, strategies=["badge"])
        assert set(done.analysis["strategies"]) == {"random", "margin", "entropy", "badge"}
        compared(tiny, tmp_path / "c", **short, strategies=["entropy"])
        compared(tiny, tmp_path / "whole", **short, strategies=["margin", "entropy", "badge"])
        assert but_seconds(tmp_path / "c") == but_seconds(tmp_path / "whole")

    def test_models_and_rates_may_be_added_later(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        quick = {"seeds": 1, "n_rounds": 0}
        compared(tiny, tmp_path / "c", **quick)
        done = compared(tiny, tmp_path / "c", **quick, models=["lenet"], noise_rates=["0%", 0.1])
        found = {(r.config.model, r.config.noise_rate) for r in done.results}
        assert found == {("small-cnn", 0.0), ("lenet", 0.0), ("lenet", 0.1)}
        again = compared(tiny, tmp_path / "c", **quick, model="lenet", noise_rate="10%")
        assert len(again.results) == len(done.results)

    def test_two_processes_do_not_write_to_one_folder(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        compared(tiny, tmp_path / "c", seeds=1, n_rounds=0)
        before = inodes(tmp_path / "c")
        with (
            locked(tmp_path / "c/.lock"),
            pytest.raises(RunFolderError, match="another process is writing"),
        ):
            compared(tiny, tmp_path / "c", seeds=2, n_rounds=0)
        assert inodes(tmp_path / "c") == before

    def test_rates_are_numbers_however_they_are_written(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        done = compared(tiny, seeds=1, n_rounds=0, noise_rates=[0.1, "10%", "0.10"])
        assert len(done.results) == 2
        skal.run(tiny, "random", noise_rate="0.1", out=tmp_path / "a", **QUICK)
        skal.run(tiny, "margin", noise_rate=0.1, out=tmp_path / "b", **QUICK)
        group_by_setting([read_result(tmp_path / name) for name in "ab"])

    def test_a_folder_of_images_is_read_anew_each_time(self, tmp_path: Path) -> None:
        asked = {**QUICK, "n_init": "100%", "n_rounds": 0, "image_size": 8}
        pools = []
        for number in range(2):
            for kind in "ab":
                (tmp_path / "images" / kind).mkdir(parents=True, exist_ok=True)
                for image in range(10):
                    path = tmp_path / "images" / kind / f"{number}{image}.png"
                    Image.new("RGB", (8, 8), (20 * image, 90 * number, ord(kind))).save(path)
            done = skal.compare(tmp_path / "images", ["margin"], 1, **asked)
            pools.append(done.results[0].config.n_init)
        assert pools == [16, 32]

    def test_one_that_was_stopped_ends_as_if_it_had_not_been(
        self,
        tiny: skal.ImageDataset,
        tmp_path: Path,
        finished: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trained = 0
        fit = skal.ImageClassifier.fit

        def stopped(self: skal.ImageClassifier, *args: Any, **kwargs: Any) -> Any:
            nonlocal trained
            trained += 1
            if trained == 5:
                raise KeyboardInterrupt
            return fit(self, *args, **kwargs)

        monkeypatch.setattr(skal.ImageClassifier, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            compared(tiny, tmp_path / "half")
        assert not (tmp_path / "half/results.csv").exists()
        halves = [
            p for p in (tmp_path / "half/cells").iterdir() if not (p / "summary.json").exists()
        ]
        assert len(halves) == 1
        compared(tiny, tmp_path / "half")
        assert but_seconds(tmp_path / "half") == but_seconds(finished)

    def test_other_settings_are_refused(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        compared(tiny, tmp_path / "c", seeds=1, n_rounds=0)
        before = inodes(tmp_path / "c")
        with pytest.raises(ParameterError, match=r"n_query is 4 in the comparison.*5 now"):
            compared(tiny, tmp_path / "c", seeds=1, n_rounds=0, n_query=5)
        assert inodes(tmp_path / "c") == before

    def test_what_was_killed_at_its_start_begins_again(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        (tmp_path / "c/cells").mkdir(parents=True)
        for name in (".lock", ".compare.toml.17.tmp"):
            (tmp_path / "c" / name).touch()
            os.utime(tmp_path / "c" / name, (0, 0))
        assert compared(tiny, tmp_path / "c", seeds=1, n_rounds=0).results
        assert not list(tmp_path.rglob("*.tmp"))

    def test_what_was_killed_at_the_end_of_a_run_is_set_right(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        before = compared(tiny, tmp_path / "c", seeds=1, n_rounds=0).analysis
        (cell, *_) = (tmp_path / "c/cells").iterdir()
        summary = (cell / "summary.json").read_text()
        (cell / "summary.json").rename(cell / ".summary.json.17.tmp")
        (tmp_path / "c/.results.csv.17.tmp").touch()
        os.utime(tmp_path / "c/.results.csv.17.tmp", (0, 0))
        assert compared(tiny, tmp_path / "c", seeds=1, n_rounds=0).analysis == before
        assert (cell / "summary.json").read_text() == summary
        assert not list(tmp_path.rglob("*.tmp"))

    def test_a_folder_of_something_else_is_left_alone(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        (tmp_path / "c").mkdir()
        (tmp_path / "c/thesis.tex").write_text("dear")
        with pytest.raises(RunExistsError, match="not empty and not a comparison"):
            compared(tiny, tmp_path / "c")
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.tex"]

    def test_a_file_is_no_folder(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        (tmp_path / "c").write_text("dear")
        with pytest.raises(RunExistsError, match="is a file, not a comparison"):
            compared(tiny, tmp_path / "c")

    def test_new_runs_have_as_many_threads_as_the_first(
        self, tiny: skal.ImageDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        compared(tiny, tmp_path / "c", seeds=1, n_rounds=0)
        compared(tiny, tmp_path / "c", seeds=2, n_rounds=0, threads=2)
        assert "use 1 thread each" in caplog.text
        environment = json.loads(
            (tmp_path / "c/cells/margin-small-cnn-s1/environment.json").read_text()
        )
        assert environment["threads"] == 1


class Failing(BatchStrategy):
    reads = ()

    def pick(self, scores: Any, b: int, rng: np.random.RandomState) -> Any:
        # not where it is tried on a few images before the runs
        if os.environ.get("SKAL_TEST_FAILS") and len(scores) > 60:
            raise ArithmeticError("on purpose")
        return np.arange(b)


@pytest.fixture
def failing() -> Iterator[str]:
    name = "fails-when-told"
    skal.STRATEGIES.add(name, Failing, needs="nothing", summary="for a test")
    yield name
    skal.STRATEGIES.remove(name)


class TestFailures:
    def test_a_run_that_fails_stops_no_other(
        self,
        tiny: skal.ImageDataset,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        failing: str,
    ) -> None:
        monkeypatch.setenv("SKAL_TEST_FAILS", "1")
        with pytest.raises(SkalError, match=r"2 of 6 runs failed; the first.*on purpose"):
            compared(tiny, tmp_path / "c", strategies=[failing, "margin"])
        assert {row["strategy"] for row in rows_of(tmp_path / "c")} == {"random", "margin"}
        monkeypatch.delenv("SKAL_TEST_FAILS")
        done = compared(tiny, tmp_path / "c", strategies=[failing, "margin"])
        assert len(done.results) == 6

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ({"strategies": ["margn"]}, UnknownNameError, "did you mean margin"),
            ({"strategies": []}, ParameterError, r"strategies: got \[\]; expected a list"),
            ({"strategies": "margin"}, ParameterError, "expected a list of names"),
            ({"strategies": ["k-means?pick_from"]}, ParameterError, "expected NAME=VALUE"),
            ({"seeds": 0}, ParameterError, "seeds: got 0"),
            ({"models": ["lenett"]}, UnknownNameError, "did you mean lenet"),
            ({"noise_rates": ["2"]}, ParameterError, "noise_rates: got '2'"),
            ({"n_querry": 3}, UnknownNameError, "did you mean n_query"),
            ({"backend": "slurm"}, UnknownNameError, "slurm"),
            ({"scheduler": "tcp://x:1"}, ParameterError, "without backend dask or ray"),
            ({"strategies": [object]}, ParameterError, "expected a list of names"),
            ({"trackers": "mlflow"}, ParameterError, "trackers: got 'mlflow'; expected a list"),
            ({"strategy": "margin"}, UnknownNameError, "use strategies, such as"),
            ({"model": "lenet", "models": ["lenet"]}, ParameterError, "give model or models"),
            ({"noise_rate": 0.1, "noise_rates": [0]}, ParameterError, "not both"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_written(
        self,
        tiny: skal.ImageDataset,
        tmp_path: Path,
        wrong: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        with pytest.raises(error, match=message):
            compared(tiny, tmp_path / "c", **wrong)
        assert not (tmp_path / "c").exists()


ARGS = [
    "compare",
    "--strategies",
    "margin",
    "--seeds",
    "2",
    "--n-init",
    "20",
    "--n-query",
    "10",
    "--n-rounds",
    "1",
    "--steps",
    "2",
]


KILLER = """
import os, signal
from multiprocessing import current_process
from skal.strategies import BatchStrategy

class Killer(BatchStrategy):
    reads = ()
    def pick(self, scores, b, rng):
        if current_process().name != "MainProcess":  # where it is tried before the runs
            os.kill(os.getpid(), signal.SIGKILL)
        return rng.permutation(len(scores))[:b]

class Broken(BatchStrategy):
    reads = ()
    def pick(self, scores, b, rng):
        if len(scores) > 1000:  # not where it is tried on a few images before the runs
            raise LookupError("nowhere")
        return rng.permutation(len(scores))[:b]
"""


def called(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "foreign.py").write_text(KILLER)
    return subprocess.run(
        [sys.executable, "-m", "skal", *more[:1], *ARGS, "--threads", "1", *more[1:]],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )


@pytest.fixture(scope="module")
def broken(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return where a strategy raised an error, and what the process said."""
    folder = tmp_path_factory.mktemp("broken")
    flags = ("--debug", "--jobs", "2", "--strategies", "foreign:Broken", "--out", "c")
    return folder / "c", called(folder, *flags)


class TestTheProcess:
    """What happens to processes can be seen in processes alone."""

    def test_a_run_whose_process_is_killed_stops_no_other(self, tmp_path: Path) -> None:
        flags = ("--debug", "--jobs", "2", "--seeds", "1", "--out", "c")
        done = called(tmp_path, *flags, "--strategies", "margin,foreign:Killer")
        assert done.returncode == 1
        assert "1 of 3 runs failed; the first (foreign.Killer" in done.stderr
        assert "killed, perhaps out of memory; fewer jobs at a time" in done.stderr
        assert "margin" in done.stdout
        kept = {(row["strategy"], row["seed"]) for row in rows_of(tmp_path / "c")}
        assert kept == {("random", "0"), ("margin", "0")}

    def test_the_traceback_of_a_foreign_strategy_is_kept_and_shown(
        self, broken: tuple[Path, subprocess.CompletedProcess[str]]
    ) -> None:
        folder, done = broken
        assert 'raise LookupError("nowhere")' in done.stderr
        (log,) = (folder / "cells").glob("*Broken*s0/log.txt")
        assert 'raise LookupError("nowhere")' in log.read_text()
        assert "completed rounds are saved; repeat the command to resume" in done.stderr

    def test_records_say_what_was_called(
        self, broken: tuple[Path, subprocess.CompletedProcess[str]]
    ) -> None:
        records = list((broken[0] / "cells").glob("*/environment.json"))
        assert len(records) == 4
        for path in records:
            command = json.loads(path.read_text())["command"]
            assert command[:5] == ["python", "-m", "skal", "--debug", "compare"]


class TestTheCommand:
    def test_it_says_which_is_better_and_where_it_all_is(self, tmp_path: Path) -> None:
        out = tmp_path / "c"
        done = CliRunner().invoke(main, [*ARGS, "--seeds", "1", "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert "margin" in done.stdout
        assert "random" in done.stdout
        assert f"done: {out}" in done.stderr
        names = {path.name for path in out.iterdir()}
        assert {"cells", "results.csv", "comparison.json", "curves.png", "curves.svg"} <= names
        head = (out / "results.csv").read_text().splitlines()[0]
        assert head.startswith("strategy,seed,round,n_labeled,accuracy")

    def test_json_is_what_the_file_holds(self, tmp_path: Path) -> None:
        out = tmp_path / "c"
        done = CliRunner().invoke(
            main, [*ARGS, "--seeds", "1", "--json", "--quiet", "--out", str(out)]
        )
        assert json.loads(done.stdout) == json.loads((out / "comparison.json").read_text())

    def test_reports_are_made_of_runs_from_anywhere(
        self, tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for seed in (0, 1):
            for strategy in ("random", "entropy"):
                skal.run(tiny, strategy, seed=seed, out=tmp_path / f"a/{strategy}{seed}", **QUICK)
        done = CliRunner().invoke(main, ["report", str(tmp_path / "a")])
        assert done.exit_code == 0, done.output
        assert "entropy" in done.stdout
        assert (tmp_path / "report/curves.png").is_file()
        assert not (tmp_path / "a/curves.png").exists()
        two = [str(tmp_path / "a" / name) for name in ("random0", "entropy0")]
        again = CliRunner().invoke(main, ["report", *two, "--out", str(tmp_path / "b")])
        assert again.exit_code == 0, again.output
        assert len(rows_of(tmp_path / "b")) == 6

    def test_the_settings_file_drives_run_and_compare(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("skal.toml").write_text(
            "n_init = 30\nn_rounds = 0\nsteps = 2\n[compare]\nseeds = 2\nstrategies = ['entropy']\n"
        )
        for command in ("run --out a", "compare --out b"):
            done = CliRunner().invoke(main, command.split())
            assert done.exit_code == 0, done.output
            assert "settings from skal.toml" in done.stderr
        assert rows_of(Path("a"), "rounds.csv")[0]["n_labeled"] == "30"
        assert {(row["strategy"], row["n_labeled"]) for row in rows_of(Path("b"))} == {
            (name, "30") for name in ("random", "entropy")
        }
        shown = CliRunner().invoke(main, ["compare", "--seeds", "3", "--print-config"])
        Path("other.toml").write_text(shown.stdout)
        again = CliRunner().invoke(main, ["compare", "--config", "other.toml", "--print-config"])
        assert again.stdout == shown.stdout
        assert "seeds = 3" in shown.stdout

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[compare]\nstrategys = []\n", "did you mean strategies"),
            ("compare = 3\n", "expected a table"),
            ("strategies = []\n", "unknown setting"),
        ],
    )
    def test_unknown_keys_are_refused(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "x.toml").write_text(content)
        for command in ("run", "compare"):
            done = CliRunner().invoke(
                main, [command, "--config", str(tmp_path / "x.toml"), "--out", str(tmp_path / "o")]
            )
            assert done.exit_code == 2
            assert message in done.stderr
            assert done.stderr.count("\n") == 1
        assert not (tmp_path / "o").exists()

    def test_a_folder_without_runs_is_an_error(self, tmp_path: Path) -> None:
        for folder, message in ((tmp_path, "no finished run"), (tmp_path / "x", "no folder")):
            done = CliRunner().invoke(main, ["report", str(folder)])
            assert done.exit_code == 1
            assert message in done.stderr


class TestFindingRuns:
    def test_unfinished_ones_are_left_out(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        done = skal.run(tiny, "random", out=tmp_path / "a/one", **QUICK)
        assert done.folder is not None
        other = skal.run(tiny, "margin", out=tmp_path / "a/two", **QUICK)
        assert other.folder is not None
        journal = other.folder / "journal.jsonl"
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
        assert find_runs([tmp_path]) == [done.folder]
        with pytest.raises(RunFolderError, match="not finished; finish it with skal resume"):
            read_result(other.folder)

    def test_what_is_read_is_what_was_found(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        done = skal.run(tiny, "margin", out=tmp_path / "a", **QUICK)
        result = read_result(tmp_path / "a")
        assert result.rounds == done.rounds
        assert result.queries == done.queries
        assert result.summary == done.summary

    def test_runs_that_are_no_pairs_are_refused(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        skal.run(tiny, "margin", out=tmp_path / "a", **QUICK)
        skal.run(tiny, "random", out=tmp_path / "b", **{**QUICK, "n_query": 5})
        skal.run(tiny, "margin", out=tmp_path / "c", **QUICK)
        with pytest.raises(RunFolderError, match=r"cannot be compared: n_query is 4.*and 5"):
            group_by_setting([read_result(tmp_path / name) for name in "ab"])
        with pytest.raises(RunFolderError, match="both margin, seed 0"):
            group_by_setting([read_result(tmp_path / name) for name in "ac"])


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """Start a real Dask cluster of two worker processes; none is started anew when it dies."""
    pytest.importorskip("distributed")
    place = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(place)]
    scheduler = started(
        "dask_scheduler", *common, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
    )
    workers = [
        started(
            "dask_worker",
            *common,
            *("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"),
            *("--local-directory", str(tmp_path / f"worker{number}"), "--death-timeout", "60"),
        )
        for number in range(2)
    ]
    try:
        for _ in range(600):
            if place.is_file():
                break
            time.sleep(0.1)
        yield json.loads(place.read_text())["address"], workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_cluster_that_loses_a_worker_comes_to_the_same_as_one_process(
    tiny: skal.ImageDataset,
    tmp_path: Path,
    cluster: tuple[str, list[subprocess.Popen[str]]],
) -> None:
    address, workers = cluster
    compared(tiny, tmp_path / "here", seeds=4)

    def kill_one() -> None:
        cells = tmp_path / "there/cells"
        while not (cells.is_dir() and any(not p.name.startswith(".") for p in cells.iterdir())):
            time.sleep(0.01)
        os.kill(workers[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    compared(tiny, tmp_path / "there", seeds=4, backend="dask", scheduler=address)
    killer.join(timeout=10)
    assert not killer.is_alive()
    assert workers[0].wait() == -signal.SIGKILL
    assert len(but_seconds(tmp_path / "here")) == 24
    assert but_seconds(tmp_path / "there") == but_seconds(tmp_path / "here")
    assert sorted(p.name for p in (tmp_path / "there/cells").iterdir()) == sorted(
        p.name for p in (tmp_path / "here/cells").iterdir()
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_workers_that_stand_elsewhere_find_the_images_the_weights_and_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.delenv("SKAL_DATA_DIR", raising=False)
    rng = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / f"mine/images/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)
    (tmp_path / "elsewhere/deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere/deeper")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        monkeypatch.chdir(tmp_path / "mine")
        asked: dict[str, Any] = {"strategies": ["random"], "seeds": 1, **QUICK, "threads": 1}
        of_grid = {"backend": "dask", "scheduler": cluster.scheduler_address}
        first = skal.run("images", "random", model="small-cnn", out="first", **QUICK)
        assert first.folder is not None
        weights = "first/model.safetensors"
        for data_dir in (None, "kept"):
            there = skal.compare(
                "images", **asked, **of_grid, model="small-cnn", weights=weights, data_dir=data_dir
            )
            config = there.results[0].config
            assert config.dataset == str(tmp_path / "mine/images")
            assert config.data_dir == str(tmp_path / "mine" / (data_dir or "data"))
    assert not [*(tmp_path / "elsewhere").rglob("*.npy")]


def test_a_worker_keeps_what_it_decodes_in_a_data_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its environment names one, or it does not see that of who asks."""
    monkeypatch.delenv("SKAL_DATA_DIR", raising=False)
    config = base_config("digits", GridConfig(), {})
    runner = replace(CellRunner("digits"), data_dir=tmp_path)
    assert runner.placed(config).data_dir == str(tmp_path)
    assert runner.placed(config.replace(data_dir="/named")).data_dir == "/named"
    assert replace(runner, data_dir=tmp_path / "not-here").placed(config).data_dir is None
    monkeypatch.setenv("SKAL_DATA_DIR", "/of/its/own")
    assert runner.placed(config).data_dir is None


def test_nothing_is_read_or_written_before_a_cluster_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    asked: dict[str, Any] = {"backend": "dask", "scheduler": address}
    with pytest.raises(ParameterError, match=f"cannot connect to {address}"):
        skal.compare("no-such-dataset", out=tmp_path / "comparison", **asked)
    assert not list(tmp_path.iterdir())


def test_ray_comes_to_the_same(tiny: skal.ImageDataset, tmp_path: Path, ray_here: Any) -> None:
    compared(tiny, tmp_path / "here", seeds=1)
    compared(tiny, tmp_path / "there", seeds=1, backend="ray", jobs=2)
    assert len(but_seconds(tmp_path / "here")) == 6
    assert but_seconds(tmp_path / "there") == but_seconds(tmp_path / "here")


def test_the_function_is_not_hidden_by_a_module() -> None:
    import skal.comparisons.compare

    assert callable(skal.compare)
