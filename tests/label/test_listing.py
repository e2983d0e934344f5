"""Images by the hundred thousand, held without an object for each."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from skal.datasets.index import ImageFile
from skal.label.listing import Files, Numbers, Paths

FOUND = [
    ImageFile("cat/1.png", "train", "cat"),
    ImageFile("dog/1.png", "train", "dog"),
    ImageFile("test/cat/9.png", "test", "cat"),
    ImageFile("caf\udce9.png", "unlabeled", None),  # a name that is no UTF-8
]


def test_files_are_those_that_were_found() -> None:
    files = Files(FOUND)
    assert [*files] == FOUND
    assert files[2] == FOUND[2]
    assert files[1:] == FOUND[1:]
    assert files == Files(FOUND)
    assert files != Files(FOUND[:3])
    assert files.counts()["train", "cat"] == 1
    assert files.paths_but("test") == ["cat/1.png", "dog/1.png", "caf\udce9.png"]


def test_files_are_compared_by_what_their_places_say() -> None:
    before, label = Files(FOUND), "bird"
    assert before != Files([FOUND[0]._replace(label=label), *FOUND[1:]])
    swapped = [ImageFile("a", "train", "x"), ImageFile("b", "train", "y")]
    assert Files(swapped) != Files([swapped[0]._replace(label="y"), swapped[1]._replace(label="x")])


@pytest.mark.parametrize("files", [FOUND, []])
def test_files_come_whole_to_another_process(files: list[ImageFile]) -> None:
    assert [*pickle.loads(pickle.dumps(Files(files)))] == files


def test_of_a_number_the_last_path_counts_and_some_lie_nowhere() -> None:
    paths = Paths.of([(0, "a"), (3, "d"), (1, "b"), (0, "moved")])
    assert dict(paths) == {0: "moved", 1: "b", 3: "d"}
    assert len(paths) == 3
    assert [n in paths for n in (-1, 0, 2, 3, 4)] == [False, True, False, True, False]
    assert paths.numbers() == {"moved": 0, "b": 1, "d": 3}
    assert paths.mask().tolist() == [True, True, False, True]
    for nowhere in (-1, 2, 4):
        with pytest.raises(KeyError):
            paths[nowhere]


@pytest.mark.parametrize("known", [[], [(0, "a"), (2, "caf\udce9")], [(0, "a")]])
def test_paths_come_whole_to_another_process(known: list[tuple[int, str]]) -> None:
    again = pickle.loads(pickle.dumps(Paths.of(known)))
    assert dict(again) == dict(known)
    assert len(again) == len(known)


def test_what_lies_elsewhere_than_before_is_counted() -> None:
    before = Paths.of([(0, "a"), (1, "b"), (2, "c")])
    assert before.n_other(before) == 0
    assert before.n_other(Paths.of([(0, "a")])) == 2
    assert Paths.of([(0, "a"), (1, "new"), (5, "f")]).n_other(before) == 3


def test_numbers_are_a_set() -> None:
    numbers = Numbers(np.array([True, False, True, True]))
    assert [*numbers] == [0, 2, 3]
    assert len(numbers) == 3
    assert [n in numbers for n in (-1, 0, 1, 4)] == [False, True, False, False]
    assert numbers - {0} == {2, 3}
    assert {0, 1} - numbers == {1}
    assert numbers == {0, 2, 3}
