from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import skal.cli
import skal.runs.run
from skal.cli import main
from skal.cli.doctor import Check
from skal.runs.journal import Journal

FAST: list[object] = ["--dataset", "digits", "--model", "lenet", "--steps", 2]
FAST += ["--n-init", 12, "--n-query", 6, "--n-rounds", 2]
OPTIONS = (
    "--dataset",
    "--strategy",
    "--strategy-param",
    "--model",
    "--n-init",
    "--n-query",
    "--n-rounds",
    "--init-strategy",
    "--explore",
    "--max-candidates",
    "--calibrate",
    "--stop",
    "--stream",
    "--budget",
    "--seed",
    "--image-size",
    "--steps",
    "--epochs",
    "--train-batch-size",
    "--lr",
    "--device",
    "--precision",
    "--data-dir",
    "--out",
    "--config",
    "--print-config",
    "--json",
    "--quiet",
)
PROGRAM = [sys.executable, "-c", "from skal.cli import main; main(prog_name='skal')"]


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="skal")


def start(*args: object, code: str = "", cwd: Path) -> subprocess.Popen[str]:
    command = [*PROGRAM[:2], f"{code}\n{PROGRAM[2]}", *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=env
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(folder: Path) -> list[dict[str, str]]:
    table = rows(folder / "rounds.csv")
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in table]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("cli") / "run"
    return folder, call("run", *FAST, "--strategy", "badge", "--out", folder)


# skal run


def test_a_run_leaves_all_its_files(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.toml",
        "environment.json",
        "evaluation.json",
        "journal.jsonl",
        "learning_curve.png",
        "learning_curve.svg",
        "log.txt",
        "model.json",
        "model.safetensors",
        "queries.csv",
        "rounds.csv",
        "summary.json",
    ]
    with Image.open(folder / "learning_curve.png") as picture:
        assert picture.size[0] > 500
    assert (
        (folder / "rounds.csv")
        .read_text()
        .startswith(
            "round,n_labeled,accuracy,balanced_accuracy,macro_f1,nll,ece,"
            "fit_seconds,score_seconds,query_seconds,agreement\n0,12,"
        )
    )
    queries = rows(folder / "queries.csv")
    assert list(queries[0]) == ["round", "rank", "index", "path", "label"]
    assert [row["round"] for row in queries] == ["0"] * 12 + ["1"] * 6 + ["2"] * 6
    assert {row["path"] for row in queries} == {""}
    environment = json.loads((folder / "environment.json").read_text())
    assert {"python", "packages", "device", "threads", "platform"} <= environment.keys()
    assert environment["packages"]["skal"] == skal.__version__


def test_the_table_goes_to_stdout_and_progress_to_stderr(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    last = rows(folder / "rounds.csv")[-1]
    table = result.stdout.splitlines()
    assert len(table) == 4
    assert table[-1].split()[:3] == ["2", "24", f"{float(last['accuracy']):.4f}"]
    for words in ("badge on digits", "round 0/2: 12 labels", "round 2/2: 24 labels", str(folder)):
        assert words in result.stderr


def test_the_summary_has_its_keys(finished: tuple[Path, Result]) -> None:
    summary = json.loads((finished[0] / "summary.json").read_text())
    assert list(summary) == [
        "dataset",
        "strategy",
        "model",
        "seed",
        "n_labeled",
        "accuracy",
        "aulc",
        "seconds",
        "n_skipped_images",
        "stop_round",
    ]


def test_the_config_repeats_the_run(finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder, _ = finished
    result = call("run", "--config", folder / "config.toml", "--out", tmp_path / "other", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["strategy"] == "badge"
    for name in ("queries.csv", "config.toml", "model.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes(), name
    assert metrics(tmp_path / "other") == metrics(folder)


def test_the_config_has_every_resolved_setting(finished: tuple[Path, Result]) -> None:
    config = tomllib.loads((finished[0] / "config.toml").read_text())
    assert config["image_size"] == 8
    assert config["lr"] == 0.003
    assert (config["n_init"], config["model"], config["seed"]) == (12, "lenet", 0)
    assert Path(config["data_dir"]).is_absolute()


def test_another_seed_gives_another_run(finished: tuple[Path, Result], tmp_path: Path) -> None:
    config = finished[0] / "config.toml"
    assert call("run", "--config", config, "--seed", 1, "--out", tmp_path / "r").exit_code == 0
    assert rows(tmp_path / "r/queries.csv") != rows(finished[0] / "queries.csv")


def test_json_is_one_object_on_stdout(tmp_path: Path) -> None:
    flags = ["--n-rounds", 0, "--json", "--out", tmp_path / "run"]
    result = call("run", *FAST, *flags)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((tmp_path / "run/summary.json").read_text())
    assert len(result.stdout.splitlines()) == 1
    assert "round 0/0" in result.stderr


def test_quiet_says_nothing_and_still_shows_warnings(tmp_path: Path) -> None:
    flags = ["--n-rounds", 0, "--quiet"]
    result = call("run", *FAST, *flags, "--out", tmp_path / "a")
    assert (result.exit_code, result.output) == (0, "")
    assert "round 0/0" in (tmp_path / "a/log.txt").read_text()
    result = call("run", *FAST, *flags, "--n-init", 2000, "--out", tmp_path / "b", "--json")
    assert json.loads(result.stdout)["n_labeled"] < 2000
    assert result.stderr.startswith("warning: asked for 2000 images, but only")
    assert "TQDM_DISABLE" not in os.environ


def test_shares_of_the_pool(tmp_path: Path) -> None:
    flags = ["--n-init", "10%", "--n-query", "5%", "--n-rounds", 1, "--out", tmp_path / "run"]
    assert call("run", *FAST, *flags).exit_code == 0
    config = json.loads((tmp_path / "run/summary.json").read_text())
    first, second = (int(row["n_labeled"]) for row in rows(tmp_path / "run/rounds.csv"))
    n_pool = 1797 - 360
    assert abs(first - 0.1 * n_pool) < 3 and abs(second - first - 0.05 * n_pool) < 3
    assert config["n_labeled"] == second


def test_without_out_the_folder_has_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("runs/digits-clue-lenet-s4", "runs/digits-clue-lenet-s4-2"):
        result = call("run", *FAST, "--n-rounds", 0, "--seed", 4)
        assert f"writing to {expected}\n" in result.stderr
        assert (tmp_path / expected / "summary.json").exists()


def test_an_existing_folder_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    result = call("run", *FAST, "--out", tmp_path / "mine")
    assert result.exit_code == 2
    assert "already exists; choose another name with --out" in result.stderr
    assert result.stdout == ""
    assert list((tmp_path / "mine").iterdir()) == []


# settings from file and flags


def printed(*args: object) -> dict[str, Any]:
    result = call("run", *args, "--print-config")
    assert result.exit_code == 0, result.stderr
    return tomllib.loads(result.stdout)


def test_print_config_prints_and_does_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = printed("--strategy", "badge", "--n-init", "7", "--n-query", "5%", "--lr", "1e-3")
    assert config["strategy"] == "badge"
    assert (config["n_init"], config["n_query"], config["lr"]) == (7, "5%", 0.001)
    assert (config["dataset"], config["pretrained"]) == ("digits", False)
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_training_and_what_they_stand_for_alone() -> None:
    config = printed("--warm-start", "--pretrain", "--balanced", "--mixup", "0.2", "--patience", 3)
    assert (config["warm_start"], config["pretrain"]) == ("on", "simclr")
    assert (config["balanced"], config["mixup"], config["patience"]) == (True, 0.2, 3)
    config = printed("--warm-start", "shrink", "--pretrain", "none", "--average", "ema")
    assert (config["warm_start"], config["pretrain"]) == ("shrink", "none")
    assert (config["average"], config["label_smoothing"], config["compile"]) == ("ema", 0, False)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('strategy = "margin"\nn_query = 3\nseed = 5\npretrained = true\nepochs = 2\n')
    flags = ["--config", path, "--seed", 0, "--no-pretrained", "--steps", 9]
    config = printed(*flags)
    assert (config["strategy"], config["n_query"], config["n_init"]) == ("margin", 3, 20)
    assert (config["seed"], config["pretrained"], config["steps"]) == (0, False, 9)
    assert "epochs" not in config


def test_without_a_strategy_it_is_auto_which_goes_by_its_own_name(tmp_path: Path) -> None:
    assert printed()["strategy"] == "auto"
    result = call("run", *FAST, "--n-rounds", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "clue on digits" in result.stderr
    assert tomllib.loads((tmp_path / "run/config.toml").read_text())["strategy"] == "clue"
    assert json.loads((tmp_path / "run/summary.json").read_text())["strategy"] == "clue"
    listed = {row["name"]: row for row in json.loads(call("list", "strategies", "--json").stdout)}
    assert listed["auto"]["stands_for"] == "clue" in listed["auto"]["summary"]


def test_how_images_are_chosen_is_printed_and_repeated_by_the_config(tmp_path: Path) -> None:
    chosen: dict[str, object] = {
        "init_strategy": "k-means",
        "explore": "25%",
        "max_candidates": 100,
        "calibrate": "temperature",
        "stop": "end",
    }
    flags: list[object] = []
    for name, value in chosen.items():
        flags += ["--" + name.replace("_", "-"), value]
    config = printed(*flags)
    chosen["explore"] = 0.25  # shares are kept as numbers
    assert {name: config[name] for name in chosen} == chosen
    one, two = tmp_path / "one", tmp_path / "two"
    assert call("run", *FAST, *flags, "--out", one).exit_code == 0
    kept = tomllib.loads((one / "config.toml").read_text())
    assert {name: kept[name] for name in chosen} == chosen
    assert call("run", "--config", one / "config.toml", "--out", two).exit_code == 0
    for name in ("config.toml", "queries.csv", "model.safetensors"):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    assert metrics(two) == metrics(one)
    assert call("run", *FAST, "--out", tmp_path / "plain").exit_code == 0
    assert rows(tmp_path / "plain/queries.csv") != rows(one / "queries.csv")


def test_settings_that_are_not_given_are_printed_by_their_defaults() -> None:
    config = printed()
    defaults = (0.0, "none", "notice", "off")
    names = ("explore", "calibrate", "stop", "stream")
    assert tuple(config[name] for name in names) == defaults
    assert not {"max_candidates", "budget", "head"} & config.keys()  # not set, or without effect
    assert printed("--stream")["budget"] == 0.1


@pytest.mark.parametrize("line", ['head = "linear"', "budget = 0.1", 'image_noise = "gaussian"'])
def test_a_setting_of_the_file_that_changes_nothing_is_refused_too(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("skal.toml").write_text(f"{line}\n")
    result = call("run")
    assert result.exit_code == 2
    assert f"Error: {line.split()[0]}: got " in result.stderr and "has no effect" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["skal.toml"]


def test_flags_win_over_what_contradicts_them_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('freeze = true\nhead = "mlp"\nsteps = 3\nn_query = 7\n')
    config = printed("--config", path, "--finetune", "--epochs", 2, "--stream")
    assert (config["finetune"], config["freeze"], config["epochs"]) == (True, False, 2)
    assert not {"head", "steps", "n_query"} & config.keys()


@pytest.mark.parametrize(
    "flags",
    [
        "--stream --budget 20%",
        "--freeze --head mlp --n-query 6",
        "--noise-rate 10% --image-noise salt-and-pepper --label-noise 10% --label-noise-kind pairs",
    ],
)
def test_the_config_repeats_and_resumes_runs_whose_settings_depend_on_each_other(
    flags: str, tmp_path: Path
) -> None:
    base = ["--dataset", "digits", "--model", "lenet", "--steps", 2, "--n-rounds", 1]
    one, two = tmp_path / "one", tmp_path / "two"
    assert call("run", *base, *flags.split(), "--out", one).exit_code == 0
    assert call("run", "--config", one / "config.toml", "--out", two).exit_code == 0
    for name in ("queries.csv", "config.toml"):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    (two / "summary.json").unlink()
    assert call("resume", two).exit_code == 0
    assert (two / "queries.csv").read_bytes() == (one / "queries.csv").read_bytes()


def test_arguments_of_a_strategy_come_from_file_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('strategy = "bald"\n[strategy_params]\nn_samples = 3\nother = 1\n')
    flag = "--strategy-param"
    assert printed("--config", path)["strategy_params"] == {"n_samples": 3, "other": 1}
    given = printed("--config", path, flag, "n_samples=5", flag, "name=text", flag, "l=[1, 2]")
    expected = {"n_samples": 5, "other": 1, "name": "text", "l": [1, 2]}
    assert given["strategy_params"] == expected
    assert "strategy_params" not in printed("--config", path, "--strategy", "margin")
    other = printed("--config", path, "--strategy", "margin", flag, "method=entropy")
    assert other["strategy_params"] == {"method": "entropy"}


def test_arguments_reach_the_strategy(tmp_path: Path) -> None:
    def picks(method: str) -> list[dict[str, str]]:
        out = tmp_path / method
        param = ["--strategy-param", f"method={method}"]
        result = call("run", *FAST, "--strategy", "margin", *param, "--out", out)
        assert result.exit_code == 0
        return rows(out / "queries.csv")

    assert picks("entropy") != picks("margin_sampling")


# mistakes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("rum", "No such command 'rum'. (Did you mean one of: 'resume', 'run'?)"),
        ("run --stratgy badge", "'--strategy'"),
        ("run photos", "extra argument (photos); to name a folder of images, use --dataset"),
        ("compare photos", "extra argument (photos); to name a folder of images, use --dataset"),
        ("run --dataset digts", "unknown dataset 'digts'; did you mean digits?"),
        ("run --strategy bage", "unknown strategy 'bage'; did you mean badge or bald?"),
        ("run --model lenett", "unknown model 'lenett'; did you mean lenet"),
        ("run --strategy skactiveml.pool:Falcn", "did you mean Falcun?"),
        ("run --strategy no_such_module:X", "cannot import 'no_such_module:X'"),
        ("run --strategy margin --strategy-param metod=1", "'metod'; did you mean method?"),
        ("run --strategy-param method", "'method'; expected NAME=VALUE"),
        ("run --n-init many", "n_init: got 'many'; expected a whole number of at least 1"),
        ("run --n-query 0", "n_query: got 0"),
        ("run --n-rounds -1", "n_rounds: got -1"),
        ("run --n-rounds x", "'x' is not a valid int"),
        ("run --seed -1", "seed: got -1"),
        ("run --lr 0", "lr: got 0"),
        ("run --steps 3 --epochs 3", "give steps or epochs, not both"),
        ("run --device tpu", "unknown device 'tpu'"),
        ("run --precision bf61", "unknown precision 'bf61'; did you mean bf16?"),
        ("run --optimizer adam", "unknown optimizer 'adam'; did you mean adamw?"),
        ("run --init-strategy kmeans", "unknown init strategy 'kmeans'; did you mean k-means?"),
        ("run --explore 10", "explore: got '10'; expected a share from 0% to 100%, such as 0.1"),
        ("run --explore -1", "explore: got '-1'"),
        ("run --explore abc", "explore: got 'abc'"),
        ("run --explore 2.0", "explore: got '2.0'"),
        ("run --max-candidates 0", "max_candidates: got 0; expected a whole number of at least 1"),
        ("run --max-candidates 5%", "'5%' is not a valid int"),
        ("run --calibrate temprature", "unknown calibrate 'temprature'; did you mean temperature?"),
        ("run --stop ends", "unknown stop 'ends'; did you mean end?"),
        ("run --stream in-oder", "unknown stream 'in-oder'; did you mean in-order?"),
        ("run --stream --budget 0%", "budget: got '0%'; expected a share from more than 0%"),
        ("run --stream --budget 120%", "budget: got '120%'"),
        ("run --stream --strategy margin", "unknown stream strategy 'margin'; known: fixed-unc"),
        ("run --stream --explore 10%", "explore: got 0.1, which has no effect with stream"),
        ("run --stream --n-query 7", "n_query: got 7, which has no effect with stream"),
        ("run --budget 5%", "budget: got 0.05, which has no effect without stream; add stream"),
        ("run --budget 10%", "budget: got 0.1, which has no effect without stream; add stream"),
        (
            "run --head linear",
            "head: got 'linear', which has no effect without freeze; add freeze, or leave",
        ),
        ("run --image-noise gaussian", "image_noise: got 'gaussian', which has no effect with"),
        ("run --freeze --finetune", "give freeze or finetune, not both: freeze trains no backbone"),
        ("run --image-size 100000", "image_size: got 100000; expected a whole number from 8 to"),
        ("compare --jobs 99999", "jobs: got 99999; expected a whole number from 1 to 10000"),
        ("compare --scheduler x:1", "scheduler: got 'x:1', which has no effect without backend"),
        ("run --stream --strategy splt", "unknown stream strategy 'splt'; did you mean split?"),
        ("run --dataset ./nowhere", "'nowhere' does not exist"),
        ("run --image-size 2", "image_size: got 2; expected a whole number from 8 to 4096"),
        ("run --config no-such.toml", "cannot read 'no-such.toml': No such file or directory"),
        ("run --pretrained --weights x", "give pretrained or weights, not both"),
        ("list modles", "is not one of 'datasets', 'models', 'strategies'"),
        ("resume", "Missing argument 'RUN_DIR'"),
    ],
)
def test_a_mistake_is_one_clear_line_and_code_2(
    args: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*args.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("n_quary = 3\n")
    result = call("run", "--config", path)
    assert result.exit_code == 2
    assert "'n_quary'; did you mean n_query" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("resume nowhere", "there is no run folder 'nowhere'"),
        (
            "predict begun x.png",
            "'begun': it has no model.json; the run is not finished: skal resume",
        ),
        ("resume .", "'.' is not a run folder (it has no config.toml)"),
        (
            "run --dataset digits --out file/run",
            "cannot create 'file/run': 'file' is a file",
        ),
    ],
)
def test_what_is_not_there_is_one_clear_line_and_code_1(
    args: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "begun").mkdir()
    for path in ("begun/journal.jsonl", "file", "x.png"):
        (tmp_path / path).write_text("")
    result = call(*args.split())
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert "defect" not in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "file", "x.png"]


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("a\nb"), "Error: ZeroDivisionError: a (probably a bug in skal; --debug"),
        (MemoryError(), "Error: out of memory; reduce --train-batch-size, --image-size or --max-c"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Error: out of memory; red"),
        (PermissionError(13, "Permission denied", "x/y"), "Error: x/y: Permission denied"),
    ],
)
def test_any_error_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(skal.runs.run, "run", failing(error))
    result = call("run", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.startswith(line)
    assert len(result.stderr.splitlines()) == 1


def with_escapes(folder: Path) -> Path:
    """Make a folder of images whose names would change a terminal's title."""
    escape = "\x1b]0;title\x07"
    photos = folder / f"photos{escape}"
    for name in ("ant", f"bee{escape}"):
        (photos / name).mkdir(parents=True)
        for number in range(9):
            Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(photos / name / f"{number}.png")
    (photos / f"bee{escape}" / f"torn{escape}.png").write_bytes(b"no image")
    return photos


def all_said(*args: object) -> str:
    result = CliRunner().invoke(main, [*map(str, args)])
    return result.stdout + result.stderr


def test_names_of_files_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    photos, out = with_escapes(tmp_path), tmp_path / "c"
    fast = ["--model", "lenet", "--steps", 1, "--n-init", 4, "--n-query", 2, "--n-rounds", 1]
    compare = ["compare", "--strategies", "margin", "--seeds", 1, "--out", out]
    for command in (
        ["doctor", photos],
        ["run", *fast, "--dataset", photos, "--out", tmp_path / "run"],
        [*compare, *fast, "--dataset", photos],
        ["report", out, "--out", tmp_path / "report"],
    ):
        said = all_said(*command)
        assert "\\x1b]0;title\\x07" in said, command
        assert not {"\x1b", "\x07"} & set(said), command


def test_debug_shows_the_traceback_and_keeps_the_code() -> None:
    result = call("--debug", "run", "--strategy", "bage")
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: unknown strategy 'bage'")


def test_log_level_decides_what_is_shown(tmp_path: Path) -> None:
    result = call("--log-level", "error", "run", *FAST, "--n-init", 2000, "--out", tmp_path / "r")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "asked for 2000 images" in (tmp_path / "r/log.txt").read_text()


# skal resume


def test_an_error_in_the_middle_names_the_way_on(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(skal.ActiveLearner, "finish", failing(KeyboardInterrupt()))
        result = call("run", *FAST, "--strategy", "badge", "--out", folder)
    assert result.exit_code == 130
    assert result.stderr.endswith(
        f"Error: interrupted\ncompleted rounds are saved; to resume: skal resume '{folder}'\n"
    )
    resumed = call("resume", folder, "--json")
    assert resumed.exit_code == 0
    assert json.loads(resumed.stdout) == json.loads((folder / "summary.json").read_text())
    assert (folder / "queries.csv").read_bytes() == (finished[0] / "queries.csv").read_bytes()
    assert metrics(folder) == metrics(finished[0])


def test_resuming_a_finished_run_shows_it_and_changes_nothing(
    finished: tuple[Path, Result],
) -> None:
    folder, ran = finished
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    result = call("resume", folder)
    assert result.exit_code == 0
    assert result.stdout == ran.stdout
    assert "is already finished" in result.stderr
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before


SLOW = [*FAST, "--strategy", "badge", "--steps", 40, "--n-rounds", 4]


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    assert call("run", *SLOW, "--out", tmp_path / "straight", "--quiet").exit_code == 0
    folder = tmp_path / "run"
    with start("run", *SLOW, "--out", folder, cwd=tmp_path) as process:
        table = folder / "rounds.csv"
        wait_for(lambda: table.exists() and len(table.read_text().splitlines()) > 2, process)
        process.kill()
        process.wait()
    assert not (folder / "summary.json").exists()
    assert call("resume", folder, "--quiet").exit_code == 0
    for name in ("queries.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert metrics(folder) == metrics(tmp_path / "straight")
    assert not list(folder.glob(".*"))


def test_ctrl_c_while_training_ends_at_once_and_names_the_way_on(tmp_path: Path) -> None:
    flags = ["--steps", 1_000_000, "--out", "run"]
    with start("run", *FAST, *flags, cwd=tmp_path) as process:
        folder = tmp_path / "run"
        wait_for(lambda: (folder / "queries.csv").exists(), process)
        time.sleep(0.5)  # well into the training, which would go on for an hour
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.endswith(
        "Error: interrupted\ncompleted rounds are saved; to resume: skal resume run\n"
    )
    assert "Traceback" not in stderr
    events = [entry["event"] for entry in Journal(folder / "journal.jsonl").read()]
    assert events == ["start", "labels"]
    assert not (folder / "rounds.csv").exists()


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    finished: tuple[Path, Result], tmp_path: Path
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1900, 1900))"
    flags = ["--strategy", "badge", "--out", "run", "--quiet"]
    with start("run", *FAST, *flags, code=limit, cwd=tmp_path) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stdout == ""
    error, advice = stderr.splitlines()
    assert error == "Error: run/journal.jsonl: File too large"
    assert advice == "completed rounds are saved; to resume: skal resume run"
    folder = tmp_path / "run"
    assert call("resume", folder).exit_code == 0
    assert (folder / "queries.csv").read_bytes() == (finished[0] / "queries.csv").read_bytes()
    assert metrics(folder) == metrics(finished[0])


# the others


def test_doctor_shows_what_it_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = call("doctor", "--data-dir", tmp_path)
    assert result.exit_code == 0
    assert f"{tmp_path} is writable" in result.stdout
    problem = [Check("disk", "full", fine=False)]
    monkeypatch.setattr("skal.cli.doctor.examine", lambda data_dir: problem)
    result = call("doctor")
    assert (result.exit_code, result.stdout) == (1, "PROBLEM  disk: full\n")


def test_version() -> None:
    assert call("--version").stdout.strip().endswith(skal.__version__)


def test_help_of_run_names_every_option_and_all_that_is_registered() -> None:
    text = call("run", "--help").stdout
    for option in OPTIONS:
        assert f"{option} " in text or f"{option}\n" in text, option
    for name in ("digits", "fashion-mnist", "resnet18", "least-confidence", "fixed-uncertainty"):
        assert name in text


def test_help_of_run_shows_its_options_in_groups() -> None:
    text = call("run", "--help").stdout
    heads = re.findall(r"^(\w+):$", text, re.MULTILINE)
    groups = ["Data", "Labels", "Query", "Network", "Training", "Noise", "Output"]
    assert heads == [*groups, "Names"]
    parts = dict(zip(heads, re.split(r"^\w+:$", text, flags=re.MULTILINE)[1:], strict=False))
    for group, option in zip(
        groups, ("dataset", "n-init", "strategy", "freeze", "lr", "noise-rate", "out"), strict=True
    ):
        assert f"  --{option} " in parts[group], group
    assert "--stop alone means end" in " ".join(text.split())
    assert call("compare", "--help").stdout.index("Comparison:") > 0


def test_help_of_labelling_begins_with_classes_and_ends_with_what_is_done_instead() -> None:
    titles = re.findall(r"^(\w[\w ]*):$", call("label", "--help").stdout, re.MULTILINE)
    assert titles[:2] == ["Classes", "Labelling"]
    assert titles[-3:] == ["Page", "Instead of labelling", "Help"]


def test_no_command_is_cut_short_in_the_list_of_commands() -> None:
    assert "..." not in call("--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize("args", ["--help", "run --help", "list strategies", "run --print-config"])
def test_help_and_lists_import_no_torch(args: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom skal.cli import main\n"
        f"main({args.split()!r}, standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "args",
    [
        "predict modle new --out pred.csv",
        "predict model news",
        "predict model new --out pred.txt",
        "predict model new --out there.csv",
        "predict model new --out nowhere/pred.csv",
        "predict model new --out pred.cvs",
        "predict model new --out plain",
        "predict model new --out plain/of/parts",
        "predict model new --out new",
        "predict model new --utilities margn",
        "predict model new --utilities margin,nowhere:Thing",
        "predict model new --shard-size 0",
        "predict model new --jobs 0",
        "predict model new --device gpu",
        "export-model modl",
        "export-model model --format onx",
        "export-model model --out there.csv",
        "export-model done --format state-dict",
        "export-model model --out nowhere/net.onnx",
        "train new --out model",
        "train new",
        "train news",
        "resume bog",
        "resume new",
        "score",
        "report",
        "report bog",
        "report new",
        "report model --out new",
        "run --dataset nowhere",
        "run --dataset ./nowhere",
        "run --model resnt18",
        "run --strategy badg",
        "run --stream --strategy badge",
        "run --weights none.pt",
        "run --out new",
        "compare --dataset nowhere",
        "compare --models lenet,resnt18",
        "compare --strategies margin,badg",
        "compare --out new",
    ],
)
def test_simple_mistakes_are_found_before_torch_is_imported(
    args: str, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    (tmp_path / "model").symlink_to(finished[0])
    for name in ("a", "b"):
        (tmp_path / "new" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "new" / f"{name}.png")
    for name in ("there.csv", "plain"):
        (tmp_path / name).write_text("x")
    shutil.copytree(finished[0], tmp_path / "done")
    (tmp_path / "done/network.safetensors").write_text("x")
    code = (
        "import sys\nfrom skal.cli import main\n"
        "try:\n"
        f"    main({args.split()!r}, prog_name='skal')\n"
        "except SystemExit as end:\n"
        "    assert end.code in (1, 2), end.code\n"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'skactiveml'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Error: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "args", ["run --out run", "compare --strategies random --seeds 1 --out all"]
)
def test_a_broken_matplotlib_is_told_before_anything_is_trained(args: str, tmp_path: Path) -> None:
    package = tmp_path / "matplotlib"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('numpy is too new')\n")
    places = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "skal", *args.split(), "--dataset", "digits", "--n-rounds=1"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "Error: cannot import matplotlib (pip install --force-reinstall matplotlib): "
        "ImportError: numpy is too new"
    )
    assert "round" not in done.stderr and not (tmp_path / "run").exists()


def test_a_reader_who_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -u -c 'from skal.cli import main; main()' list strategies | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_a_terminal_shows_a_bar_and_a_line_a_round(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    args = ["run", *FAST, "--out", "run"]
    with subprocess.Popen(
        [*PROGRAM, *map(str, args)], stdout=theirs, stderr=theirs, stdin=theirs, cwd=tmp_path
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "training:" in text and "| 2/3 [" in text
    assert "round 2/2: 24 labels" in text
    assert "\n     round    labels  accuracy" in text.replace("\r", "\n")
    assert text.rstrip().splitlines()[-1].startswith("done")
