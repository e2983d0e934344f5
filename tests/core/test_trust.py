"""Nothing that a folder names is run unless that is asked for."""

from __future__ import annotations

import contextlib
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import skal
from skal.cli import main
from skal.comparisons.results import read_results
from skal.core.durable import sha256, signed
from skal.core.errors import RunFolderError, SkalError
from skal.core.trust import foreign_names, is_foreign
from skal.label.importing import import_into
from skal.label.studio.answers import answers_of_run
from skal.runs.config import RunConfig

TINY: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 1}


@pytest.mark.parametrize(
    ("spec", "kinds", "foreign"),
    [
        ("margin", ("strategies",), False),
        ("mine:Margin", ("strategies",), True),
        (f"{__name__}:Margin", ("strategies",), False),
        (f"{__name__}:Margin", ("models",), True),
        ("mine.own:Margin?k=1", ("strategies",), True),
        ("skactiveml.pool:Falcun?gamma=5", ("strategies",), False),
        ("skactiveml.poolside:Falcun", ("strategies",), True),
        ("skal.core.registry:import_object?path=os:abort", ("models",), True),
        ("skactiveml.pool:Falcun", ("models",), True),
        ("timm:vit_tiny", ("models",), False),
        ("timm.models:create_model", ("models",), True),
        ("torchvision:resnet50@IMAGENET1K_V1", ("models",), False),
        ("evil-module:load", ("models",), True),
        ("mine:no-such name", ("strategies",), True),
        ("pictures: mine/flowers", ("datasets",), True),
        ("flowers", ("datasets",), False),
        ("mine:load", ("datasets",), True),
    ],
)
def test_import_paths_of_others_are_foreign(
    spec: str, kinds: tuple[str, ...], foreign: bool
) -> None:
    assert is_foreign(spec, kinds) is foreign


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Put a module `stranger` on the path; the function tells whether anything imported it."""
    place, mark = tmp_path / "modules", tmp_path / "mark"
    place.mkdir()
    (place / "stranger.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(place)
    sys.modules.pop("stranger", None)  # of the test before
    return mark.exists


def write_journal(folder: Path, name: str, value: str) -> None:
    """Let a run say that it began with another value of a setting."""
    path = folder / "journal.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    start = json.loads(first.partition(" ")[2])
    start["facts"]["config"][name] = value
    text = json.dumps(start)
    path.write_text("".join([f"{zlib.crc32(text.encode()):08x} {text}\n", *rest]))
    config = folder / "config.toml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith(f"{name} =")]
    config.write_text("\n".join([f'{name} = "{value}"', *lines]))


def test_a_colon_in_a_setting_that_names_no_code_is_no_matter() -> None:
    settings = RunConfig(
        white="100:4095",
        data_dir="server:share",
        label_noise="10%",
        label_noise_kind="class=3:8",
        model="timm:resnet18",
    )
    assert foreign_names(settings) == {}
    assert foreign_names(RunConfig(model="somebody.code:Net")) == {"model": "somebody.code:Net"}


@pytest.mark.parametrize("name", ["strategy", "model", "oracle", "init_strategy", "dataset"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_of_a_stranger_runs_nothing(
    name: str,
    finished: bool,
    tiny: skal.ImageDataset,
    tmp_path: Path,
    marked: Callable[[], bool],
) -> None:
    folder = tmp_path / "run"
    skal.run(tiny, "margin", out=folder, **TINY)
    if not finished:
        lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
        (folder / "journal.jsonl").write_text("".join(lines[:-2]))
    write_journal(folder, name, "stranger:Anything")
    for use in (
        lambda: skal.resume(folder, data=tiny),
        lambda: skal.resume(folder),
        lambda: skal.ActiveLearner.open(folder, data=tiny),
        lambda: read_results([folder]),
        lambda: CliRunner().invoke(main, ["resume", str(folder)]),
        lambda: CliRunner().invoke(main, ["report", str(folder), "--out", str(tmp_path / "told")]),
    ):
        with contextlib.suppress(SkalError):
            use()
        assert not marked()
    if not finished:
        with pytest.raises(RunFolderError, match=f"names code .*{name} 'stranger:Any.*--trust"):
            skal.resume(folder, data=tiny)


@pytest.mark.parametrize("name", ["strategy", "model", "init_strategy"])
def test_a_label_project_of_a_stranger_runs_nothing(
    name: str, tmp_path: Path, marked: Callable[[], bool]
) -> None:
    root = tmp_path / "photos"
    for number in range(30):
        (root / "unlabeled").mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8), 8 * number, np.uint8)
        Image.fromarray(pixels).save(root / f"unlabeled/{number}.png")
    (tmp_path / "labels.csv").write_text(
        "path,label\n" + "".join(f"{n}.png,{'dark' if n < 9 else 'light'}\n" for n in range(20))
    )
    import_into(root, tmp_path / "labels.csv", ["dark", "light"])
    (root / ".skal/project.toml").write_text(signed(f'{name} = "stranger:Anything"\n'))
    option = f"--{name.replace('_', '-')}"
    for command in (["label", "--terminal"], ["train"], ["query", "--n-query", "2"], ["export"]):
        words = [*command, str(root), *(["--format", "csv"] if command == ["export"] else [])]
        done = CliRunner().invoke(main, words, input="q\n")
        assert not marked(), command
        if command != ["export"]:
            assert "names code" in done.output and "name it again as an option" in done.output
    if name != "init_strategy":  # which is asked for the first batch alone
        words = ["query", str(root), "--n-query", "2", option, "stranger:Anything"]
        CliRunner().invoke(main, words)
        assert marked()


def test_a_network_of_a_stranger_runs_nothing(
    tiny: skal.ImageDataset, tmp_path: Path, marked: Callable[[], bool]
) -> None:
    folder = tmp_path / "run"
    skal.run(tiny, "margin", out=folder, **TINY)
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["params"]["model"] = "stranger:Net"
    del content["checksum"]
    content["checksum"] = sha256(json.dumps(content, indent=2))
    path.write_text(json.dumps(content, indent=2))
    image = tmp_path / "image.png"
    image.touch()
    for use in (
        lambda: skal.load_classifier(folder),
        lambda: skal.predict(folder, [image], tmp_path / "out.csv"),
        lambda: skal.resume(folder),
        lambda: answers_of_run(folder, tmp_path),
    ):
        with pytest.raises(RunFolderError, match=r"model.json' names code .*'stranger:Net'"):
            use()
    assert not marked()
    with pytest.raises(RunFolderError, match="no usable model"):
        skal.load_classifier(folder, trust=True)
    assert marked()
