"""What people do to a folder between two sessions: labels stay with their pictures."""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skal.datasets.formats import page_of
from skal.label.images import Contents
from skal.label.numbering import AT_START, COARSE, MOST_TOLD, Numbering
from skal.label.project import LabelProject
from skal.label.store import Action, Store

LONG_AGO = 1_700_000_000  # seconds since 1970, before any label here


class World:
    """A folder of images of one size in bytes; `edits` tells what a picture was made of."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng, self.n = root, random.Random(seed), 0
        self.edits: dict[bytes, bytes] = {}
        for n in range(self.rng.randrange(4, 12)):
            path = root / self.rng.choice(("", "a/", "b/")) / f"{n:03}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.draw(path)
            os.utime(path, (LONG_AGO + n, LONG_AGO + n))

    def draw(self, path: Path) -> None:
        self.n += 1
        pixels = np.random.default_rng(self.n).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(path)

    def files(self) -> list[Path]:
        return sorted(self.root.rglob("*.bmp"))

    def beside(self, path: Path) -> list[Path]:
        return [other for other in self.files() if other.parent == path.parent]

    def is_made_of(self, picture: bytes, other: bytes) -> bool:
        while picture != other and picture in self.edits:
            picture = self.edits[picture]
        return picture == other


def rename(world: World, one: Path, other: Path) -> None:
    one.rename(one.with_name(f"name-{world.rng.random()}.bmp"))


def move_over(world: World, one: Path, other: Path) -> None:
    other.rename(one)


def exchange(world: World, one: Path, other: Path) -> None:
    hand = world.root / "hand"
    for path, to in ((one, hand), (other, one), (hand, other)):
        path.rename(to)


def exchange_folders(world: World, one: Path, other: Path) -> None:
    if world.root not in (one.parent, other.parent) and one.parent != other.parent:
        exchange(world, one.parent, other.parent)


def number_anew(world: World, one: Path, other: Path) -> None:
    files = world.beside(one)
    world.rng.shuffle(files)
    hands = [path.rename(world.root / f"hand-{n}") for n, path in enumerate(files)]
    for n, hand in enumerate(hands):
        hand.rename(one.with_name(f"{n:03}.bmp"))


def remove(world: World, one: Path, other: Path) -> None:
    one.unlink()


def add(world: World, one: Path, other: Path) -> None:
    world.draw(one.with_name(f"new-{world.n}.bmp"))


def edit(world: World, one: Path, other: Path) -> None:
    before = one.read_bytes()
    world.draw(one)
    world.edits[one.read_bytes()] = before


def edit_and_keep_the_time(world: World, one: Path, other: Path) -> None:
    status = one.stat()
    edit(world, one, other)
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit_beside_a_backup(world: World, one: Path, other: Path) -> None:
    shutil.copy2(one, one.with_name(f"backup-{world.n}.bmp"))
    edit(world, one, other)


def copy(world: World, one: Path, other: Path) -> None:
    shutil.copy2(one, one.with_name(f"copy-{len(world.files())}.bmp"))


def copy_over(world: World, one: Path, other: Path) -> None:
    shutil.copy(other, one)


def copy_over_and_keep_the_time(world: World, one: Path, other: Path) -> None:
    one.unlink()
    shutil.copy2(other, one)


DEEDS: tuple[Callable[[World, Path, Path], None], ...] = (
    *(rename, move_over, exchange, exchange_folders, number_anew, remove, add, edit),
    *(edit_and_keep_the_time, edit_beside_a_backup, copy, copy_over, copy_over_and_keep_the_time),
)


def check(world: World, project: LabelProject, given: Mapping[int, tuple[bytes, int]]) -> None:
    """See that each label is one of its picture, or of what was made of it in its place, and that
    none is gone whose picture is there.
    """
    there = {path.read_bytes() for path in world.files()}
    labelled = {}
    for n, label in project.labels.items():
        picture, expected = given[n]
        labelled[n] = (project.root / project.paths[n]).read_bytes()
        assert label == expected
        assert world.is_made_of(labelled[n], picture), project.paths[n]
    for n, (picture, _) in given.items():
        assert n in labelled or picture not in there or picture in labelled.values()


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_labels_stay_with_their_pictures(
    deed: Callable[[World, Path, Path], None], tmp_path: Path
) -> None:
    for seed in range(6):
        world = World(tmp_path / str(seed), seed)
        given: dict[int, tuple[bytes, int]] = {}
        for _ in range(3):
            with closing(LabelProject.open(world.root, ["cat", "dog"])) as project:
                check(world, project, given)
                new = [n for n in project.paths if n not in project.labels]
                for n in world.rng.sample(new, min(len(new), world.rng.randrange(4))):
                    label = world.rng.randrange(2)
                    project.record([Action("ann", "label", n, label)])
                    given[n] = (world.root / project.paths[n]).read_bytes(), label
                for n in project.labels:  # edits that were told and kept count from here on
                    given[n] = (world.root / project.paths[n]).read_bytes(), given[n][1]
            if len(world.files()) > 3:
                deed(world, *world.rng.sample(world.files(), 2))


def draw(path: Path, grey: int, width: int = 8) -> None:
    """Write an image that is as old as it is bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, 8), grey).save(path)
    os.utime(path, (LONG_AGO + grey, LONG_AGO + grey))


def put(path: Path, picture: bytes) -> None:
    """Write another picture to a file whose time stays as it is."""
    status = path.stat()
    path.write_bytes(picture)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap(one: Path, other: Path) -> None:
    hand = one.with_name("hand")
    for path, to in ((one, hand), (other, one), (hand, other)):
        path.rename(to)


def label(root: Path, labels: Mapping[str, int], pages: str = "first") -> None:
    with closing(LabelProject.open(root, ["cat", "dog"], {"pages": pages})) as project:
        numbers = project.numbers
        project.record([Action("ann", "label", numbers[p], n) for p, n in labels.items()])


def labelled(root: Path, *, create: bool = True) -> dict[str, tuple[int, bytes]]:
    """The label of each path, and what its file has in it."""
    with closing(LabelProject.open(root, create=create)) as project:
        labels = {project.paths[n]: label for n, label in project.labels.items()}
    return {p: (label, (root / page_of(p)[0]).read_bytes()) for p, label in labels.items()}


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Images 0 to 9, of the same size in bytes, of which the even ones are labelled."""
    for n in range(10):
        draw(tmp_path / f"{n}.bmp", n)
    label(tmp_path, {f"{n}.bmp": n // 2 % 2 for n in range(0, 10, 2)})
    return tmp_path


def test_labels_go_with_folders_that_were_exchanged_long_after_labelling(tmp_path: Path) -> None:
    """Nothing about a file changes when a folder above it gets another name."""
    days = tmp_path / "a/b/monday", tmp_path / "a/b/tuesday"
    for n, day in enumerate(days):
        draw(day / "c/0.bmp", n)
    draw(tmp_path / "other/0.bmp", 2)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.bmp"))
    label(tmp_path, dict.fromkeys(files, 0))
    before = [(tmp_path / path).read_bytes() for path in files]
    placed = max(path.stat().st_ctime for path in tmp_path.rglob("*"))
    then = datetime.fromtimestamp(placed + COARSE + 0.05, UTC).isoformat()
    while time.time() < placed + 0.1:
        time.sleep(0.01)
    swap(*days)
    with closing(Store(tmp_path / ".skal/labels.sqlite")) as store:
        labels = {n: Action("ann", "label", n, 0, time=then) for n in range(3)}
        contents = Contents(tmp_path, store)
        numbering = Numbering(store, contents, labels, is_read_only=False, is_quiet=True)
        paths = numbering.of(files)
        contents.finish()
    assert [(tmp_path / paths[n]).read_bytes() for n in range(3)] == before


def test_a_label_has_one_place_also_if_its_image_was_copied_over_several(ten: Path) -> None:
    before = labelled(ten)
    for name in ("2.bmp", "4.bmp"):
        shutil.copy(ten / "0.bmp", ten / name)
    (ten / "0.bmp").unlink()
    kept = [before[name] for name in ("0.bmp", "6.bmp", "8.bmp")]
    assert sorted(labelled(ten).values()) == sorted(kept)


def test_the_label_of_an_image_stays_if_another_one_like_it_is_removed(tmp_path: Path) -> None:
    for n in range(2):
        draw(tmp_path / f"{n}.bmp", 7)
    label(tmp_path, {"0.bmp": 0, "1.bmp": 1})
    before = labelled(tmp_path)
    (tmp_path / "0.bmp").unlink()
    draw(tmp_path / "2.bmp", 2)
    assert labelled(tmp_path) == {"1.bmp": before["1.bmp"]}


def test_no_label_stays_where_pictures_were_exchanged_and_times_were_not(ten: Path) -> None:
    before = labelled(ten)
    pictures = [(ten / f"{n}.bmp").read_bytes() for n in range(10)]
    for n, other in ((0, 2), (2, 0), (4, 3)):
        put(ten / f"{n}.bmp", pictures[other])
    (ten / "3.bmp").unlink()
    after = labelled(ten)
    assert after == {"0.bmp": before["2.bmp"], "2.bmp": before["0.bmp"]} | {
        name: before[name] for name in ("6.bmp", "8.bmp")
    }


MANY = AT_START + 40


@pytest.mark.parametrize("shift", [True, False], ids=["numbered anew", "the last two exchanged"])
def test_each_of_very_many_labels_goes_with_its_picture(tmp_path: Path, shift: bool) -> None:
    names = [f"{n:03}.bmp" for n in range(MANY)]
    for n, name in enumerate(names):
        draw(tmp_path / name, n)
    label(tmp_path, {name: n % 2 for n, name in enumerate(names)})
    before = labelled(tmp_path)
    if shift:
        moved = {name: names[n - 1] for n, name in enumerate(names)}
        for name in names:
            (tmp_path / name).rename(tmp_path / f"hand-{name}")
        for name, to in moved.items():
            (tmp_path / f"hand-{name}").rename(tmp_path / to)
    else:
        moved = {name: name for name in names} | {names[-1]: names[-2], names[-2]: names[-1]}
        swap(tmp_path / names[-1], tmp_path / names[-2])
    assert labelled(tmp_path) == {moved[name]: found for name, found in before.items()}


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_label_is_found_although_very_many_other_files_were_changed_later(
    tmp_path: Path, exchanged: bool
) -> None:
    """All are read if files were renamed, and those of other sizes need not be."""
    names = [f"{n:03}.bmp" for n in range(MANY)]
    for n, name in enumerate(names):
        draw(tmp_path / name, n, 8 if exchanged or n in (0, 7) else 16)
    label(tmp_path, {"000.bmp": 1})
    before = labelled(tmp_path)["000.bmp"]
    if exchanged:
        swap(tmp_path / "000.bmp", tmp_path / "007.bmp")
    else:
        (tmp_path / "000.bmp").replace(tmp_path / "007.bmp")
    for n in range(8, MANY):
        os.utime(tmp_path / names[n], (LONG_AGO + n, LONG_AGO + n))
    assert labelled(tmp_path) == {"007.bmp": before}


def test_who_only_reads_sees_labels_where_they_are_after_images_were_added(ten: Path) -> None:
    before = labelled(ten)
    draw(ten / "#first.bmp", 100)
    assert labelled(ten, create=False) == before == labelled(ten)


def write_pages(path: Path, greys: Iterable[int]) -> None:
    first, *others = (Image.new("L", (8, 8), grey) for grey in greys)
    first.save(path, save_all=True, append_images=others)


def test_a_page_that_is_gone_is_missing_and_was_not_edited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "0.bmp", 0)
    write_pages(tmp_path / "a.tif", (1, 2, 3))
    label(tmp_path, {f"a.tif#{n}": 0 for n in (1, 2, 3)}, "all")
    write_pages(tmp_path / "a.tif", (1, 2))
    labelled(tmp_path)
    assert "2 labelled images have changed since labelling (a.tif#1, a.tif#2)" in caplog.text
    assert "1 image of the project is missing, and 1 of them has a label" in caplog.text


def test_pages_are_not_missing_where_their_file_is_the_image_nor_the_other_way_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "0.bmp", 0)
    write_pages(tmp_path / "a.tif", (1, 2, 3))
    caplog.set_level(logging.INFO, "skal")
    for pages in ("first", "all", "first"):
        label(tmp_path, {"0.bmp": 1}, pages)
    assert "missing" not in caplog.text


def test_what_is_told_of_edited_images_is_only_that(
    ten: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    Image.new("L", (30, 20)).save(ten / "4.bmp")
    labelled(ten)
    (told,) = caplog.messages
    assert told.startswith("1 labelled image has changed since labelling (4.bmp); relabel")


@pytest.mark.parametrize(
    ("n", "told"), [(MOST_TOLD, "bmp)"), (MOST_TOLD + 3, "bmp and 3 more)")], ids=["all", "some"]
)
def test_of_many_edited_images_some_are_named_and_the_others_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, n: int, told: str
) -> None:
    names = [f"{k:03}.bmp" for k in range(n)]
    for k, name in enumerate(names):
        draw(tmp_path / name, k)
    label(tmp_path, dict.fromkeys(names, 0))
    for name in names:
        Image.new("L", (30, 20)).save(tmp_path / name)
    labelled(tmp_path)
    assert f"{n} labelled images have changed since labelling (000.bmp, " in caplog.text
    assert f", {MOST_TOLD - 1:03}.{told};" in caplog.text


def test_images_that_were_replaced_or_removed_are_counted(
    ten: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    for name in ("0.bmp", "2.bmp"):
        shutil.copy(ten / "1.bmp", ten / name)
    labelled(ten)
    told = "2 labelled images were replaced by another image (the first: 0.bmp); label"
    assert any(message.startswith(told) for message in caplog.messages)
    are = "2 images of the project are missing, and 2 of them have a label that does not count"
    assert any(message.startswith(are) for message in caplog.messages)


def test_an_image_without_a_label_that_was_removed_is_told(
    ten: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    (ten / "1.bmp").unlink()
    labelled(ten)
    assert caplog.messages == ["1 image of the project is missing"]


def test_only_where_names_were_exchanged_labels_of_unread_images_are_doubted(
    ten: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(LabelProject.open(ten)) as project:
        unread = [project.numbers[f"{n}.bmp"] for n in (1, 3)]
        project.store.append([Action("ann", "label", n, 1) for n in unread])  # as a crash leaves it
    caplog.clear()
    swap(ten / "0.bmp", ten / "2.bmp")
    labelled(ten)
    assert "files were renamed, and 2 labelled images were not hashed before" in caplog.text
    assert "(the first: 1.bmp)" in caplog.text


def test_labels_of_unread_images_are_not_doubted_where_a_file_was_only_moved(
    ten: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(LabelProject.open(ten)) as project:
        project.store.append([Action("ann", "label", project.numbers["1.bmp"], 1)])
    (ten / "0.bmp").rename(ten / "moved.bmp")
    assert {"1.bmp", "moved.bmp"} <= labelled(ten).keys()
    assert "not hashed" not in caplog.text


def take_back(root: Path, path: str) -> None:
    with closing(LabelProject.open(root)) as project:
        image = project.numbers[path]
        (last,) = (action.id for action in project.store.actions() if action.image == image)
        project.record([Action("ann", "undo", image, undoes=last)])
        assert image not in project.labels


@pytest.mark.parametrize("others", [True, False])
def test_an_image_whose_label_was_taken_back_may_be_edited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, others: bool
) -> None:
    for n in range(3):
        draw(tmp_path / f"{n}.bmp", n)
    label(tmp_path, {"0.bmp": 1, **({"1.bmp": 1} if others else {})})
    take_back(tmp_path, "0.bmp")
    Image.new("L", (30, 20)).save(tmp_path / "0.bmp")
    assert len(labelled(tmp_path)) == others
    assert caplog.messages == []


def test_an_image_whose_label_was_taken_back_may_be_moved(ten: Path) -> None:
    label(ten, {"1.bmp": 1})
    take_back(ten, "1.bmp")
    before = labelled(ten)
    (ten / "1.bmp").rename(ten / "moved.bmp")
    assert labelled(ten) == before


def aside(root: Path) -> set[str]:
    with closing(LabelProject.open(root)) as project:
        return {project.paths[n] for n in project.ledger.aside if n in project.paths}


@pytest.mark.parametrize("is_bad", [True, False])
def test_a_label_goes_to_no_file_moved_over_its_own_where_images_without_one_were_edited(
    ten: Path, is_bad: bool
) -> None:
    if is_bad:
        with closing(LabelProject.open(ten)) as project:
            project.record([Action("ann", "bad", project.numbers["1.bmp"])])
    else:
        label(ten, {"1.bmp": 1})
        take_back(ten, "1.bmp")
    before = labelled(ten)
    Image.new("L", (30, 20)).save(ten / "1.bmp")
    (ten / "3.bmp").replace(ten / "4.bmp")
    del before["4.bmp"]
    assert labelled(ten) == before
    assert aside(ten) == ({"1.bmp"} if is_bad else set())


def test_an_answer_other_than_a_label_goes_with_its_picture_too(ten: Path) -> None:
    with closing(LabelProject.open(ten)) as project:
        project.record([Action("ann", "bad", project.numbers["1.bmp"])])
    swap(ten / "1.bmp", ten / "3.bmp")
    assert aside(ten) == {"3.bmp"}


@pytest.mark.parametrize("says", ["skip", "undo"])
def test_a_label_goes_with_its_file_to_the_place_of_an_image_once_answered(
    ten: Path, says: str
) -> None:
    label(ten, {"1.bmp": 1})
    take_back(ten, "1.bmp")
    if says == "skip":
        with closing(LabelProject.open(ten)) as project:
            project.record([Action("ann", "skip", project.numbers["1.bmp"])])
    before = labelled(ten)
    (ten / "4.bmp").replace(ten / "1.bmp")
    before["1.bmp"] = before.pop("4.bmp")
    assert labelled(ten) == before


@pytest.mark.parametrize("before", ["skip", "label and undo"])
def test_a_label_finds_its_file_before_an_image_that_was_alike_and_has_none(
    tmp_path: Path, before: str
) -> None:
    for n in range(6):
        draw(tmp_path / f"{n}.bmp", n)
    with closing(LabelProject.open(tmp_path, ["cat", "dog"])) as project:
        number = project.numbers["4.bmp"]
        if before == "skip":
            project.record([Action("ann", "skip", number)])
        else:
            (done,) = project.record([Action("ann", "label", number, 0)])
            project.record([Action("ann", "undo", number, undoes=done)])
    (tmp_path / "4.bmp").replace(tmp_path / "1.bmp")
    label(tmp_path, {"1.bmp": 1})
    (tmp_path / "1.bmp").rename(tmp_path / "new.bmp")
    assert {path: found for path, (found, _) in labelled(tmp_path).items()} == {"new.bmp": 1}
