"""What people do to a folder between two sessions: labels stay with their pictures."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skal.label.project import LabelProject
from skal.label.store import Action

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
