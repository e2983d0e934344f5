"""`skal list`, and what the shell completes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from skal.cli import main
from skal.cli.lists import KINDS, registry

FIRST = {
    "datasets": "digits",
    "models": "small-cnn",
    "strategies": "badge",
    "stream-strategies": "split",
    "init-strategies": "stratified",
    "oracles": "true",
    "trackers": "mlflow",
    "metrics": "macro_f1",
    "formats": "label-studio",
    "import-formats": "coco",
    "network-formats": "onnx",
}


def listed(*args: str, width: int | None = None) -> list[str]:
    env = {"COLUMNS": None if width is None else str(width)}
    done = CliRunner(env=env).invoke(main, ["list", *args])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_and_says_what_it_is(kind: str) -> None:
    rows = json.loads(listed(kind, "--json")[0])
    names = [row["name"] for row in rows]
    assert FIRST[kind] in names and all(row["summary"] for row in rows)
    assert [line.split()[0] for line in listed(kind)] == ["name", *names]
    for entry in registry(kind):
        assert entry.load() is not None


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("kind", ["strategies", "models", "datasets", "stream-strategies"])
def test_lists_fit_the_terminal_and_lose_nothing(kind: str, width: int) -> None:
    lines = listed(kind, width=width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for row in json.loads(listed(kind, "--json")[0]):
        assert row["name"] in words
        for text in ("summary", "cost", "paper"):
            assert {word.strip(";") for word in str(row.get(text, "")).split()} <= {
                word.strip(";") for word in words
            }


def test_a_pattern_chooses_and_expands_families() -> None:
    assert [line.split()[0] for line in listed("strategies", "*bald")][1:] == [
        "bald", "power-bald", "greedy-bald", "batch-bald",
    ]  # fmt: skip
    rows = json.loads(listed("models", "torchvision:resnet*", "--json")[0])
    assert {"torchvision:resnet18", "torchvision:resnet50"} <= {row["name"] for row in rows}
    assert all(row["pretrained"] is True for row in rows)
    assert json.loads(listed("models", "nothing*", "--json")[0]) == []
    assert listed("models", "nothing*") == []


def test_a_pattern_finds_models_of_timm() -> None:
    pytest.importorskip("timm")
    names = [line.split()[0] for line in listed("models", "timm:*dinov2*")[1:]]
    assert names and all(name.startswith("timm:") and "dinov2" in name for name in names)
    failed = CliRunner().invoke(main, ["run", "--model", "timm:foo", "--dataset", "digits"])
    assert failed.exit_code == 2 and len(failed.output) < 300
    assert failed.output.count(" or ") == 2


def complete(folder: Path, *words: str) -> list[str]:
    """Ask as bash does, in a process that says whether torch was imported."""
    env = {
        **os.environ,
        "_SKAL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["skal", *words]),
        "COMP_CWORD": str(len(words)),
    }
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules));"
        "from skal.cli import main; main(prog_name='skal')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True
    )
    *lines, torch = done.stdout.splitlines()
    assert torch == "False", done.stderr
    return [line.partition(",")[2] for line in lines]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--strategy", "core"], ["core-set"]),
        (["run", "--strategy", "variable"], ["variable-uncertainty"]),
        (["run", "--dataset", "fash"], ["fash", "fashion-mnist"]),
        (["run", "--model", "t"], ["torchvision:", "timm:"]),
        (["run", "--init-strategy", "typ"], ["typiclust"]),
        (["run", "--oracle", "t"], ["true"]),
        (["run", "--track", "w"], ["wandb"]),
        (["list", "or"], ["oracles"]),
        (["compare", "--strategies", "random,bad"], ["random,badge"]),
        (["export", "x", "--format", "c"], ["csv"]),
    ],
)
def test_the_shell_completes_names_without_torch(
    words: list[str], expected: list[str], tmp_path: Path
) -> None:
    assert complete(tmp_path, *words) == expected


def test_modules_in_the_current_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "skal_here.py").write_text(
        "def ask(indices, label=3):\n    return indices * 0 + label\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    flags = ["--n-init", "4", "--n-query", "3", "--n-rounds", "1", "--steps", "1", "--quiet"]
    args = ["run", "--dataset", "digits", "--strategy", "random", *flags]
    runner = CliRunner()
    done = runner.invoke(main, [*args, "--oracle", "skal_here:ask?label=5", "--out", "a"])
    assert done.exit_code == 0, done.output
    again = runner.invoke(main, ["run", "--config", "a/config.toml", "--quiet", "--out", "b"])
    assert again.exit_code == 0, again.output
    queries = (tmp_path / "a/queries.csv").read_bytes()
    assert (tmp_path / "b/queries.csv").read_bytes() == queries
    assert queries.count(b",5\n") == 7
    importlib.invalidate_caches()
