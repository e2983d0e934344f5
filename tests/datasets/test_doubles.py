"""Images that are there twice: told before a run, left out if one asks for it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import skal
from skal.cli import main
from skal.core.errors import MissingExtraError
from skal.datasets import formats
from skal.datasets.doubles import find_doubles, near_doubles, without_doubles
from skal.datasets.formats import EXTRAS, TIFF, Extra

RNG = np.random.default_rng(0)


def photo(size: int = 64) -> Image.Image:
    small = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A split with a leak, a repeated image, and one of two minds."""
    root = tmp_path / "pets"
    for part, n in (("train", 6), ("test", 3)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for k in range(n):
                photo().save(root / part / label / f"{k}.png")
    train = root / "train"
    Image.open(root / "test/cat/0.png").save(train / "cat/leak.bmp")  # other bytes, same pixels
    Image.open(train / "cat/1.png").save(train / "cat/again.png")
    Image.open(train / "dog/1.png").save(train / "cat/doubted.png")
    return root


def test_what_is_there_twice_is_named_before_a_run(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = skal.load_dataset(pets, image_size=32)
    found = find_doubles(data)
    assert [data.paths[row] for row in found.in_test] == ["train/cat/leak.bmp"]
    assert {data.paths[row] for row in found.repeated} == {"train/cat/again.png", "train/dog/1.png"}
    assert [data.paths[row] for row in found.contradicting] == ["train/dog/1.png"]
    assert "1 image of the pool is also in the test set (train/cat/leak.bmp)" in caplog.text
    assert "1 of them has a different label" in caplog.text


def test_who_makes_a_page_of_runs_is_not_told_again_what_is_there_twice(
    pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"model": "lenet", "image_size": 12, "steps": 2, "n_init": 4, "n_rounds": 0}
    skal.run(pets, "random", **settings, data_dir=str(tmp_path), out=tmp_path / "run")
    assert "also in the test set" in caplog.text
    caplog.clear()
    words = ["report", str(tmp_path / "run"), "--html", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "<img" in (tmp_path / "report/report.html").read_text()
    assert "also in the test set" not in caplog.text + result.output


def test_duplicates_are_left_out_of_the_pool_and_of_a_resumed_one(
    pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    settings = {"model": "small-cnn", "n_init": 4, "n_query": 2, "n_rounds": 1, "steps": 2}
    run = skal.run(
        str(pets),
        strategy="random",
        drop_duplicates=True,
        out=tmp_path / "run",
        image_size=32,
        **settings,
    )
    assert "removed 3 duplicates from the pool: 1 is in the test set, 2 repeat" in caplog.text
    assert "1 of them has a different label" in caplog.text
    assert "--drop-duplicates" not in caplog.text  # no advice to do what is done
    again = skal.ActiveLearner.open(tmp_path / "run")
    assert len(again.pool.X) == 15 - 3
    assert len(without_doubles(again.data).X) == len(again.data.X)
    assert run.config.drop_duplicates


def test_without_doubles_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    X = RNG.integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    data = skal.ImageDataset(X[:5], np.zeros(5, int), ("a", "b"), X[5:], np.zeros(3, int))
    assert not len(find_doubles(data)) and without_doubles(data) is data
    assert not caplog.records


def test_images_that_were_compressed_again_look_alike(tmp_path: Path) -> None:
    originals = [photo() for _ in range(30)]
    for k, image in enumerate(originals):
        image.save(tmp_path / f"{k}.jpg", quality=40)
    again = [Image.open(tmp_path / f"{k}.jpg") for k in range(3)]
    images = np.stack([np.asarray(image).transpose(2, 0, 1) for image in (*originals, *again)])
    assert near_doubles(images) == [(0, 30), (1, 31), (2, 32)]


def doctor(*arguments: str, code: int = 1) -> str:
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_the_doctor_says_what_a_folder_holds(pets: Path, tmp_path: Path) -> None:
    (pets / "train/dog/broken.png").write_bytes(b"\x89PNG")
    photo().save(tmp_path / "alike.png")
    Image.open(pets / "train/dog/2.png").save(pets / "train/dog/alike.jpg", quality=50)
    text = doctor(str(pets))
    for line in (
        "train: 17 images of 2 classes",
        "cat: 9",
        "test: 6 images of 2 classes",
        "modes: RGB 22",
        "pixels: smallest 64 x 64",
        "train/dog/broken.png: ",
        "train/cat/leak.bmp",
        "train/dog/2.png = train/dog/alike.jpg",
        "train/cat/again.png = train/cat/1.png",
        "with a different label than the original:\n    train/dog/1.png = train/cat/doubted.png\n",
        "1 file cannot be read",
    ):
        assert line in text
    facts = json.loads(doctor(str(pets), "--json"))
    assert facts["classes"]["train"] == {"cat": 9, "dog": 8}
    assert facts["duplicates"]["in_test"] == ["train/cat/leak.bmp"]
    assert facts["originals"]["train/dog/1.png"] == "train/cat/doubted.png"
    assert facts["near_duplicates"] == [["train/dog/2.png", "train/dog/alike.jpg"]]


def test_the_doctor_names_a_likely_mistake_of_layout(tmp_path: Path) -> None:
    for place in ("north/cat", "north/dog", "south/cat", "south/dog"):
        (tmp_path / "sites" / place).mkdir(parents=True)
        for k in range(5):
            photo().save(tmp_path / "sites" / place / f"{k}.png")
    assert "'north', 'south' are in the place of classes" in doctor(str(tmp_path / "sites"))


def test_the_doctor_finds_nothing_wrong_with_a_sound_folder(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for k in range(6):
            photo().save(tmp_path / "pets" / label / f"{k}.png")
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    Image.fromarray(values).save(tmp_path / "pets/cat/deep.tif")
    text = doctor(str(tmp_path / "pets"), code=0)
    assert "no problems found" in text and "values of mode I;16: 0 to 3780" in text


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"": 6}, "no image has a label"),
        ({"cat": 6}, "there is only one class, 'cat'"),
        ({"cat": 6, "dog": 4, "eel": 5}, "fewer than 5 images: dog"),
        ({"cat": 106, "dog": 5}, "'cat' has 106 images and 'dog' 5"),
    ],
)
def test_the_doctor_tells_of_classes_that_little_can_be_learned_of(
    tmp_path: Path, counts: dict[str, int], problem: str
) -> None:
    for label, n in counts.items():
        (tmp_path / "pets" / label).mkdir(parents=True)
        for k in range(n):
            photo(8).save(tmp_path / "pets" / label / f"{k}.png")
    problems = doctor(str(tmp_path / "pets")).partition("problems:")[2]
    assert f"  {problem}\n" in problems


def test_the_doctor_names_a_table_that_it_cannot_use_and_rows_without_an_image(
    tmp_path: Path,
) -> None:
    for k in range(6):
        photo(8).save(tmp_path / f"{k}.png")
    (tmp_path / "labels.csv").write_text("datei;klasse\n0.png;cat\n")
    text = doctor(str(tmp_path))
    assert "no image has a label" in text
    assert "labels.csv is not used: its columns are 'datei', 'klasse'; expected one of" in text
    (tmp_path / "labels.csv").write_text("path;label\n0.png;cat\n1.png;dog\n9.png;cat\n")
    assert "1 row of labels.csv names no image in this folder: '9.png'" in doctor(str(tmp_path))


def test_the_doctor_of_no_folder_is_one_clear_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", str(tmp_path / "nothing")])
    assert result.exit_code in (1, 2) and "does not exist; expected a folder" in result.output


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_the_doctor_does_not_wait_for_a_pipe(pets: Path) -> None:
    for name in ("dog/pipe.png", "dog/pipe.tif"):
        os.mkfifo(pets / "train" / name)
    text = doctor(str(pets))
    assert "train/dog/pipe.png: not a regular file" in text and "2 files cannot be read" in text


def test_the_doctor_knows_what_extras_read(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for label in ("cat", "dog"):
        (tmp_path / "cells" / label).mkdir(parents=True)
        for k in range(6):
            values = RNG.random((8, 12)).astype(np.float16)
            values[0, :2] = (0, 1)
            tifffile.imwrite(tmp_path / "cells" / label / f"{k}.tif", values)
    text = doctor(str(tmp_path / "cells"), code=0)
    for line in ("formats: TIFF 12", "modes: F 12", "smallest 12 x 8", "values of mode F: 0 to 1"):
        assert line in text


@pytest.mark.parametrize("extra", [*EXTRAS, TIFF], ids=lambda extra: extra.name)
def test_a_missing_extra_is_named_as_it_is_installed(
    extra: Extra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "is_installed", lambda module: False)
    with pytest.raises(MissingExtraError) as caught:
        extra.require()
    assert str(caught.value) == (
        f"a file of the format {extra.name} needs the package {extra.module!r}: "
        f"pip install 'skal[{extra.extra}]'"
    )


def test_the_doctor_shows_notices_as_it_goes_and_warnings_as_problems(pets: Path) -> None:
    (pets / "notes.txt").write_text("seen in spring")
    result = CliRunner().invoke(main, ["doctor", str(pets)])
    assert "ignored files" in result.stderr
    assert "ignored files" not in result.stdout
