"""Pages as images of their own: each its own pixels, name, label and side of the split."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import skal
from skal.cli import main
from skal.core.errors import DataError, UsageError
from skal.datasets.decoding import decode
from skal.label.doubts import folds
from skal.label.exporting import (
    export_csv,
    export_folder,
    export_ground_truth,
    export_huggingface,
)
from skal.label.importing import import_into
from skal.label.project import LabelProject
from skal.label.sample import draw_reserve
from skal.label.store import Action
from skal.label.studio.tasks import export_label_studio

SIDE, N_PAGES, N_STACKS = 16, 3, 10


def page(rng: np.random.Generator, dark: bool) -> NDArray[np.uint8]:
    low, high = (0, 100) if dark else (155, 255)
    return rng.integers(low, high, (SIDE, SIDE), dtype=np.uint8)


def write_stack(path: Path, pages: list[NDArray[Any]]) -> None:
    """Write pages, with a thumbnail among them, as microscopes and scanners do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(pages[0]).resize((4, 4))
    first, *others = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=[small, *others])


@pytest.fixture
def stacks(tmp_path: Path) -> tuple[Path, dict[str, NDArray[np.uint8]]]:
    """Two classes of stacks of three pages, and a photograph; the pixels of each image by path."""
    rng, root = np.random.default_rng(0), tmp_path / "cells"
    pixels = {}
    for number in range(N_STACKS):
        kind = ("dead", "live")[number % 2]
        pages = [page(rng, kind == "dead") for _ in range(N_PAGES)]
        write_stack(root / kind / f"{number}.tif", pages)
        pixels.update({f"{kind}/{number}.tif#{n}": one for n, one in enumerate(pages, start=1)})
    pixels["dead/single.tif"] = page(rng, True)
    Image.fromarray(pixels["dead/single.tif"]).save(root / "dead/single.tif")
    return root, pixels


def test_each_page_is_an_image_with_its_own_pixels(
    stacks: tuple[Path, dict[str, NDArray[np.uint8]]],
) -> None:
    root, expected = stacks
    data = skal.load_dataset(root, image_size=SIDE, pages="all")
    assert data.pages == "all"
    assert len(data.X) + len(data.X_test) == N_STACKS * N_PAGES + 1
    for path, label, image in zip(data.paths, data.y, data.X, strict=True):
        assert np.array_equal(image[0], expected[path])
        assert data.classes[label] == path.partition("/")[0]


def test_a_test_set_that_is_drawn_has_all_pages_of_a_file_or_none(
    stacks: tuple[Path, dict[str, NDArray[np.uint8]]],
) -> None:
    root, expected = stacks
    for seed in range(5):
        data = skal.load_dataset(root, image_size=SIDE, pages="all", seed=seed)
        trained_on = {path.partition("#")[0] for path in data.paths}
        tested_on = [path for path in expected if path.partition("#")[0] not in trained_on]
        assert len(tested_on) == len(data.X_test) > 0


def test_pages_of_medical_and_astronomical_files(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    cube = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    fits.PrimaryHDU(cube).writeto(tmp_path / "cube.fits")
    for number in (1, 2, 3):
        found = decode(tmp_path / f"cube.fits#{number}", 8)
        assert np.array_equal(found[0], cube[number - 1][::-1])
    with pytest.raises(DataError, match="got page 4; expected 1 to 3"):
        decode(tmp_path / "cube.fits#4", 8)


def test_run_and_prediction_name_the_pages(
    stacks: tuple[Path, dict[str, NDArray[np.uint8]]], tmp_path: Path
) -> None:
    root, expected = stacks
    run = tmp_path / "run"
    settings = ["--pages", "all", "--model", "small-cnn", "--image-size", str(SIDE)]
    size = ["--n-init", "6", "--n-query", "4", "--n-rounds", "1", "--epochs", "1"]
    command = ["run", "--dataset", str(root), "--out", str(run), *settings, *size]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    picked = [row["path"] for row in csv.DictReader((run / "queries.csv").read_text().splitlines())]
    assert set(picked) <= expected.keys() and any("#" in path for path in picked)
    out = tmp_path / "predictions.csv"
    done = CliRunner().invoke(
        main, ["predict", str(run), str(root), "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    named = {row["path"] for row in csv.DictReader(out.read_text().splitlines())}
    assert named == {str(root / path) for path in expected}


@pytest.fixture
def project(tmp_path: Path) -> LabelProject:
    rng, root = np.random.default_rng(1), tmp_path / "stacks"
    write_stack(root / "a.tif", [page(rng, False) for _ in range(3)])
    write_stack(root / "b.tif", [page(rng, True).astype(np.uint16) * 200 for _ in range(3)])
    return LabelProject.open(root, ["dead", "live"], {"pages": "all"})


def say(project: LabelProject, label_of: dict[str, int]) -> None:
    numbers = {path: n for n, path in project.paths.items()}
    facts = {"annotator": "me", "action": "label", "round": 0, "source": "strategy"}
    project.record([Action(image=numbers[p], label=y, **facts) for p, y in label_of.items()])


def labels_of(project: LabelProject) -> dict[str, str]:
    return {project.paths[n]: project.classes[y] for n, y in project.labels.items()}


def test_labels_are_of_pages_and_come_back_to_them(project: LabelProject, tmp_path: Path) -> None:
    said = {"a.tif#1": 0, "a.tif#3": 1, "b.tif#2": 1}
    say(project, said)
    table = tmp_path / "labels.csv"
    table.write_text(export_csv(project))
    again = LabelProject.open(project.root, ["dead", "live"], {"pages": "all"}, create=False)
    assert labels_of(again) == labels_of(project)
    say(project, {path: 1 - label for path, label in said.items()})
    import_into(project.root, table, annotator="me")
    project.refresh()
    assert labels_of(project) == {path: ("dead", "live")[label] for path, label in said.items()}


def test_a_label_of_a_whole_file_is_put_on_no_page(project: LabelProject, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.tif,dead\n")
    with pytest.raises(DataError, match=r"a\.tif#1"):
        import_into(project.root, table, annotator="me")
    folder = tmp_path / "classes"
    (folder / "dead").mkdir(parents=True)
    (folder / "dead/a.tif").write_bytes((project.root / "a.tif").read_bytes())
    with pytest.raises(DataError, match="is not an image of"):
        import_into(project.root, folder, annotator="me")


@pytest.mark.parametrize("export", [export_huggingface, export_ground_truth, export_label_studio])
def test_exports_that_name_files_are_refused_for_pages(
    project: LabelProject, export: Callable[[LabelProject], str]
) -> None:
    say(project, {"a.tif#2": 0})
    with pytest.raises(UsageError, match=r"a\.tif#1 are pages .*--format folder.*--format csv"):
        export(project)


@pytest.mark.parametrize(("before", "after"), [("all", "first"), ("first", "all")])
def test_labels_are_not_set_aside_by_another_choice_of_pages(
    tmp_path: Path, before: str, after: str
) -> None:
    rng, root = np.random.default_rng(2), tmp_path / "stacks"
    write_stack(root / "a.tif", [page(rng, False) for _ in range(3)])
    Image.fromarray(page(rng, True)).save(root / "b.png")
    LabelProject.open(root, ["dead", "live"], {"pages": after}).close()
    project = LabelProject.open(root, settings={"pages": before})
    say(project, {"b.png": 1})
    project.close()
    LabelProject.open(root, settings={"pages": after}).close()  # no label is of a page
    project = LabelProject.open(root, settings={"pages": before})
    say(project, {"a.tif#2" if before == "all" else "a.tif": 0})
    labels = labels_of(project)
    project.close()
    with pytest.raises(UsageError, match=f"labelled with --pages {before}, and --pages {after}"):
        LabelProject.open(root, settings={"pages": after})
    assert labels_of(LabelProject.open(root, create=False)) == labels


def test_pages_of_a_file_are_held_out_together() -> None:
    paths = dict(enumerate(f"{file}.tif#{n}" for file in range(200) for n in (1, 2, 3)))
    drawn = draw_reserve("0", paths, paths)
    files = [paths[image].partition("#")[0] for image in drawn]
    assert set(Counter(files).values()) == {3} and 10 < len(set(files)) < 40
    assert files != sorted(files, key=files.index)  # pages of a file are not shown in a row
    labels = {image: image // 3 % 2 for image in paths}
    parts = folds(labels, 0, paths)
    assert sorted(image for part in parts for image in part) == sorted(paths)
    of_parts = [{paths[image].partition("#")[0] for image in part} for part in parts]
    assert len(parts) == 5 and sum(map(len, of_parts)) == 200


def test_classes_of_one_file_each_have_no_folds() -> None:
    paths = dict(enumerate(f"{file}.tif#{n}" for file in range(2) for n in (1, 2, 3)))
    assert folds({image: image // 3 for image in paths}, 0, paths) == []


def test_a_page_is_predicted_by_its_name(
    stacks: tuple[Path, dict[str, NDArray[np.uint8]]], tmp_path: Path
) -> None:
    root, _ = stacks
    data = skal.load_dataset(root, image_size=SIDE, pages="all")
    settings = {"n_init": 6, "n_query": 4, "n_rounds": 1, "epochs": 1, "model": "small-cnn"}
    skal.run(data, "random", **settings, out=tmp_path / "run")
    named, out = f"{root}/dead/0.tif#3", tmp_path / "one.csv"
    command = ["predict", str(tmp_path / "run"), named, "--out", str(out)]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [row["path"] for row in csv.DictReader(out.read_text().splitlines())] == [named]


def test_one_stack_a_class_is_too_few_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for kind in ("dead", "live"):
        write_stack(tmp_path / f"cells/{kind}/a.tif", [page(rng, kind == "dead") for _ in range(3)])
    data = skal.load_dataset(tmp_path / "cells", image_size=SIDE, pages="all")
    with pytest.raises(DataError, match="no test images; a class needs two files, whose pages"):
        skal.run(data, "random", n_init=2, n_query=1, out=tmp_path / "run")


def test_a_page_is_read_without_those_behind_it(tmp_path: Path) -> None:
    rng, place = np.random.default_rng(4), tmp_path / "stack.tif"
    pages = [page(rng, False) for _ in range(3)]
    write_stack(place, pages)
    with Image.open(place) as image:
        image.seek(2)
        third = image.tag_v2.next  # of the file's pages that is the last, behind the thumbnail
    content = bytearray(place.read_bytes())
    content[third:] = b"\xff" * (len(content) - third)
    place.write_bytes(content)
    assert np.array_equal(decode(tmp_path / "stack.tif#2", SIDE)[0], pages[1])


def test_exported_pages_are_files_with_the_same_numbers(
    project: LabelProject, tmp_path: Path
) -> None:
    tifffile = pytest.importorskip("tifffile")
    say(project, {"a.tif#2": 0, "b.tif#3": 1, "b.tif#1": 1})
    assert export_folder(project, tmp_path / "out") == 3
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.tif")}
    assert files == {"dead/a-page2.tif", "live/b-page3.tif", "live/b-page1.tif"}
    with tifffile.TiffFile(project.root / "b.tif") as file:
        pages = [one.asarray() for one in file.pages]
    assert np.array_equal(tifffile.imread(tmp_path / "out/live/b-page1.tif"), pages[0])
    assert np.array_equal(tifffile.imread(tmp_path / "out/live/b-page3.tif"), pages[3])
