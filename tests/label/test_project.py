from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_server import write_images
from PIL import Image
from scipy.stats import binomtest

from skal.core.durable import signed
from skal.core.errors import (
    DataError,
    FolderNotFoundError,
    ParameterError,
    RunFolderError,
    SkalError,
    UnknownNameError,
    UsageError,
)
from skal.core.text import shown
from skal.label.images import Contents
from skal.label.learning import Guesses
from skal.label.names import check_classes
from skal.label.numbering import AT_START, BYTES_AT_START, NOWHERE, Numbering, first_read
from skal.label.project import LabelProject
from skal.label.sample import Accuracy
from skal.label.store import Action, BatchRow, ModelRow, Store


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 8, 8), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three hundred images without a label, and two class folders of four each."""
    root = tmp_path / "flowers"
    write_images(root, pictures(300))
    write_images(root / "daisy", pictures(4, 1))
    write_images(root / "rose", pictures(4, 2))
    return root


def by_path(project: LabelProject) -> dict[str, int]:
    return {path: number for number, path in project.paths.items()}


def give(project: LabelProject, image: int, label: int | None, source: str = "strategy") -> None:
    action = "bad" if label is None else "label"
    project.record([Action("me", action, image, label, round=0, source=source)])


@pytest.mark.parametrize("left", ["nothing in it", "no classes"])
def test_a_first_start_that_failed_is_begun_anew(folder: Path, left: str) -> None:
    (folder / ".skal").mkdir()
    path = folder / ".skal/labels.sqlite"
    path.touch()
    if left == "no classes":
        Store(path).close()
    for create in (False, True):
        project = LabelProject.open(folder, create=create)
        assert project.classes == ["daisy", "rose"]
        project.close()


def test_merged_classes_are_one_and_removed_ones_none(folder: Path) -> None:
    project = LabelProject.open(folder, ["daisy", "tulip", "rose", "moss"])
    numbers = by_path(project)
    images = [numbers[f"{n:05d}.png"] for n in range(5)]
    for image, label in zip(images, (0, 1, 2, 3, 3), strict=True):
        give(project, image, label)
    give(project, images[4], 1)
    predicted = np.array([1, 3], np.int64)
    project.add_model(ModelRow(3, 0.1, np.array(images[1:3]).tobytes(), predicted.tobytes()))
    proba = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    project.guesses = Guesses(np.array(images[:1]), proba, proba, 9, "x", (0, 1, 2, 3))
    project.change_classes((), ["tulip=rose"], ["moss"])
    for again in (project, LabelProject.open(folder)):
        assert again.classes == ["daisy", "rose"]
        assert {n: again.labels.get(n) for n in images} == dict(
            zip(images, (0, 1, 1, None, 1), strict=True)
        )
        assert not again.ledger.is_touched(images[3])
        assert again.labels[numbers["rose/00000.png"]] == 1
        accuracy = again.history.last.accuracy({images[1]: 1, images[2]: 1})  # type: ignore[union-attr]
        assert (accuracy.value, accuracy.n) == (0.5, 2)  # type: ignore[union-attr]
        assert (again.class_id("tulip"), again.class_id("rose")) == (1, 1)
        with pytest.raises(UnknownNameError):
            again.class_id("moss")
    np.testing.assert_allclose(project.guesses.proba, [[1 / 6, 5 / 6]], rtol=1e-6)
    project.change_classes(["rose=Rosa"])  # the other half keeps the name of the whole
    assert project.class_id("tulip") == project.class_id("Rosa") == 1
    project.add_classes(["moss"])  # a new one, without what the old one had
    assert project.labels.get(images[3]) is None
    give(project, images[3], 2)
    project.close()
    last = LabelProject.open(folder)
    assert last.classes == ["daisy", "Rosa", "moss"]
    assert [last.labels[n] for n in images] == [0, 1, 1, 2, 1]


def test_a_merger_of_what_there_is_not_changes_nothing(folder: Path) -> None:
    project = LabelProject.open(folder, ["daisy", "tulip", "rose"])
    for mergers, removals in (
        (["daisy=daisy"], []),
        (["tulip=rose", "daisy=lily"], []),
        (["tulip=rose"], ["daisy"]),
        ([], ["daisy", "rose"]),
        (["tulip"], []),
    ):
        with pytest.raises(UsageError):
            project.change_classes([], mergers, removals)
        assert project.classes == ["daisy", "tulip", "rose"]
    assert LabelProject.open(folder).classes == ["daisy", "tulip", "rose"]


def test_class_folders_are_the_classes_and_their_images_are_labelled(folder: Path) -> None:
    project = LabelProject.open(folder)
    assert project.classes == ["daisy", "rose"]
    numbers = by_path(project)
    assert project.labels == {
        numbers[f"{name}/{n:05d}.png"]: label
        for label, name in enumerate(project.classes)
        for n in range(4)
    }
    assert len(project.pool) == 300
    assert not project.pool & project.labels.keys()


def test_with_classes_given_other_folders_are_but_places(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    project = LabelProject.open(folder, ["rose", "tulip"])
    assert project.classes == ["rose", "tulip"]
    assert set(project.labels.values()) == {0}
    assert len(project.labels) == 4
    assert len(project.pool) == 304
    told = "the folder 'daisy' is not a class: its 4 images count as unlabelled"
    for create in (True, False):
        LabelProject.open(folder, create=create).close()
    assert caplog.messages.count(told) == 1  # not by each command


def test_of_many_folders_that_are_no_class_ten_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    write_images(tmp_path / "all", pictures(13), [f"{n:02d}/{n}.png" for n in range(13)])
    LabelProject.open(tmp_path / "all", ["rose", "tulip"]).close()
    assert sum("is not a class: its 1 image counts" in message for message in caplog.messages) == 10
    assert "... and 3 more folders are not classes, with 3 images" in caplog.messages


def test_a_label_given_by_hand_wins_over_the_class_folder(folder: Path) -> None:
    project = LabelProject.open(folder)
    image = by_path(project)["rose/00000.png"]
    give(project, image, 0)
    assert project.labels[image] == 0
    give(project, image, None)
    assert image not in project.labels


def test_numbers_stay_when_images_come_and_go(folder: Path) -> None:
    before = LabelProject.open(folder).paths
    write_images(folder, pictures(2, 3), ["00000a.png", "zzz.png"])
    (folder / "00007.png").unlink()
    after = LabelProject.open(folder).paths
    gone = {number for number, path in before.items() if path == "00007.png"}
    assert {n: path for n, path in before.items() if n not in gone}.items() <= after.items()
    assert gone.isdisjoint(after)
    assert {after[n] for n in after.keys() - before.keys()} == {"00000a.png", "zzz.png"}


def test_numbers_are_those_of_sorted_paths(folder: Path) -> None:
    paths = LabelProject.open(folder).paths
    assert [paths[n] for n in sorted(paths)] == sorted(paths.values())
    assert sorted(paths) == list(range(308))


def test_labels_go_with_a_file_that_is_moved(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    project = LabelProject.open(folder)
    image, reserve = by_path(project)["00011.png"], project.reserve
    give(project, image, 1)
    project.close()
    (folder / "unlabeled").mkdir()
    (folder / "00011.png").rename(folder / "unlabeled/renamed.png")

    again = LabelProject.open(folder)
    assert again.paths[image] == "unlabeled/renamed.png"
    assert again.labels[image] == 1
    assert "1 labelled image was moved and keeps its label" in caplog.messages
    assert again.reserve == reserve


def test_labels_of_a_file_that_is_gone_do_not_count_and_that_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = LabelProject.open(folder)
    image = by_path(project)["00011.png"]
    give(project, image, 1, source="test")
    for name in ("00011.png", "00012.png"):
        (folder / name).unlink()
    again = LabelProject.open(folder)
    assert image not in again.labels
    assert again.test_labels == {}
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "2 images of the project are missing, and 1 of them" in warning.getMessage()


def labelled(folder: Path) -> dict[str, tuple[str, bytes]]:
    """What holds, by path: the class, and what the file has in it. Each file can be labelled."""
    project = LabelProject.open(folder)
    files = [path for path in folder.rglob("*.*") if ".skal" not in path.parts]
    assert {folder / path for path in project.paths.values()} == {*files}
    found = {
        project.paths[n]: (project.classes[label], (folder / project.paths[n]).read_bytes())
        for n, label in project.labels.items()
    }
    project.close()
    return found


LONG_AGO = 1_700_000_000  # seconds since 1970, before any label here


@pytest.fixture
def half_labelled(tmp_path: Path) -> Path:
    """Images 0 to 9, of which the even ones are labelled, all in files of the same size."""
    folder = tmp_path / "same"
    folder.mkdir()
    for n, grey in enumerate(pictures(10)):
        Image.fromarray(grey).save(folder / f"{n}.bmp")
        os.utime(folder / f"{n}.bmp", (LONG_AGO + n, LONG_AGO + n))
    assert len({path.stat().st_size for path in folder.iterdir()}) == 1
    project = LabelProject.open(folder, ["daisy", "rose"])
    for name, image in by_path(project).items():
        if int(name[0]) % 2 == 0:
            give(project, image, int(name[0]) // 2 % 2)
    project.close()
    return folder


@pytest.mark.parametrize("same_size", [True, False])
def test_labels_go_with_files_whose_names_were_exchanged(
    half_labelled: Path, caplog: pytest.LogCaptureFixture, same_size: bool
) -> None:
    folder = half_labelled
    before = labelled(folder)
    assert len(before) == 5
    if not same_size:  # then no file need be read to see it
        (folder / "9.bmp").write_bytes((folder / "9.bmp").read_bytes() + b"\0")
    for one, other in ((0, 2), (4, 9)):  # labelled both, and one
        a, b, c = (folder / name for name in (f"{one}.bmp", f"{other}.bmp", "hand.bmp"))
        a.rename(c)
        b.rename(a)
        c.rename(b)
    caplog.set_level(logging.INFO, "skal")
    after = labelled(folder)
    assert sorted(after.values()) == sorted(before.values())
    assert after["2.bmp"] == before["0.bmp"] and after["9.bmp"] == before["4.bmp"]
    assert "4.bmp" not in after
    assert "3 labelled images were moved and keep their labels" in caplog.messages
    assert labelled(folder) == after
    assert len(LabelProject.open(folder, create=False).paths) == 10


def test_labels_go_with_files_that_were_numbered_anew(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    before = labelled(folder)
    for n in range(3, 10):  # 2 is gone, the others close the gap
        (folder / f"{n}.bmp").rename(folder / f"{n - 1}.bmp")
    after = labelled(folder)
    gone = before.pop("2.bmp")
    assert sorted(after.values()) == sorted(before.values())
    assert {*after} == {"0.bmp", "3.bmp", "5.bmp", "7.bmp"}
    assert (
        "1 of them has a label that does not count while the file is missing (the first: 2.bmp)"
        in caplog.text
    )
    (folder / "again.bmp").write_bytes(gone[1])
    assert labelled(folder) == {**after, "again.bmp": gone}


def test_a_labelled_file_that_was_edited_keeps_its_label_and_that_is_told_once(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    Image.new("L", (30, 20)).save(folder / "4.bmp")
    LabelProject.open(folder, create=False).close()
    assert labelled(folder)["4.bmp"][0] == "daisy"
    told = "1 labelled image has changed since labelling (4.bmp)"
    assert caplog.text.count(told) == 2  # nothing is written where nothing is to be
    labelled(folder)
    assert caplog.text.count(told) == 2


def test_edited_files_keep_their_labels_whatever_else_is_alike_or_exchanged(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    labelled(folder)
    os.utime(shutil.copy(folder / "4.bmp", folder / "7.bmp"), (LONG_AGO, LONG_AGO))
    for n in (4, 6, 8):
        Image.open(folder / f"{n}.bmp").rotate(180).save(folder / f"{n}.bmp")
    for one, other in (("0.bmp", "hand.bmp"), ("2.bmp", "0.bmp"), ("hand.bmp", "2.bmp")):
        (folder / one).rename(folder / other)
    classes = {name: label for name, (label, _) in labelled(folder).items()}
    assert classes == {"0.bmp": "rose", "2.bmp": "daisy", "7.bmp": "daisy"} | {
        "6.bmp": "rose",
        "8.bmp": "daisy",
    }
    assert "2 labelled images have changed since labelling" in caplog.text


def test_files_that_were_edited_by_what_keeps_their_times_keep_their_labels(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    for n in range(10):
        Image.open(folder / f"{n}.bmp").rotate(180).save(folder / f"{n}.bmp")
        os.utime(folder / f"{n}.bmp", (LONG_AGO + n, LONG_AGO + n))
    assert len(labelled(folder)) == 5
    told = "5 labelled images have changed since labelling"
    assert f"{told} (0.bmp, 2.bmp, 4.bmp, 6.bmp, 8.bmp)" in caplog.text


def test_pages_of_a_file_that_was_edited_by_what_keeps_its_time_keep_their_labels(
    tmp_path: Path,
) -> None:
    def write_pages(seed: int) -> None:
        first, *others = map(Image.fromarray, pictures(3, seed))
        first.save(tmp_path / "a.tif", save_all=True, append_images=others)
        os.utime(tmp_path / "a.tif", (LONG_AGO, LONG_AGO))

    write_images(tmp_path, pictures(6))
    write_pages(1)
    project = LabelProject.open(tmp_path, ["daisy", "rose"], {"pages": "all"})
    pages = [n for path, n in by_path(project).items() if path.startswith("a.tif#")]
    for n in pages:
        give(project, n, 1)
    project.close()
    write_pages(2)
    others = [path for path in tmp_path.iterdir() if path.is_file() and path.name != "a.tif"]
    for other in others[:4]:  # which did not come in their places
        other.unlink()
    project = LabelProject.open(tmp_path)
    assert len(pages) == 3 and {*pages} == {*project.labels}
    project.close()


def test_a_label_does_not_go_to_an_older_file_that_was_moved_over_its_own(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    before = labelled(folder)
    (folder / "3.bmp").replace(folder / "4.bmp")
    other = Image.open(folder / "6.bmp").rotate(180)
    after = labelled(folder)
    gone = before.pop("4.bmp")
    assert after == before == labelled(folder)
    assert "1 labelled image was replaced by another image (the first: 4.bmp)" in caplog.text
    assert (
        "1 of them has a label that does not count while the file is missing (the first: 4.bmp)"
        in caplog.text
    )
    for n in (0, 2, 6):  # more than were lost: edited, and not moved
        other.save(folder / f"{n}.bmp")
        os.utime(folder / f"{n}.bmp", (LONG_AGO, LONG_AGO))
    assert {*labelled(folder)} == {*before}
    (folder / "4.bmp").write_bytes(gone[1])
    assert labelled(folder)["4.bmp"] == gone


def test_the_time_of_a_file_may_be_one_that_no_store_holds(half_labelled: Path) -> None:
    folder = half_labelled
    project = LabelProject.open(folder)
    for name in ("2.bmp", "3.bmp"):
        os.utime(folder / name, ns=(10**19, 10**19))  # of the year 2286
        give(project, by_path(project)[name], 1)
    project.close()
    before = labelled(folder)
    assert {"2.bmp", "3.bmp"} <= {*before}
    (folder / "3.bmp").rename(folder / "moved.bmp")
    before["moved.bmp"] = before.pop("3.bmp")
    assert labelled(folder) == before


def test_a_label_is_found_in_the_place_of_one_image_of_very_many(tmp_path: Path) -> None:
    folder = tmp_path / "day"
    folder.mkdir()
    for n in range(AT_START + 50):
        Image.new("L", (16, 16), n).save(folder / f"{n}.bmp")
        os.utime(folder / f"{n}.bmp", (LONG_AGO, LONG_AGO))
    project = LabelProject.open(tmp_path, ["daisy", "rose"])
    give(project, by_path(project)["day/0.bmp"], 0)
    project.close()
    ((_, found),) = labelled(tmp_path).items()
    (folder / "0.bmp").rename(folder / "7.bmp")
    assert labelled(tmp_path) == {"day/7.bmp": found}


def test_no_more_files_are_read_at_a_start_than_are_said() -> None:
    assert first_read([1, 2, 3]) == 3
    assert first_read([1] * (AT_START + 1)) == AT_START
    assert first_read([BYTES_AT_START - 1, 1, 1]) == 2
    assert first_read([BYTES_AT_START + 1, 1]) == 0


def test_what_another_process_found_meanwhile_is_not_found_again(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    before = labelled(folder)

    class Later(Store):
        """One in which nothing is written before another process has."""

        is_late = False

        @contextmanager
        def transaction(self) -> Iterator[None]:
            if self.is_late:
                self.is_late = False
                labelled(folder)
            with super().transaction():
                yield

    (folder / "3.bmp").rename(folder / "4.bmp")
    caplog.clear()
    store = Later(folder / ".skal/labels.sqlite")
    labels = {action.image: action for action in store.actions()}
    numbering = Numbering(
        store, Contents(folder, store), labels, is_read_only=False, is_quiet=False
    )
    store.is_late = True
    paths = numbering.of(sorted(path.name for path in folder.glob("*.bmp")))
    told = "1 labelled image was replaced by another image (the first: 4.bmp); label the new image"
    assert caplog.messages.count(told) == 1
    assert not any(NOWHERE in message for message in caplog.messages)
    assert [path for path in store.images().values() if NOWHERE in path] == [f"{NOWHERE}4.bmp"]
    assert "4.bmp" in paths.values()
    store.close()
    before.pop("4.bmp")
    assert labelled(folder) == before


def exchanged(folder: Path, before: dict[str, tuple[str, bytes]], *names: str) -> None:
    """See that only images with these names lost their labels, and to none of the others."""
    after = labelled(folder)
    assert after == {name: found for name, found in before.items() if name not in names}
    assert labelled(folder) == after


@pytest.mark.parametrize("copy", [shutil.copy, shutil.copy2])
@pytest.mark.parametrize("of", ["3.bmp", "6.bmp"])
def test_a_copy_of_another_image_gets_no_label_of_that_which_was_there(
    half_labelled: Path, copy: Callable[[Path, Path], Any], of: str
) -> None:
    folder = half_labelled
    before = labelled(folder)
    copy(folder / of, folder / "4.bmp")
    exchanged(folder, before, "4.bmp")


def test_a_label_goes_with_its_file_to_the_place_of_an_image_without_one(
    half_labelled: Path,
) -> None:
    folder = half_labelled
    before = labelled(folder)
    (folder / "4.bmp").rename(folder / "3.bmp")
    before["3.bmp"] = before.pop("4.bmp")
    assert labelled(folder) == before


def test_an_image_that_was_exchanged_and_labelled_in_its_new_place_has_no_label_in_the_old(
    half_labelled: Path,
) -> None:
    folder = half_labelled
    before = labelled(folder)
    project = LabelProject.open(folder)
    for one, other in (("3.bmp", "hand.bmp"), ("4.bmp", "3.bmp"), ("hand.bmp", "4.bmp")):
        (folder / one).rename(folder / other)
    give(project, by_path(project)["3.bmp"], 0)
    project.close()
    before["3.bmp"] = before.pop("4.bmp")
    assert labelled(folder) == before


def test_of_images_that_are_alike_labels_go_by_their_names(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        path = tmp_path / "may/monday" / f"{name}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path)
        os.utime(path, (LONG_AGO, LONG_AGO))
    project = LabelProject.open(tmp_path, ["daisy", "rose", "tulip"])
    for name, label in (("c", 2), ("a", 0), ("b", 1)):
        give(project, by_path(project)[f"may/monday/{name}.bmp"], label)
    project.close()
    (tmp_path / "may/monday").rename(tmp_path / "may/tuesday")
    after = {name: label for name, (label, _) in labelled(tmp_path).items()}
    names = ("a", "b", "c")
    classes = ("daisy", "rose", "tulip")
    assert after == {f"may/tuesday/{n}.bmp": label for n, label in zip(names, classes, strict=True)}


def test_newer_versions_of_all_images_keep_their_labels(half_labelled: Path) -> None:
    folder = half_labelled
    before = labelled(folder)
    (folder / "9.bmp").unlink()
    for n in range(9):  # as who copies a folder keeps times, but not those of before
        Image.open(folder / f"{n}.bmp").resize((50, 50)).save(folder / f"{n}.bmp")
        os.utime(folder / f"{n}.bmp", (LONG_AGO + 50 * n, LONG_AGO + 50 * n))
    after = labelled(folder)
    assert {name: label for name, (label, _) in after.items()} == {
        name: label for name, (label, _) in before.items()
    }


def test_a_label_that_was_given_anew_after_an_edit_stays_where_it_was_given(
    half_labelled: Path,
) -> None:
    folder = half_labelled
    project = LabelProject.open(folder)
    shutil.copy(folder / "0.bmp", folder / "original.bmp")
    Image.new("L", (40, 40)).save(folder / "0.bmp")
    give(project, by_path(project)["0.bmp"], 1)
    project.close()
    after = labelled(folder)
    assert after["0.bmp"] == ("rose", (folder / "0.bmp").read_bytes())
    assert "original.bmp" not in after and len(after) == 5


def test_an_answer_to_another_picture_than_that_of_somebody_else_is_told(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    project = LabelProject.open(folder)
    project.record([Action("ben", "label", by_path(project)["2.bmp"], 1, round=0)])
    for name in ("0.bmp", "4.bmp"):
        shutil.copy(folder / "1.bmp", folder / name)
    project.record([Action("ben", "label", by_path(project)["0.bmp"], 1, round=0)])
    give(project, by_path(project)["4.bmp"], 1)  # whose own answer it replaces
    project.close()
    assert caplog.messages == [
        "0.bmp has changed since another person labelled it; check it in the review, "
        "because both answers count"
    ]


def test_labels_go_with_folders_whose_names_were_exchanged(tmp_path: Path) -> None:
    for n, grey in enumerate(pictures(8)):
        path = tmp_path / ("monday", "tuesday")[n % 2] / f"{n // 2}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grey).save(path)
        os.utime(path, (LONG_AGO, LONG_AGO))
    project = LabelProject.open(tmp_path, ["daisy", "rose"])
    for path, image in by_path(project).items():
        give(project, image, int(path.startswith("tuesday")))
    project.close()
    before = labelled(tmp_path)
    for one, other in (("monday", "hand"), ("tuesday", "monday"), ("hand", "tuesday")):
        (tmp_path / one).rename(tmp_path / other)
    after = labelled(tmp_path)
    assert sorted(after.values()) == sorted(before.values())
    assert after["monday/1.bmp"] == before["tuesday/1.bmp"]


def test_where_files_got_other_names_labels_of_images_that_were_not_read_are_told(
    half_labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = half_labelled
    project = LabelProject.open(folder)
    unread = by_path(project)["3.bmp"]
    project.store.append([Action("me", "label", unread, 1, round=0)])  # as a crash leaves it
    for one, other in (("0.bmp", "hand.bmp"), ("2.bmp", "0.bmp"), ("hand.bmp", "2.bmp")):
        (folder / one).rename(folder / other)
    again = LabelProject.open(folder)
    assert "1 labelled image was not hashed before" in caplog.text and "3.bmp" in caplog.text
    assert unread not in again.store.contents()


def test_labels_go_with_moved_files_also_after_a_crash(folder: Path) -> None:
    """Nobody closed the project: the terminal was shut, or the power went."""
    project = LabelProject.open(folder)
    images = [by_path(project)[f"{n:05d}.png"] for n in range(6)]
    project.store.append([Action("me", "label", n, 1, round=0) for n in images])
    LabelProject.open(folder)  # what was not written then is written at the next start
    (folder / "moved").mkdir()
    for path in folder.glob("*.png"):
        path.rename(folder / "moved" / path.name)
    again = LabelProject.open(folder)
    assert set(images) <= again.labels.keys()


def test_of_many_labelled_images_nobody_waits_until_all_are_read(folder: Path) -> None:
    project = LabelProject.open(folder)
    images = sorted(project.pool)[:100]
    contents = Contents(folder, project.store, at_once=3)
    contents.write(project.paths, images)
    assert len(project.store.contents()) >= 3
    contents.finish()
    n_read = len(project.store.contents())
    while n_read < len(images):
        contents = Contents(folder, project.store, at_once=3)
        contents.write(project.paths, images)
        contents.finish()
        assert len(project.store.contents()) > n_read
        n_read = len(project.store.contents())
    assert sorted(project.store.contents()) == images


def test_what_tells_a_file_from_others_is_written_as_labels_come_in(folder: Path) -> None:
    project = LabelProject.open(folder)
    image = by_path(project)["00011.png"]
    give(project, image, 1)
    end = time.monotonic() + 60
    while image not in project.store.contents():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_test_image_stays_one_whatever_is_said_of_it_later(folder: Path) -> None:
    project = LabelProject.open(folder)
    image, shown_alone = project.reserve[:2]
    give(project, image, 1, source="test")
    project.add_batch([BatchRow(0, 0, shown_alone, "test", False)])
    for number in (image, shown_alone):
        give(project, number, 0, source="import")
    assert project.test_labels == {image: 0, shown_alone: 0}
    assert not project.training_labels.keys() & {image, shown_alone}
    assert LabelProject.open(folder).test_labels == project.test_labels


def test_a_class_is_renamed_with_its_labels_and_its_folder(folder: Path) -> None:
    project = LabelProject.open(folder)
    image = by_path(project)["00011.png"]
    give(project, image, 1)
    before = dict(project.labels)
    project.change_classes(["rose=Rosa"])
    project.close()
    again = LabelProject.open(folder)
    assert again.classes == ["daisy", "Rosa"]
    assert again.labels == before  # those of the folder "rose", too
    for old, new, error in (
        ("rose", "x", UnknownNameError),
        ("daisy", "rosa", UsageError),
        ("daisy", "a/b", UsageError),
    ):
        with pytest.raises(error):
            again.change_classes([f"{old}={new}"])
    assert again.classes == ["daisy", "Rosa"]


def test_every_project_has_an_id_of_its_own(folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "other", pictures(2))
    ids = [LabelProject.open(p, ["daisy", "rose"]).id for p in (folder, tmp_path / "other", folder)]
    assert ids[0] == ids[2] != ids[1]


def test_a_power_loss_does_not_take_the_new_folder_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    LabelProject.open(folder)
    assert folder in synced
    assert folder / ".skal" in synced


def found_in(folder: Path) -> dict[str, bytes]:
    """Return what is written there, without what SQLite needs while it reads."""
    beside = ("-shm", "-wal")
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith(beside)}


def test_who_only_reads_writes_nothing(folder: Path) -> None:
    project = LabelProject.open(folder, settings={"seed": 4})
    give(project, by_path(project)["00011.png"], 1)
    reserve = set(project.reserve)
    project.close()
    before = found_in(folder / ".skal")
    write_images(folder, pictures(1, 5), ["new.png"])
    reading = LabelProject.open(folder, ["tulip"], {"n_query": 3}, create=False)
    assert reading.classes == ["daisy", "rose", "tulip"]
    assert "new.png" in reading.paths.values()
    assert len(reading.labels) == len(project.labels)
    assert reserve <= set(reading.reserve)
    reading.close()
    assert found_in(folder / ".skal") == before


def test_a_drive_that_cannot_be_written_to_can_be_read(folder: Path) -> None:
    project = LabelProject.open(folder)
    give(project, by_path(project)["00011.png"], 1)
    project.close()
    asked = []

    class Refusing:
        def execute(self, _: str) -> None:
            raise sqlite3.OperationalError("unable to open database file")

        def close(self) -> None:
            pass

    def connect(address: str, **options: Any) -> Any:
        asked.append(address)
        return sqlite3.connect(address, **options) if "immutable" in address else Refusing()

    store = Store(folder / ".skal/labels.sqlite", read_only=True, connect=connect)
    assert [action.label for action in store.actions()] == [1]
    assert len(asked) == 2


def test_what_fails_leaves_no_project_and_no_class(folder: Path, tmp_path: Path) -> None:
    for name in ("daisy", "rose"):
        write_images(tmp_path / "full" / name, pictures(2))
    with pytest.raises(UsageError, match="nothing is left to label"):
        LabelProject.open(tmp_path / "full", needs_pool=True)
    assert not (tmp_path / "full/.skal").exists()
    first = LabelProject.open(folder, alone=True)
    with pytest.raises(RunFolderError, match="is being labelled by another process"):
        LabelProject.open(folder, ["weed"], alone=True)
    first.close()
    assert LabelProject.open(folder, alone=True).classes == ["daisy", "rose"]


def test_an_accuracy_of_few_answers_is_no_figure() -> None:
    assert str(Accuracy.of(2, 2)).startswith("too early to say: 2 randomly drawn test images")
    assert str(Accuracy.of(9, 12)).startswith("0.468 to 0.911 at 95 %")
    assert str(Accuracy.of(36, 40)).startswith("0.900 (0.769 to 0.960 at 95 %")


def test_a_long_curve_is_thinned(folder: Path) -> None:
    project = LabelProject.open(folder)
    give(project, project.reserve[0], 1, source="test")
    with project.store.transaction():
        for n in range(200):
            project.add_model(model(project, n, [n % 2]))
    curve = project.curve
    assert len(curve) == 40
    assert [curve[0][0], curve[-1][0]] == [0, 199]
    assert project.curve is curve  # not computed anew at every question
    give(project, project.reserve[0], 0, source="test")
    assert project.curve != curve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a é 花.png", "a é 花.png"),
        ("a\x1b[31m\x07\n.png", r"a\x1b[31m\x07\n.png"),
        ("a\x9b31m\u202egnp.b", r"a\x9b31m\u202egnp.b"),
        ("9.41\u202fAM\u3000\u200d.png", "9.41\u202fAM\u3000\u200d.png"),  # as systems name them
    ],
)
def test_a_terminal_is_shown_what_it_cannot_obey(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_tenth_of_the_pool_is_kept_for_the_test(folder: Path) -> None:
    project = LabelProject.open(folder)
    assert set(project.reserve) <= project.pool
    low, high = binomtest(30, 300).proportion_ci(0.999)
    assert low < len(project.reserve) / 300 < high
    assert project.reserve != sorted(project.reserve)


def test_which_images_are_kept_for_the_test_does_not_depend_on_others(folder: Path) -> None:
    before = LabelProject.open(folder).reserve
    write_images(folder, pictures(200, 3), [f"new{n}.png" for n in range(200)])
    after = LabelProject.open(folder).reserve
    assert [n for n in after if n in set(before)] == before
    assert len(after) > len(before)


def test_another_seed_keeps_other_images(folder: Path) -> None:
    first = LabelProject.open(folder, create=False).reserve
    second = LabelProject.open(folder, settings={"seed": 1}, create=False).reserve
    assert set(first) != set(second)


def test_test_labels_are_not_trained_on(folder: Path) -> None:
    project = LabelProject.open(folder)
    image, other = project.reserve[0], min(project.pool - set(project.reserve))
    give(project, image, 1, source="test")
    give(project, other, 0)
    assert project.test_labels == {image: 1}
    assert project.training_labels.keys() == project.labels.keys() - {image}
    assert project.training_labels[other] == 0


def model(project: LabelProject, n_labeled: int, predicted: list[int]) -> ModelRow:
    images = np.array(project.reserve[: len(predicted)], dtype=np.int64)
    return ModelRow(n_labeled, 1.0, images.tobytes(), np.array(predicted, np.int64).tobytes())


def test_accuracy_is_that_of_the_last_network_on_the_test_labels_so_far(folder: Path) -> None:
    project = LabelProject.open(folder)
    assert project.accuracy is None
    project.add_model(model(project, 10, [0, 0, 0, 0]))
    assert project.accuracy is None
    project.add_model(model(project, 20, [0, 1, 1, 0]))
    for image, label in zip(project.reserve[:3], [0, 1, 0], strict=True):
        give(project, image, label, source="test")
    assert project.accuracy is not None
    assert project.accuracy[:] == pytest.approx(Accuracy.of(2, 3))
    # all networks are compared on the same images, those of today
    assert [(n, point.n) for n, point in project.curve] == [(10, 3), (20, 3)]
    assert project.curve[0][1].value == pytest.approx(2 / 3)
    assert LabelProject.open(folder).accuracy == project.accuracy


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (3, 10), (36, 40), (40, 40)])
def test_the_interval_is_wilsons(n_right: int, n: int) -> None:
    accuracy = Accuracy.of(n_right, n)
    expected = binomtest(n_right, n).proportion_ci(method="wilson")
    assert accuracy.value == n_right / n
    assert accuracy.low == pytest.approx(expected.low, abs=1e-12)
    assert accuracy.high == pytest.approx(expected.high, abs=1e-12)


def test_settings_are_kept_and_the_later_ones_win(folder: Path) -> None:
    given = {"strategy": "bald", "strategy_params": {"n_samples": 5}, "n_query": 7, "epochs": 3}
    LabelProject.open(folder, settings=given, overlap="10%").close()
    project = LabelProject.open(folder, settings={"n_query": 9})
    assert project.config.strategy == "bald"
    assert project.config.strategy_params == {"n_samples": 5}
    assert (project.n_query, project.config.epochs, project.terms.overlap) == (9, 3, 0.1)
    project.close()
    other = LabelProject.open(folder, settings={"strategy": "margin", "steps": 5})
    assert other.config.strategy_params == {}
    assert (other.config.steps, other.config.epochs) == (5, None)


def test_the_first_images_are_diverse_unless_said_otherwise(folder: Path) -> None:
    assert LabelProject.open(folder, create=False).config.init_strategy == "herding"


def test_classes_may_be_added_and_keep_their_ids(folder: Path) -> None:
    LabelProject.open(folder).close()
    project = LabelProject.open(folder, ["tulip", "daisy"])
    assert project.classes == ["daisy", "rose", "tulip"]
    assert LabelProject.open(folder).classes == ["daisy", "rose", "tulip"]


def test_a_running_project_sees_what_another_process_adds(folder: Path) -> None:
    here = LabelProject.open(folder)
    there = LabelProject.open(folder, ["tulip"])
    image = min(there.pool)
    give(there, image, 2)
    here.refresh()
    assert here.labels[image] == 2
    assert here.classes == ["daisy", "rose", "tulip"]


def test_what_holds_is_known_as_who_opens_the_project_anew_knows_it(folder: Path) -> None:
    project, rng = LabelProject.open(folder), np.random.default_rng(0)
    ids: list[tuple[int, int]] = []
    numbers = by_path(project)
    images = [numbers[f"{n:05d}.png"] for n in range(8)] + sorted(project.folder_labels)
    for image in images[:3]:
        project.add_batch([BatchRow(0, image, image, "test", False)])
    for _ in range(40):
        for image in rng.choice(images, 3).tolist():
            who, label = f"{rng.integers(2)}", int(rng.integers(2))
            action = str(rng.choice(["label", "label", "label", "skip", "bad", "unsure", "undo"]))
            if action == "undo" and ids:
                undoes, image = ids.pop()
                said = Action(who, "undo", image, undoes=undoes, round=0)
            else:
                action = "skip" if action == "undo" else action
                said = Action(who, action, image, label if action == "label" else None, round=0)
            (number,) = project.record([said])
            if said.action != "undo":
                ids.append((number, image))
        anew = LabelProject.open(folder, create=False)
        assert [[*part.items()] for part in project.known] == [
            [*part.items()] for part in anew.known
        ]
        anew.close()


def test_labels_that_somebody_keeps_stay_as_they_were(folder: Path) -> None:
    project = LabelProject.open(folder)
    first, second = sorted(project.pool)[:2]
    give(project, first, 0)
    kept = project.labels
    give(project, first, 1)
    give(project, second, 1)
    assert (kept[first], second in kept) == (0, False)
    assert (project.labels[first], project.labels[second]) == (1, 1)


def test_without_create_nothing_is_written(folder: Path) -> None:
    LabelProject.open(folder, create=False).close()
    assert not (folder / ".skal").exists()


def test_given_test_images_take_no_part(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("daisy", "rose"):
            write_images(tmp_path / part / name, pictures(2))
    write_images(tmp_path / "unlabeled", pictures(3))
    project = LabelProject.open(tmp_path)
    assert sorted({path.split("/")[0] for path in project.paths.values()}) == [
        "train",
        "unlabeled",
    ]
    assert len(project.labels) == 4


def test_names_of_classes_are_taken_as_they_are_meant() -> None:
    assert check_classes([" daisy ", "rosé", "ox-eye daisy"]) == ["daisy", "rosé", "ox-eye daisy"]
    assert check_classes(["rose\N{COMBINING ACUTE ACCENT}"]) == ["rosé"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "the class 'a' is named twice"),
        (["Daisy", "daisy"], "the class 'daisy' differs from 'Daisy' only in case"),
        (["a", ""], "the class '' has 0 characters"),
        (["a/b"], "cannot be a folder's name"),
        ([".."], "cannot be a folder's name"),
        (["a\nb"], "cannot be a folder's name"),
        (["unlabeled"], "is the name of the folder for unlabelled images"),
        (["x" * 101], "has 101 characters"),
    ],
)
def test_names_that_cannot_be_classes_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_classes(names)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"strategy": "badg"}, UnknownNameError, "did you mean badge"),
        ({"model": "resnet"}, UnknownNameError, "did you mean resnet"),
        ({"n_query": 0}, ParameterError, "n_query"),
        ({"init_strategy": "stratified"}, ParameterError, "stratified"),
        ({"steps": 1, "epochs": 1}, ParameterError, "steps or epochs"),
    ],
)
def test_settings_that_are_not_valid_are_told(
    folder: Path, settings: dict[str, object], error: type[SkalError], message: str
) -> None:
    with pytest.raises(error, match=message):
        LabelProject.open(folder, settings=settings)
    assert not (folder / ".skal").exists()


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(FolderNotFoundError, match="does not exist"):
        LabelProject.open(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(FolderNotFoundError, match="is a file"):
        LabelProject.open(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        LabelProject.open(tmp_path / "empty", ["a", "b"])


def test_a_project_needs_two_classes(tmp_path: Path) -> None:
    write_images(tmp_path, pictures(3))
    with pytest.raises(UsageError, match="there are no classes; expected at least two"):
        LabelProject.open(tmp_path)
    with pytest.raises(UsageError, match="only the class 'a'"):
        LabelProject.open(tmp_path, ["a"])
    assert not (tmp_path / ".skal").exists()
    LabelProject.open(tmp_path, create=False, needs_classes=False)


def test_an_unreadable_settings_file_is_named(folder: Path) -> None:
    LabelProject.open(folder, settings={"strategy": "margin"}).close()
    path = folder / ".skal/project.toml"
    for content in ("strategy = [", "", path.read_text().replace("margin", "margim")):
        path.write_text(content)
        with pytest.raises(SkalError, match=r"project\.toml' is (damaged|not TOML)"):
            LabelProject.open(folder)
    path.write_text(signed("strateg = 'badge'\n"))
    with pytest.raises(UnknownNameError, match="did you mean strategy"):
        LabelProject.open(folder)


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_labels_that_are_gone_are_told_and_nothing_is_begun_in_their_place(
    folder: Path, left: str
) -> None:
    LabelProject.open(folder).close()
    path = folder / ".skal/labels.sqlite"
    path.unlink()
    if left == "an empty file":
        path.touch()
    with pytest.raises(RunFolderError, match=r"labels\.sqlite' are missing.* to start over"):
        LabelProject.open(folder)
    assert path.exists() is (left == "an empty file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_told(folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot write the labels"):
        LabelProject.open(folder)


def test_guesses_are_read_as_they_were_saved(tmp_path: Path) -> None:
    guesses = Guesses(
        np.array([3, 1]), np.eye(2, dtype=np.float32), np.ones((2, 5), np.float32), 7, "lenet"
    )
    guesses.save(tmp_path / "guesses.npz")
    read = Guesses.load(tmp_path / "guesses.npz")
    assert read is not None
    assert (read.n_labeled, read.model, read.is_of_network) == (7, "lenet", True)
    np.testing.assert_array_equal(read.proba_of(1), [0, 1])
    assert read.proba_of(2) is None
    assert Guesses.load(tmp_path / "none.npz") is None


def test_damaged_guesses_are_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = np.ones((1, 2), np.float32)
    path = tmp_path / "guesses.npz"
    Guesses(np.array([3]), one, one, 7, "lenet").save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(one.tobytes())] ^= 1
    renamed = whole[::-1].replace(b"classes"[::-1], b"glasses"[::-1], 1)[::-1]
    for content in (b"", b"PK torn", whole[:-40], bytes(flipped), renamed):
        caplog.clear()
        path.write_bytes(content)
        assert Guesses.load(path) is None
        assert str(path) in caplog.text
