"""A run on images of more than 8 bits, and all that comes after it: scaled alike everywhere."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import skal
from skal.datasets.decoding import decode
from skal.datasets.deep import Range, Ranges
from skal.label.final import train
from skal.label.previews import render
from skal.label.project import LabelProject

SIDE = 16
SETTINGS: dict[str, Any] = {
    "strategy": "random",
    "model": "small-cnn",
    "image_size": SIDE,
    "n_init": 6,
    "n_query": 2,
    "n_rounds": 1,
    "steps": 3,
}


def draw(number: int, top: int) -> np.ndarray:
    """Return stripes, level or upright, of 16 bits of which 12 are used, on some noise."""
    image = np.random.default_rng(number).integers(0, top // 4, (SIDE, SIDE)).astype(np.uint16)
    rows = image if number % 2 else image.T
    rows[::2] = top
    return image


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        place = tmp_path / f"images/{'level' if number % 2 else 'upright'}/{number:02}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number, 4000)).save(place)
    Path("images/level/page.tif").write_bytes(b"<!doctype html><html>404</html>")
    Path("images/level/cut,.tif").write_bytes(Path("images/level/01.tif").read_bytes()[:200])
    Path("new").mkdir()
    for number in range(4):  # half as bright as what the network was trained on
        Image.fromarray(draw(number, 2000)).save(f"new/{number}.tif")
    return tmp_path / "images"


def as_12_bits(paths: list[Path]) -> np.ndarray:
    return np.stack([decode(path, SIDE, ranges=Ranges(Range(0, 4095))) for path in paths])


def test_a_run_says_what_was_white_and_its_other_images_are_scaled_so(root: Path) -> None:
    run = skal.run("images", **SETTINGS, out="run")
    assert tomllib.loads(Path("run/config.toml").read_text())["white"] == "4095,none"
    assert json.loads(Path("run/model.json").read_text())["white"] == "4095,none"
    skal.predict("run", ["new"], "new.csv", threads=1)
    with Path("new.csv").open() as file:
        rows = list(csv.DictReader(file))
    proba = run.classifier.predict_proba(as_12_bits([Path(row["path"]) for row in rows]))
    found = np.array([[float(row["p_level"]), float(row["p_upright"])] for row in rows])
    assert len(rows) == 4 and np.allclose(found, proba, atol=1e-5)


def test_a_run_from_the_settings_of_another_is_the_same(root: Path) -> None:
    skal.run("images", **SETTINGS, white=3000, out="run")
    again = {**tomllib.loads(Path("run/config.toml").read_text()), "out": "again"}
    skal.run(again.pop("dataset"), **again)
    read = [Path(folder, "rounds.csv").read_text().split(",fit")[0] for folder in ("run", "again")]
    assert tomllib.loads(Path("again/config.toml").read_text())["white"] == "3000"
    assert read[0] == read[1]
    assert Path("run/queries.csv").read_bytes() == Path("again/queries.csv").read_bytes()


def test_what_cannot_be_read_stands_in_the_run_folder_with_its_reason(root: Path) -> None:
    skal.run("images", **SETTINGS, out="run")
    with Path("run/skipped.csv").open() as file:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert rows.keys() == {"level/page.tif", "level/cut,.tif"}
    assert "an HTML page" in rows["level/page.tif"] and rows["level/cut,.tif"]


def test_cells_of_a_comparison_are_scaled_so(root: Path) -> None:
    settings = {name: value for name, value in SETTINGS.items() if name != "strategy"}
    skal.compare("images", strategies=["random"], seeds=1, out="grid", white="100:3000", **settings)
    (cell,) = Path("grid/cells").iterdir()
    assert tomllib.loads((cell / "config.toml").read_text())["white"] == "100:3000"
    assert json.loads((cell / "model.json").read_text())["white"] == "100:3000"


def test_people_see_what_the_network_sees(root: Path) -> None:
    given = {"model": "small-cnn", "image_size": SIDE, "steps": 3}
    project = LabelProject.open(root, ["level", "upright"], given)
    assert str(project.ranges) == "4095,none"
    path = root / project.paths[0]
    shown = render(path, SIDE, lambda: project.ranges)
    with Image.open(io.BytesIO(shown.content)) as image:
        seen = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(seen, as_12_bits([path])[0])
    folder, _ = train(project, Path("final"))
    assert json.loads((folder / "model.json").read_text())["white"] == "4095,none"
    project.close()
