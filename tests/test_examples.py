"""The notebooks and what stands beside them."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from skal.cli import main
from skal.comparisons.report import text_table

EXAMPLES = Path(__file__).parents[1] / "examples"
GUIDE = EXAMPLES / "flowers_guide.ipynb"
FEATURES = EXAMPLES / "skactiveml_on_features.ipynb"
STRATEGIES = ("random", "entropy", "margin", "least-confidence", "badge", "bald")
KINDS = ["daisy", "dandelion", "rose", "sunflower", "tulip"]


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that notebooks can be run, and that they leave nothing at home."""
    try:
        import ipykernel  # noqa: F401
        import nbclient  # noqa: F401
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("no nbclient and ipykernel here: pip install '.[test]'")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))


def read(notebook: Path) -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(notebook, as_version=4)


def execute(notebook: Any, folder: Path) -> Any:
    """Run a notebook as if it lay in `folder`/examples, beside the drawing of the stand-in."""
    from nbclient import NotebookClient

    place = folder / "examples"
    place.mkdir()
    shutil.copy(EXAMPLES / "stand_in.py", place)
    resources = {"metadata": {"path": str(place)}}
    client = NotebookClient(notebook, timeout=None, resources=resources, record_timing=False)
    return client.execute()


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def text_of(notebook: Any, cell_id: str) -> str:
    """Return what a cell printed."""
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(output.get("text", "") for output in cell.outputs)


def pictures_of(notebook: Any) -> list[bytes]:
    found = [output.get("data", {}) for output in outputs(notebook)]
    return [base64.b64decode(data[form]) for data in found for form in data if "image" in form]


@pytest.mark.usefixtures("jupyter")
def test_guide_runs_whole_on_the_drawings_and_says_so(tmp_path: Path) -> None:
    notebook = read(GUIDE)
    for cell, pattern, shorter in (
        ("parameters", r"SEEDS = \d+", "SEEDS = 1"),
        ("folder", r'"n_rounds": 4', '"n_rounds": 2'),
        ("folder", r'"steps": \d+', '"steps": 10'),
        ("folder", r'flowers-stand-in"\)', 'flowers-stand-in", 40)'),
    ):
        (found,) = (one for one in notebook.cells if one.id == cell)
        found.source, replaced = re.subn(pattern, shorter, found.source)
        assert replaced == 1
    execute(notebook, tmp_path)

    assert "DRAWINGS" in text_of(notebook, "folder")
    assert {output.get("name", "stdout") for output in outputs(notebook)} == {"stdout"}
    assert len(pictures_of(notebook)) == 5
    folder = tmp_path / "runs/guide-flowers-stand-in"
    cells = {path.name for path in (folder / "cells").iterdir()}
    assert cells == {f"{name}-small-cnn-s0" for name in STRATEGIES}
    analysis = json.loads((folder / "comparison.json").read_text())
    assert text_of(notebook, "verdict").strip() == text_table(analysis).strip()
    assert "Too few seeds" in text_of(notebook, "verdict")


@pytest.mark.usefixtures("jupyter")
def test_guide_takes_the_photographs_where_they_lie(tmp_path: Path, data_dir: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        place = data_dir / "flowers/train" / kind
        place.mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    notebook = read(GUIDE)
    last = next(i for i, cell in enumerate(notebook.cells) if cell.id == "look")
    notebook.cells = notebook.cells[: last + 1]
    execute(notebook, tmp_path)

    said = text_of(notebook, "folder")
    assert "real photographs" in said and "DRAWINGS" not in said
    assert "<ImageDataset flowers: 40 images, 10 test images" in said
    assert len(pictures_of(notebook)) == 1


@pytest.mark.usefixtures("jupyter")
def test_features_go_into_the_strategies_of_scikit_activeml(tmp_path: Path) -> None:
    notebook = read(FEATURES)
    (found,) = (cell for cell in notebook.cells if cell.id == "parameters")
    found.source = "SEEDS, N_ROUNDS, PER_CLASS = 1, 2, 10"
    execute(notebook, tmp_path)

    said = text_of(notebook, "verdict").splitlines()
    assert [line.split()[0] for line in said] == ["margin", "entropy", "CoreSet", "TypiClust"]
    assert all("of 1 seed" in line for line in said)
    assert len(pictures_of(notebook)) == 1


@pytest.mark.parametrize("path", [GUIDE, FEATURES], ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs_and_name_no_machine(path: Path) -> None:
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in code)
    assert not re.search(r"/(home|root|tmp|work|Users|mnt)\b|\b[A-Z]:\\\\", path.read_text())
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not any(cell.metadata.keys() - {"tags"} for cell in notebook.cells)


@pytest.mark.parametrize(
    ("path", "names"), [(GUIDE, {"compare", "label"}), (FEATURES, {"compare", "list"})]
)
def test_commands_and_options_in_notebooks_exist(path: Path, names: set[str]) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    commands = re.findall(r"skal ([a-z]+) ((?:[^`\n]|\\\n)*)", text)
    assert {name for name, _ in commands} == names
    for name, words in commands:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= known


def draw(folder: Path, n: int, seed: int = 0) -> dict[str, bytes]:
    code = f"import stand_in; stand_in.draw_flowers({str(folder)!r}, {n}, {seed})"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=EXAMPLES, check=True)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_drawings_are_the_same_each_time_and_no_two_are_alike(tmp_path: Path) -> None:
    first = draw(tmp_path / "a", 3)
    assert sorted(first) == [f"{kind}/{number:03}.jpg" for kind in KINDS for number in range(3)]
    assert len(set(first.values())) == len(first)
    assert draw(tmp_path / "b", 3) == first
    assert not set(draw(tmp_path / "c", 3, seed=1).values()) & set(first.values())


def test_drawings_that_are_there_are_kept(tmp_path: Path) -> None:
    draw(tmp_path, 1)
    mine = tmp_path / "rose/000.jpg"
    mine.write_bytes(b"mine")
    assert len(draw(tmp_path, 2)) == 10
    assert mine.read_bytes() == b"mine"


def test_shares_of_cifar10_where_it_lies_in_the_data_folder(
    tmp_path: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    names = {b"label_names": [f"thing {i}".encode() for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))

    script = str(EXAMPLES / "cifar10_percent.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "--seeds", "1", "--steps", "1"])
    runpy.run_path(script, run_name="__main__")
    assert capsys.readouterr().out.startswith(
        "cifar10, efficientnet-lite0, 35 labels at the end\n"
    )  # of 100
    analysis = json.loads((tmp_path / "runs/cifar10-percent/comparison.json").read_text())
    assert analysis["groups"][0]["n_labeled"] == [10, 15, 20, 25, 30, 35]
    assert len(analysis["strategies"]) == 5
    with Image.open(tmp_path / "runs/cifar10-percent/curves.png") as picture:
        picture.verify()
