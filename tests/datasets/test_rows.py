"""Images that are read by row, and what a run makes of them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skal
from skal.datasets import ImageRows
from skal.datasets.hashes import hashes_of, with_hashes
from skal.datasets.rows import take_rows
from skal.testing import check_dataset

RNG = np.random.default_rng(0)
SMALL = {"model": "small-cnn", "n_init": 6, "n_query": 4, "n_rounds": 1, "steps": 3}


@pytest.fixture
def pixels(tmp_path: Path) -> np.memmap[Any, Any]:
    """Forty images of two classes, one dark and one bright, in a file."""
    bright = np.arange(40) % 2 * 128
    values = RNG.integers(0, 128, (40, 1, 8, 8)) + bright[:, None, None, None]
    np.save(tmp_path / "pixels.npy", values.astype(np.uint8))
    mapped: Any = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    return mapped  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        np.int64(3),
        slice(2, 7),
        slice(None, None, -2),
        [4, 1, 1],
        np.array([5, 0]),
        np.arange(9) % 2 == 0,
        np.array([], int),
        (3, 0),
        (np.int64(3), 0),
        (slice(1, 3), 0, slice(2, 4)),
        (slice(None), None),
        ([1, 2], 0),
        ...,
        None,
    ],
    ids=str,
)
def test_an_index_gives_what_an_array_gives(pixels: np.memmap[Any, Any], key: Any) -> None:
    rows = np.array([7, 3, 30, 31, 0, 12, 12, 39, 5])
    lazy, array = ImageRows(pixels, rows), np.array(pixels)[rows]
    found = lazy[key]
    assert isinstance(found, np.ndarray) and not isinstance(found, np.memmap)
    assert found.shape == array[key].shape and np.array_equal(found, array[key])


def test_rows_of_images_are_an_array_to_numpy(pixels: np.memmap[Any, Any]) -> None:
    rows = np.array([7, 3, 30])
    lazy, array = ImageRows(pixels, rows), np.array(pixels)[rows]
    assert (lazy.shape, lazy.dtype, lazy.ndim, len(lazy), lazy.nbytes) == (
        array.shape,
        array.dtype,
        array.ndim,
        len(array),
        array.nbytes,
    )
    assert np.array_equal(lazy, array) and np.array_equal(list(lazy), array)
    assert np.asarray(lazy, np.float32).dtype == np.float32
    assert np.mean(lazy) == array.mean()
    assert np.array_equal(lazy.copy(), array) and lazy.max() == array.max()
    assert np.array_equal(lazy.take([2, 0], axis=0), array[[2, 0]])
    assert lazy.size == array.size and lazy.reshape(3, -1).shape == (3, 64)
    assert np.array_equal(lazy / 255, array / 255) and np.array_equal(255 - lazy, 255 - array)
    assert np.array_equal(lazy > lazy, array > array) and not hasattr(lazy, "iloc")
    for wrong in (3, [0, 3]):
        with pytest.raises(IndexError):
            lazy[wrong]


def test_rows_of_rows_and_their_hashes(pixels: np.memmap[Any, Any]) -> None:
    known = with_hashes(pixels, lambda: hashes_of(np.array(pixels)))
    lazy = take_rows(ImageRows(known, np.array([7, 3, 30, 8])), np.array([3, 1]))
    assert np.array_equal(lazy, pixels[[8, 3]])
    assert hashes_of(lazy).tolist() == hashes_of(np.array(pixels[[8, 3]])).tolist()
    without = ImageRows(pixels, np.array([8, 3]))
    assert hashes_of(without).tolist() == hashes_of(lazy).tolist()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_rows_are_copied_and_sent_as_they_are(pixels: np.memmap[Any, Any], copied: Any) -> None:
    lazy = ImageRows(pixels, np.array([7, 3, 30]))
    other = copied(lazy)
    assert isinstance(other, ImageRows) and not other.flags.writeable
    assert np.array_equal(other, lazy)


def test_workers_compare_strategies_on_rows(
    pixels: np.memmap[Any, Any], tmp_path: Path, two_processes: int
) -> None:
    numbers = np.arange(40)
    train, test = numbers[numbers % 3 > 0], numbers[numbers % 3 == 0]
    data = skal.ImageDataset(
        ImageRows(pixels, train), train % 2, ("dark", "bright"), ImageRows(pixels, test), test % 2
    )
    check_dataset(data)
    options = {"strategies": ["random"], "seeds": 2, "data_dir": tmp_path / "data", **SMALL}
    tables = []
    for jobs in (1, two_processes):
        found = skal.compare(data, jobs=jobs, out=tmp_path / f"{jobs}", **options)
        tables.append(found.table())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "margin"},
        {"strategy": "badge", "n_valid": 4},
        {"strategy": "core-set", "freeze": True},
        {"strategy": "random", "image_noise": "gaussian", "noise_rate": 0.1},
        {"strategy": "random", "drop_duplicates": True},
        {"strategy": "bald", "freeze": True, "init_strategy": "herding"},
    ],
    ids=str,
)
def test_a_run_on_rows_is_that_on_an_array(
    pixels: np.memmap[Any, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    order = RNG.permutation(40)
    train, test = order[:30], order[30:]
    lazy = skal.ImageDataset(
        ImageRows(pixels, train), train % 2, ("dark", "bright"), ImageRows(pixels, test), test % 2
    )
    plain = replace(lazy, X=np.asarray(lazy.X), X_test=np.asarray(lazy.X_test))
    queries = []
    for name, data in (("rows", lazy), ("array", plain)):
        out = tmp_path / name
        skal.run(data, out=out, data_dir=tmp_path / "data" / name, **SMALL, **settings)
        queries.append((out / "queries.csv").read_bytes())
    assert queries[0] == queries[1]
