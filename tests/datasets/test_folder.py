"""Folders of images as people keep them: layouts, messy files, the cache."""

from __future__ import annotations

import errno
import io
import logging
import os
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from skal.core.errors import DataError, DatasetNotFoundError
from skal.core.kept import only_one
from skal.datasets import ImageDataset, ImageRows, data_folder, index, load_dataset, pixel_cache
from skal.datasets.decoding import Decoding, decode, decode_many
from skal.datasets.folder import load_folder
from skal.datasets.hashes import hashes_of

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
GREY = (128, 128, 128)
Colour = tuple[int, ...]
Fail = Callable[[Path, BaseException, int], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    return place


def paint(path: Path, colour: Any = RED, size: tuple[int, int] = (20, 16), **save: Any) -> Path:
    """Write a picture of one colour; the suffix says the format unless `format` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = save.pop("mode", "RGB")
    Image.new(mode, size, colour).save(path, **save)
    return path


def fill(root: Path, *folders: str, n: int = 5, suffix: str = "png") -> None:
    """Put `n` pictures into each folder; no two pictures are alike."""
    for number, name in enumerate(folders):
        for k in range(n):
            paint(root / name / f"{k}.{suffix}", (40 * number, 10 * k, 200))


def load(
    root: Path, size: int | None = 8, how: Decoding | None = None, **options: Any
) -> ImageDataset:
    if how is None:
        return load_dataset(root, image_size=size, **options)
    where = data_folder(options.pop("data_dir", None))
    return load_folder(root, data_dir=where, image_size=size, decoding=how, **options)


AT_ONCE = Decoding(8, pauses=(0, 0))
"""Without a pause before what the system failed to read is tried again."""


class Counted:
    """Keeps account of what is decoded, one file at a time."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.how = Decoding(8, chunk_files=4, decode=self._decode)

    def _decode(self, path: Path, how: Decoding) -> np.ndarray:
        self.names.append(f"{path.parent.name}/{path.name}")
        return decode(path, how.size, how.geometry)


def all_pixels(data: ImageDataset) -> np.ndarray:
    parts = [part for part in (data.X, data.X_test, data.X_unlabeled) if len(part)]
    return np.concatenate(parts)


def only_pixels(root: Path, name: str = "x") -> np.ndarray:
    """Return the picture of a folder that holds one, as (8, 8, 3)."""
    data = load(root)
    assert len(data.X) == 1 and data.skipped == ()
    return np.asarray(data.X[0].transpose(1, 2, 0))


def is_all(pixels: np.ndarray, colour: Colour, tolerance: int = 0) -> bool:
    return bool(np.all(np.abs(pixels.astype(int) - colour) <= tolerance))


# ------------------------------------------------------------------ layouts


def test_class_folders_are_split_by_seed_class_by_class(root: Path) -> None:
    fill(root, "cat", "dog", n=10)
    first, again, other = (load(root, seed=seed) for seed in (0, 0, 1))
    assert first.classes == ("cat", "dog") and first.name == "pictures"
    assert np.bincount(first.y).tolist() == [8, 8]
    assert np.bincount(first.y_test).tolist() == [2, 2]
    assert first.X.dtype == np.uint8 and first.X.shape == (16, 3, 8, 8)
    assert first.y.dtype == np.int64 and first.root == root.resolve()
    assert first.paths == again.paths and first.paths != other.paths
    assert np.array_equal(first.X_test, again.X_test)


def test_every_picture_stands_beside_its_own_path_and_label(root: Path) -> None:
    fill(root, "a", "b", "c", n=7)
    data = load(root)
    for image, label, path in zip(data.X, data.y, data.paths, strict=True):
        name, file = path.split("/")
        colour = (40 * "abc".index(name), 10 * int(file[0]), 200)
        assert data.classes[label] == name
        assert is_all(image.transpose(1, 2, 0), colour)


def test_listing_asks_nothing_about_a_file_but_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "cat", "dog/deep")
    asked, ask = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: asked.append(path) or ask(path, **how))
    assert len(index.find_images(root)) == 10
    assert len(asked) == 4 and all(ask(path).st_nlink > 1 for path in asked)  # folders


def test_every_image_is_listed_wherever_it_lies(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "train/cat", "val/cat", "test", "unlabeled", "backup", ".", n=2)
    (root / "train/x.svg").write_text("x")
    paths = index.list_images(root)
    assert paths == sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    assert len(paths) == 12
    assert [record.getMessage() for record in caplog.records] == [
        "ignored files: 1 .svg; convert these pictures to PNG or JPEG"
    ]


def test_order_is_that_of_the_sorted_paths(root: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a/z.png", "a/sub/y.png", "B/1.png"):
        paint(root / name)
    found = index.find_images(root)
    assert found == sorted(found, key=lambda file: file.path)
    data = load(root)
    assert list(data.paths) == sorted(data.paths)


def test_folders_within_a_class_belong_to_it(root: Path) -> None:
    fill(root, "cat/2023/may", "cat", "dog")
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert len(data.y) + len(data.y_test) == 15


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_given_split_is_kept(root: Path, train: str, test: str) -> None:
    fill(root, f"{train}/cat", f"{train}/dog", n=4)
    fill(root, f"{test}/cat", f"{test}/dog", n=2)
    one, two = load(root, seed=0), load(root, seed=1)
    assert one.y.tolist() == [0] * 4 + [1] * 4 and one.y_test.tolist() == [0, 0, 1, 1]
    assert (
        one.paths
        == two.paths
        == tuple(f"{train}/{name}/{k}.png" for name in ("cat", "dog") for k in range(4))
    )


def test_pixels_of_a_given_split_are_read_only_views_of_the_cache(root: Path) -> None:
    fill(root, "train/cat", "test/cat", "unlabeled")
    data = load(root)
    for part in (data.X, data.X_test, data.X_unlabeled):
        assert isinstance(part, np.memmap) and not part.flags.writeable


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_validation_folder_is_the_test_set_where_there_is_none(root: Path, name: str) -> None:
    fill(root, "train/cat", "train/dog", f"{name}/cat", f"{name}/dog", n=3)
    data = load(root)
    assert len(data.X) == 6 and data.y_test.tolist() == [0, 0, 0, 1, 1, 1]


def test_validation_folder_beside_a_test_folder_is_passed_over_and_told(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "train/cat", "test/cat", "val/cat", "backup/cat", n=3)
    data = load(root)
    assert (len(data.X), len(data.X_test)) == (3, 3) and data.classes == ("cat",)
    assert "ignored 'val' (3 images)" in caplog.text
    assert "ignored 'backup' (3 images)" in caplog.text


def test_train_folder_without_a_test_folder_is_split(root: Path) -> None:
    fill(root, "train/cat", "train/dog")
    data = load(root)
    assert data.classes == ("cat", "dog") and (len(data.X), len(data.X_test)) == (8, 2)


@pytest.mark.parametrize("loose", ["test", "test/unlabeled"])
def test_test_images_in_no_class_folder_are_never_in_the_pool(
    root: Path, loose: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "train/cat", "train/dog", "test/cat", n=2)
    fill(root, loose, n=3)
    data = load(root)
    assert (len(data.X), len(data.X_test), len(data.X_unlabeled)) == (4, 2, 0)
    assert "skipped 3 test images that are in no class folder" in caplog.text
    assert {file.path for file in index.find_images(root)} >= {f"{loose}/0.png", f"{loose}/2.png"}


def test_flat_test_folder_is_unlabelled(root: Path) -> None:
    fill(root, "train/cat", "train/dog", "test")
    data = load(root)
    assert (len(data.X), len(data.X_test), len(data.X_unlabeled)) == (8, 2, 5)


def test_flat_train_and_test_folders_are_unlabelled_and_no_classes(root: Path) -> None:
    fill(root, "train", "test")
    data = load(root)
    assert data.classes == () and len(data.X_unlabeled) == 10


def test_folder_of_trains_is_a_class(root: Path) -> None:
    fill(root, "bus", "train")
    assert load(root).classes == ("bus", "train")


@pytest.mark.parametrize("name", ["unlabeled", "unlabelled", "Unlabeled", "unlabeled/deep"])
def test_unlabelled_images_lie_directly_in_the_root_or_in_their_folder(
    root: Path, name: str
) -> None:
    fill(root, "cat", name)
    paint(root / "loose.png", GREEN)
    data = load(root)
    assert data.classes == ("cat",) and len(data.X_unlabeled) == 6
    loose = data.paths_unlabeled.index("loose.png")
    assert is_all(data.X_unlabeled[loose].transpose(1, 2, 0), GREEN)


def test_unlabelled_images_beside_a_given_split(root: Path) -> None:
    fill(root, "train/cat", "test/cat", "unlabeled", n=2)
    paint(root / "loose.png")
    paint(root / "train/also-loose.png")
    data = load(root)
    assert len(data.X) == len(data.X_test) == 2
    assert data.paths_unlabeled == (
        "loose.png",
        "train/also-loose.png",
        "unlabeled/0.png",
        "unlabeled/1.png",
    )


def test_folder_without_classes_is_all_unlabelled(root: Path) -> None:
    fill(root, ".", n=3)
    data = load(root)
    assert len(data.X) == 0 and data.classes == () and len(data.X_unlabeled) == 3
    assert data.image_size == 8


def test_one_class_with_one_image_has_no_test_set(root: Path) -> None:
    paint(root / "cat/a.png")
    data = load(root)
    assert data.y.tolist() == [0] and len(data.X_test) == 0


def test_test_class_that_is_not_trained_is_told(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "train/cat", "test/cat", "test/eel")
    data = load(root)
    assert data.classes == ("cat", "eel")
    assert "but no training images" in caplog.text and "eel" in caplog.text


def test_class_folder_without_an_image_is_told_and_no_class(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "cat")
    (root / "empty").mkdir()
    (root / "texts").mkdir()
    (root / "texts/readme.txt").write_text("hello")
    assert load(root).classes == ("cat",)
    assert "'empty' has no image" in caplog.text and "'texts' has no image" in caplog.text


def test_class_folder_without_an_image_is_told_in_a_given_split_too(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "train/cat", "test/cat", "test/dog")
    (root / "train/dog").mkdir()
    load(root)
    assert "'train/dog' has no image" in caplog.text


def test_default_size_is_48(root: Path) -> None:
    fill(root, "cat")
    assert load(root, size=None).X.shape[1:] == (3, 48, 48)


# ------------------------------------------------------------------ names and links


def test_names_that_people_give(root: Path) -> None:
    names = ["my cat (1)", "日本語", "naïve", "100%", "-dash", "emoji 🐈", "new\nline", "a'b\"c"]
    fill(root, *names, n=2)
    data = load(root)
    assert data.classes == tuple(sorted(names)) and len(data.skipped) == 0
    assert len(all_pixels(data)) == 2 * len(names)


def test_names_that_are_not_utf_8(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).mkdir()
    for file in (b"/caf\xe9/a\xff.png", b"/caf\xe9/b\xff.png"):
        shutil.copy(paint(root.parent / "x.png"), os.fsencode(root) + file)
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9/bad\xfe.png")).write_bytes(b"text")
    for _ in range(2):  # made, and found in the cache
        data = load(root)
        assert os.fsencode(data.classes[0]) == b"caf\xe9"
        assert os.fsencode(data.paths[0]) in (b"caf\xe9/a\xff.png", b"caf\xe9/b\xff.png")
        assert os.fsencode(data.skipped[0][0]) == b"caf\xe9/bad\xfe.png"


def test_accents_as_macos_spells_them_are_the_same_class(root: Path) -> None:
    fill(root, "train/caf\u00e9", "test/cafe\u0301", n=2)
    data = load(root)
    assert data.classes == ("caf\u00e9",) and len(data.X_test) == 2


def test_root_with_the_longest_name_that_a_folder_can_have(tmp_path: Path) -> None:
    fill(tmp_path / ("ö" * 127), "cat", n=2)
    assert len(load(tmp_path / ("ö" * 127)).X) == 1


def test_same_file_name_in_two_classes_is_two_images(root: Path) -> None:
    paint(root / "cat/1.png", RED)
    paint(root / "dog/1.png", BLUE)
    data = load(root)
    assert data.paths == ("cat/1.png", "dog/1.png")
    assert data.X[:, 0, 0, 0].tolist() == [255, 0]


def test_hidden_and_system_files_are_passed_over(root: Path) -> None:
    fill(root, "cat", n=2)
    for name in (".hidden.png", "cat/._1.png", ".git/x.png", "cat/.ipynb_checkpoints/1.png"):
        paint(root / name)
    for name in ("__MACOSX/cat/1.png", "cat/@eaDir/thumb.jpg", "$RECYCLE.BIN/old.png"):
        paint(root / name)
    for name in ("cat/Thumbs.db", "desktop.ini", "cat/.DS_Store"):
        (root / name).write_bytes(b"no image")
    data = load(root)
    assert sorted(data.paths + data.paths_unlabeled) in (["cat/0.png"], ["cat/1.png"])
    assert data.skipped == () and len(data.X_test) == 1 and data.classes == ("cat",)


def test_pictures_that_are_not_read_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(root, "cat")
    for name in ("cat/1.PSD", "cat/2.psd", "cat/3.svg", "cat/notes.txt"):
        (root / name).write_bytes(b"?")
    load(root)
    assert "ignored files: 2 .psd, 1 .svg, 1 .txt" in caplog.text


def test_link_to_a_class_folder_elsewhere_is_followed(root: Path, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "dog")
    fill(root, "cat")
    (root / "dog").symlink_to(tmp_path / "elsewhere/dog")
    data = load(root)
    assert data.classes == ("cat", "dog") and len(all_pixels(data)) == 10


def test_links_to_files_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "cat").mkdir()
    (root / "cat/a.png").symlink_to(paint(tmp_path / "one.png", GREEN))
    assert is_all(only_pixels(root), GREEN)


def test_folders_in_folders_may_be_as_deep_as_a_path_allows(root: Path) -> None:
    deepest, made = root, []
    try:
        for _ in range(1200):
            deepest = deepest / "d"
            deepest.mkdir(parents=True)
            made.append(deepest)
        (deepest / "a.png").touch()
        assert index.list_images(root) == [f"{'d/' * 1200}a.png"]
    finally:  # what tidies up after tests goes no deeper than Python's stack
        (deepest / "a.png").unlink(missing_ok=True)
        for folder in reversed(made):
            folder.rmdir()


def test_loops_of_links_end(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(root, "cat")
    (root / "cat/self").symlink_to(root / "cat")
    (root / "cat/up").symlink_to(root)
    (root / "cat/ring.png").symlink_to(root / "cat/ring.png")
    data = load(root)
    assert len(all_pixels(data)) == 5 and data.classes == ("cat",)
    assert [path for path, _ in data.skipped] == ["cat/ring.png"]
    assert "'cat/up', which links to '.'" in caplog.text


def test_link_to_a_class_that_is_there_already_is_told(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "cat")
    (root / "feline").symlink_to(root / "cat")
    assert load(root).classes == ("cat",)
    assert "ignored 'feline', which links to 'cat'" in caplog.text


def test_folder_that_is_itself_a_link(root: Path, tmp_path: Path) -> None:
    fill(root, "cat")
    (tmp_path / "link").symlink_to(root)
    data = load(tmp_path / "link")
    assert len(all_pixels(data)) == 5 and data.root == root.resolve()


# ------------------------------------------------------------------ formats and modes

FORMATS = [
    *(("a.jpg", 3), ("a.jpeg", 3), ("a.png", 0), ("a.bmp", 0), ("a.gif", 0), ("a.tif", 0)),
    *(("a.tiff", 0), ("a.webp", 6), ("A.JPG", 3), ("A.PNG", 0), ("a.jfif", 3)),
]


@pytest.mark.parametrize(("name", "tolerance"), FORMATS)
def test_formats(root: Path, name: str, tolerance: int) -> None:
    paint(root / "x" / name, (10, 120, 250))
    assert is_all(only_pixels(root), (10, 120, 250), tolerance)


@pytest.mark.parametrize("true_format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_content_and_not_the_suffix_says_the_format(root: Path, true_format: str) -> None:
    paint(root / "x/a.jpg", RED, format=true_format)
    paint(root / "x/a.png", RED, format=true_format)
    data = load(root)
    assert data.skipped == ()
    assert is_all(data.X[0].transpose(1, 2, 0), RED, 3)


def save(root: Path, image: Image.Image, name: str = "a.png", **options: Any) -> None:
    (root / "x").mkdir(exist_ok=True)
    image.save(root / "x" / name, **options)


def palette_image() -> Image.Image:
    """Two colours of a palette, left red and right green."""
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (8, 0, 16, 16))
    return image


def test_palette(root: Path) -> None:
    save(root, palette_image())
    pixels = only_pixels(root)
    assert is_all(pixels[:, :2], RED) and is_all(pixels[:, 6:], GREEN)


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_transparent_entry_of_a_palette_is_white(root: Path, transparency: Any, name: str) -> None:
    save(root, palette_image(), name, transparency=1 if name == "a.gif" else transparency)
    pixels = only_pixels(root)
    assert is_all(pixels[:, :2], RED) and is_all(pixels[:, 6:], WHITE)


@pytest.mark.parametrize(
    ("mode", "colour", "shown"),
    [
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (9, 9, 9, 0), WHITE),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 0), WHITE),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (0, 51), (204, 204, 204)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, WHITE),
        ("1", 0, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_and_transparent_pictures_are_laid_on_white(
    root: Path, mode: str, colour: Any, shown: Colour, name: str
) -> None:
    paint(root / "x" / name, colour, mode=mode)
    assert is_all(only_pixels(root), shown, 1)


def test_transparent_colour_of_an_rgb_png_is_white(root: Path) -> None:
    image = Image.new("RGB", (16, 16), RED)
    image.paste(GREEN, (8, 0, 16, 16))
    save(root, image, transparency=GREEN)
    pixels = only_pixels(root)
    assert is_all(pixels[:, :2], RED) and is_all(pixels[:, 6:], WHITE)


def test_transparent_webp_is_laid_on_white(root: Path) -> None:
    paint(root / "x/a.webp", (0, 0, 0, 0), mode="RGBA", lossless=True)
    assert is_all(only_pixels(root), WHITE)


def test_cmyk_jpeg(root: Path) -> None:
    paint(root / "x/a.jpg", (0, 255, 255, 0), mode="CMYK", quality=95)  # magenta + yellow = red
    assert is_all(only_pixels(root), RED, 6)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(
    ("value", "shown"), [(0, 0), (0x7F7F, 127), (0xFFFF, 255), (300, 1), (0x4040, 64)]
)
def test_16_bit_grey_is_scaled_and_not_clipped(
    root: Path, name: str, value: int, shown: int
) -> None:
    save(root, Image.fromarray(np.full((16, 20), value, np.uint16)), name)
    assert is_all(only_pixels(root), (shown, shown, shown))


def test_16_bit_grey_keeps_its_gradient(root: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    save(root, Image.fromarray(ramp))
    row = only_pixels(root)[4, :, 0].astype(int)
    assert np.all(np.diff(row) > 20) and row[0] < 30 and row[-1] > 225


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.full((16, 16), 0.5, np.float32), 128),
        (np.full((16, 16), 51.0, np.float32), 51),
        (np.full((16, 16), 0.0, np.float32), 0),
        (np.full((16, 16), np.nan, np.float32), 0),
        (np.full((16, 16), 200, np.int32), 200),
        (np.full((16, 16), 0x8080, np.int32), 128),
    ],
)
def test_float_and_32_bit_tiff(root: Path, array: np.ndarray, shown: int) -> None:
    save(root, Image.fromarray(array), "a.tif")
    assert is_all(only_pixels(root), (shown, shown, shown))


def test_pixels_out_of_every_range_are_stretched(root: Path) -> None:
    array = np.full((16, 16), -1e6, np.float32)
    array[:, 8:] = 1e6
    save(root, Image.fromarray(array), "a.tif")
    pixels = only_pixels(root)
    assert is_all(pixels[:, :2], (0, 0, 0)) and is_all(pixels[:, 6:], WHITE)


def quarters() -> np.ndarray:
    """Return an upright picture: red, green, blue and white quarters, wider than high."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:] = RED, GREEN
    picture[16:, :24], picture[16:, 24:] = BLUE, WHITE
    return picture


STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    # how the pixels lie in the file, so that the orientation of that number shows them upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_rotation_is_applied(root: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](quarters()))
    save(root, Image.fromarray(stored), name, exif=exif, quality=95)
    pixels = only_pixels(root)
    corners = [pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]]
    for corner, colour in zip(corners, (RED, GREEN, BLUE, WHITE), strict=True):
        assert is_all(corner, colour, 12)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_exif_rotation_of_a_grey_tiff_that_pillow_would_map(
    root: Path, orientation: int, mode: str
) -> None:
    grey = np.repeat(np.repeat([[0, 80], [160, 240]], 16, 0), 24, 1)[..., None]
    stored = np.ascontiguousarray(STORED[orientation](grey)[..., 0])
    exif = Image.Exif()
    exif[0x112] = orientation
    deep = (stored * 257).astype(np.uint16) if mode == "I;16" else stored.astype(np.uint8)
    save(root, Image.fromarray(deep), "a.tif", exif=exif)
    shown = only_pixels(root)[:, :, 0]
    corners = [shown[0, 0], shown[0, -1], shown[-1, 0], shown[-1, -1]]
    assert corners == [0, 80, 160, 240]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_damaged_exif_does_not_cost_the_picture(root: Path, name: str, exif: bytes) -> None:
    save(root, Image.new("RGB", (16, 16), RED), name, exif=exif)
    assert is_all(only_pixels(root), RED, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif", "a.mpo.jpg"])
def test_first_frame_of_an_animation_is_taken(root: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    if "mpo" in name:
        options["format"] = "MPO"
    save(root, frames[0], name, save_all=True, append_images=frames[1:], **options)
    with Image.open(root / "x" / name) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    assert is_all(only_pixels(root), RED, 3)


# ------------------------------------------------------------------ geometry


def test_wide_picture_is_cut_to_its_middle_square(root: Path) -> None:
    thirds = np.repeat(np.array([[RED, GREEN, BLUE]], np.uint8), 30, 1).repeat(30, 0)
    save(root, Image.fromarray(thirds))
    pixels = only_pixels(root)  # the filter looks a little over the edge
    assert is_all(pixels[:, 1:-1], GREEN) and is_all(pixels, GREEN, 25)


def test_high_picture_is_cut_to_its_middle_square(root: Path) -> None:
    thirds = np.repeat(np.array([[RED], [GREEN], [BLUE]], np.uint8), 30, 0).repeat(30, 1)
    save(root, Image.fromarray(thirds))
    pixels = only_pixels(root)
    assert is_all(pixels[1:-1], GREEN) and is_all(pixels, GREEN, 25)


def test_shrinking_averages_fine_patterns(root: Path) -> None:
    board = (np.indices((160, 160)).sum(0) % 2 * 255).astype(np.uint8)
    save(root, Image.fromarray(board))
    assert is_all(only_pixels(root)[1:-1, 1:-1], (127, 127, 127), 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (20000, 1), (9, 5000), (4000, 3000)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_sizes_from_one_pixel_to_very_wide_and_very_large(
    root: Path, size: tuple[int, int], name: str
) -> None:
    paint(root / "x" / name, (200, 30, 60), size)
    assert is_all(only_pixels(root), (200, 30, 60), 3)


def test_large_jpeg_decoded_at_a_fraction_shows_the_same_picture(root: Path) -> None:
    big = Image.new("RGB", (1600, 1600), BLUE)
    ImageDraw.Draw(big).rectangle((0, 0, 799, 1599), RED)
    save(root, big, "a.jpg", quality=95)
    pixels = only_pixels(root)
    assert is_all(pixels[:, :3], RED, 4) and is_all(pixels[:, 5:], BLUE, 4)


def test_photo_with_a_second_picture_is_decoded_as_without(root: Path) -> None:
    fine = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    photo, second = Image.fromarray(fine), Image.new("RGB", (800, 600), BLUE)
    photo.save(root / "plain.jpg")
    photo.save(root / "phone.jpg", "MPO", save_all=True, append_images=[second])
    plain, phone = (decode(root / name, 48) for name in ("plain.jpg", "phone.jpg"))
    assert np.array_equal(plain, phone)


def test_jpeg_is_not_decoded_at_less_than_what_is_asked_for(root: Path) -> None:
    stripes = np.tile(np.repeat([0, 255], 4).astype(np.uint8), (64, 8))
    save(root, Image.fromarray(stripes), "a.jpg", quality=95)
    row = load(root, 32).X[0, 0, 16].astype(int)  # two pixels a stripe
    assert np.all(row.reshape(8, 4)[:, :2] < 60) and np.all(row.reshape(8, 4)[:, 2:] > 195)


# ------------------------------------------------------------------ what cannot be read


def encoded(format: str, size: tuple[int, int] = (64, 64)) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


BAD = {
    "nothing.png": (b"", "empty file"),
    "text.jpg": (b"I am a text, not an image.", "not one of JPEG, PNG"),
    "page.png": (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git-lfs"),
    "drawing.png": (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg width="9"></svg>', "an SVG"),
    "document.png": (b"%PDF-1.7\n", "a PDF"),
    "unfinished.jpg": (bytes(4096), "only zeros"),
    "half.jpg": (encoded("JPEG")[:2000], "truncated"),
    "half.png": (encoded("PNG")[:2000], "truncated"),
    "half.webp": (encoded("WEBP")[:200], ""),
    "half.gif": (encoded("GIF")[:1500], ""),
    "half.bmp": (encoded("BMP")[:1500], ""),
    "half.tif": (encoded("TIFF")[:1500], ""),
    "header.jpg": (encoded("JPEG")[:20], ""),
    "header.png": (encoded("PNG")[:20], ""),
    "bomb.png": (bomb(), "too many pixels"),
    "other.png": (encoded("TGA"), "not one of JPEG, PNG"),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_unreadable_file_is_named_with_its_reason_and_left_out(
    root: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "x", n=3)
    content, told = BAD[name]
    (root / "x" / name).write_bytes(content)
    for _ in range(2):  # decoded, and from the cache
        caplog.clear()
        data = load(root)
        assert len(all_pixels(data)) == 3
        ((path, reason),) = data.skipped
        assert path == f"x/{name}" and reason and told in reason and "\n" not in reason
        assert f"skipped x/{name}: {reason}" in caplog.text


def test_all_unreadable_files_together_do_not_end_the_run(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "x", n=3)
    for name, (content, _) in BAD.items():
        (root / "x" / name).write_bytes(content)
    data = load(root)
    assert [path for path, _ in data.skipped] == sorted(f"x/{name}" for name in BAD)
    assert is_all(np.asarray(all_pixels(data)[:, 2]), (200,))
    assert f"and {len(BAD) - 10} more unreadable files" in caplog.text


def test_damage_of_every_kind_ends_in_a_reason_and_never_in_an_exception(root: Path) -> None:
    rng = np.random.default_rng(0)
    fill(root, "ok", n=2)
    (root / "bad").mkdir()
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        good = encoded(format, (24, 24))
        for k in range(12):
            damaged = bytearray(good)
            for place in rng.integers(0, min(len(good), 80 if k % 2 else len(good)), 6):
                damaged[place] = rng.integers(256)
            (root / f"bad/{format}{k}.{format.lower()}").write_bytes(damaged)
    data = load(root)
    assert len(all_pixels(data)) + len(data.skipped) == 62 and len(data.skipped) > 10
    assert all(reason for _, reason in data.skipped)


def test_class_whose_images_all_fail_is_no_class(root: Path) -> None:
    fill(root, "cat")
    (root / "dog").mkdir()
    (root / "dog/1.jpg").write_bytes(b"text")
    data = load(root)
    assert data.classes == ("cat",) and data.skipped[0][0] == "dog/1.jpg"


def test_broken_link_is_left_out(root: Path) -> None:
    fill(root, "cat")
    (root / "cat/gone.png").symlink_to(root / "nowhere.png")
    assert load(root).skipped == (("cat/gone.png", "a link to a missing file"),)


def test_pipe_is_left_out_and_not_waited_for(root: Path) -> None:
    fill(root, "cat")
    os.mkfifo(root / "cat/pipe.png")
    assert load(root).skipped == (("cat/pipe.png", "not a regular file"),)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "dcm"])
def test_pipes_and_links_to_themselves_are_left_out_before_they_are_looked_at(
    root: Path, suffix: str
) -> None:
    fill(root, "cat")
    os.mkfifo(root / f"cat/pipe.{suffix}")
    (root / f"cat/loop.{suffix}").symlink_to(root / f"cat/loop.{suffix}")
    reasons = dict(load(root).skipped)
    if f"cat/pipe.{suffix}" in index.list_images(root):  # else an extra is not installed
        assert reasons[f"cat/pipe.{suffix}"] == "not a regular file"
        assert "symbolic links" in reasons[f"cat/loop.{suffix}"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("kept", [0, 100, 1500])
def test_file_that_was_made_long_and_never_filled_ends_nothing(
    root: Path, format: str, kept: int
) -> None:
    fill(root, "cat")
    whole = encoded(format)
    (root / f"cat/9.{format.lower()}").write_bytes(whole[:kept] + bytes(len(whole) - kept))
    data = load(root)
    assert len(all_pixels(data)) + len(data.skipped) == 6
    assert all(reason for _, reason in data.skipped)


@pytest.mark.parametrize("size", [(13_000, 13_000), (500_000, 1), (1, 500_000)])
def test_very_large_and_very_flat_pictures_are_read(root: Path, size: tuple[int, int]) -> None:
    paint(root / "x/a.png", 1, size, mode="1")
    assert is_all(only_pixels(root), WHITE)


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bool], None]:
    """Take or give the right to read a file, also from root, whom modes do not hold back."""
    forbidden: set[Path] = set()
    path_open, access = Path.open, os.access

    def guarded_open(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self in forbidden:
            raise PermissionError(13, "Permission denied", str(self))
        return path_open(self, *args, **kwargs)

    def guarded_access(path: Any, mode: int) -> bool:
        return Path(path) not in forbidden and access(path, mode)

    monkeypatch.setattr(Path, "open", guarded_open)
    monkeypatch.setattr(os, "access", guarded_access)

    def switch(path: Path, readable: bool) -> None:
        path.chmod(0o600 if readable else 0)
        (forbidden.discard if readable else forbidden.add)(path)

    return switch


def test_file_without_permission_is_left_out_until_it_is_given(
    root: Path, forbid: Callable[[Path, bool], None]
) -> None:
    fill(root, "cat")
    forbid(root / "cat/2.png", False)
    data = load(root)
    assert data.skipped == (("cat/2.png", "Permission denied"),) and len(all_pixels(data)) == 4
    forbid(root / "cat/2.png", True)
    assert load(root).skipped == ()


def test_picture_warned_of_by_pillow_is_read_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    paint(root / "x/a.png", RED, (12, 12))  # a warning from 100 pixels on, an error from 200
    assert is_all(only_pixels(root), RED)


OF_THE_SYSTEM = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("out of memory when reading image file"),  # Pillow's
    MemoryError(),
]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let the first attempts to open a file fail."""
    path_open = Path.open

    def prepare(path: Path, error: BaseException, n_times: int) -> None:
        failures = [error] * n_times

        def opened(self: Path, *args: Any, **kwargs: Any) -> Any:
            if self == path and failures:
                raise failures.pop()
            return path_open(self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", opened)

    return prepare


@pytest.mark.parametrize("error", OF_THE_SYSTEM)
def test_what_the_system_fails_to_read_is_tried_again(
    root: Path, error: Exception, fail: Fail
) -> None:
    fill(root, "cat")
    fail(root / "cat/2.png", error, 2)
    data = load(root, how=AT_ONCE)
    assert data.skipped == () and len(all_pixels(data)) == 5


@pytest.mark.parametrize("error", OF_THE_SYSTEM)
def test_what_the_system_keeps_failing_to_read_is_one_clear_error_and_not_left_out(
    root: Path, error: Exception, fail: Fail
) -> None:
    fill(root, "cat", suffix="bmp")
    fail(root / "cat/2.bmp", error, 3)
    reason = getattr(error, "strerror", None) or "memory"
    with pytest.raises(DataError, match=rf"cat/2\.bmp'.*{reason}.*the same call resumes") as caught:
        load(root, how=AT_ONCE)
    assert "\n" not in str(caught.value)
    data = load(root)
    assert data.skipped == () and len(all_pixels(data)) == 5


@pytest.mark.parametrize("tolerated", [0, 1, 2])
def test_of_a_chunk_the_system_may_fail_to_read_as_many_as_are_tolerated(
    root: Path, tolerated: int
) -> None:
    fill(root, "cat")

    def failing(path: Path, how: Decoding) -> np.ndarray:
        if path.name in ("1.png", "3.png"):
            raise OSError(errno.EIO, "Input/output error")
        return decode(path, how.size)

    how = Decoding(8, 1, tolerated=tolerated, pauses=(), decode=failing)
    paths = [f"cat/{k}.png" for k in range(5)]
    if tolerated < 2:
        with pytest.raises(DataError, match=r"cannot read '.*\.png' at the moment: Input/output"):
            list(decode_many(root, paths, how))
        return
    (chunk,) = decode_many(root, paths, how)
    assert len(chunk.pixels) == 3 and chunk.failed == {"cat/1.png", "cat/3.png"}
    assert set(chunk.unread.values()) == {"Input/output error"}


def test_a_tiff_whose_damaged_sizes_look_like_short_memory_is_left_out(root: Path) -> None:
    fill(root, "cat")
    short, long = 3, 4
    tags = {256: (long, 64), 257: (long, 64), 258: (short, 8), 259: (short, 8), 262: (short, 1)}
    tags |= {
        277: (short, 1),
        322: (long, 2**16),
        323: (long, 2**16),
        324: (long, 8),
        325: (long, 9),
    }
    rows = [struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items()]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    (root / "cat/tiles.tif").write_bytes(head + b"".join(rows) + bytes(64))
    assert load(root).skipped == (("cat/tiles.tif", "decoder error -9"),)


def test_files_that_vanish_while_they_are_decoded_are_an_error_and_not_left_out_for_good(
    root: Path, tmp_path: Path
) -> None:
    fill(root, "cat")

    def unmounted(path: Path, how: Decoding) -> np.ndarray:
        if root.is_dir():
            root.rename(tmp_path / "unmounted")
        return decode(path, how.size)

    with pytest.raises(DataError, match="No such file"):
        load(root, how=replace(AT_ONCE, decode=unmounted))
    (tmp_path / "unmounted").rename(root)
    data = load(root)
    assert data.skipped == () and len(all_pixels(data)) == 5


@pytest.mark.parametrize(
    ("stop", "n_times"), [(OSError(errno.EIO, "Input/output error"), 3), (KeyboardInterrupt(), 1)]
)
def test_what_was_decoded_before_the_system_or_somebody_stopped_it_is_kept(
    root: Path,
    data_dir: Path,
    tmp_path: Path,
    stop: BaseException,
    n_times: int,
    fail: Fail,
) -> None:
    fill(root, "cat", suffix="bmp")
    (root / "cat/0.bmp").write_bytes(b"")
    whole = load(root, data_dir=tmp_path / "elsewhere")
    fail(root / "cat/4.bmp", stop, n_times)
    with pytest.raises((DataError, KeyboardInterrupt)):
        load(root, how=replace(AT_ONCE, chunk_files=1, workers=1))
    counted = Counted()
    assert_same(load(root, how=counted.how), whole)
    assert counted.names == ["cat/4.bmp"]
    assert len(caches(data_dir)) == 1


def test_picture_that_memory_is_too_short_to_turn_is_not_kept_as_it_lies(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    fill(root, "cat", n=1)
    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(DataError, match="memory"):
        load(root, how=AT_ONCE)


def test_nothing_readable_is_a_data_error_with_a_reason(root: Path) -> None:
    for name in ("cat/1.bmp", "cat/2.bmp"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=r"none of the 2 images .*cat/1.bmp: empty file"):
            load(root)


def test_no_image_says_what_was_found(root: Path) -> None:
    (root / "cat").mkdir()
    for name in ("cat/a.txt", "cat/b.TXT", "cat/movie.mp4", "Makefile"):
        (root / name).write_bytes(b"?")
    with pytest.raises(DataError, match=r"no images under .*2 \.txt.*") as caught:
        load(root)
    assert "1 .mp4" in str(caught.value) and "1 without a suffix" in str(caught.value)
    assert not isinstance(caught.value, DatasetNotFoundError)


def test_empty_folder_says_so(root: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        load(root)


def test_absent_folder_and_file_in_its_place(root: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        load(root / "nowhere")
    with pytest.raises(DatasetNotFoundError, match="is a file, not a folder"):
        load(paint(root / "a.bmp"))


# ------------------------------------------------------------------ the cache


def caches(data_dir: Path) -> list[str]:
    """Return the names of whole and half caches."""
    return sorted(path.name for path in (data_dir / "cache").iterdir() if path.is_dir())


def test_second_load_does_not_decode(root: Path, data_dir: Path) -> None:
    fill(root, "cat", "dog")
    (root / "cat/bad.bmp").write_bytes(b"")
    first, counted = load(root), Counted()
    second = load(root, how=counted.how)
    assert counted.names == []
    assert np.array_equal(first.X, second.X) and first.paths == second.paths
    assert first.skipped == second.skipped != ()
    assert load(root, seed=3).paths != first.paths
    assert len(caches(data_dir)) == 1


@pytest.mark.parametrize(
    ("geometry", "corner", "top", "middle"),
    [
        ("cover", RED, RED, RED),
        ("squash", BLUE, RED, RED),
        ("border", GREY, GREY, RED),
    ],
)
def test_pictures_become_squares_as_is_asked(
    root: Path, data_dir: Path, geometry: str, corner: Colour, top: Colour, middle: Colour
) -> None:
    wide = Image.new("RGB", (64, 16), BLUE)
    wide.paste(RED, (16, 0, 48, 16))
    (root / "cat").mkdir(parents=True)
    wide.save(root / "cat/wide.png")
    load(root, None, how=Decoding(16))
    data = load(root, None, how=Decoding(16, geometry=geometry))
    image = data.X[0].transpose(1, 2, 0)
    assert data.geometry == geometry
    assert is_all(image[0, 0], corner)
    assert is_all(image[0, 8], top)
    assert is_all(image[8, 8], middle)
    assert len(caches(data_dir)) == (1 if geometry == "cover" else 2)


def change(root: Path) -> None:
    paint(root / "cat/0.png", WHITE, (99, 99))


def touch(root: Path) -> None:
    os.utime(root / "cat/0.png", (1, 1))


def add(root: Path) -> None:
    paint(root / "cat/new.png")


def remove(root: Path) -> None:
    (root / "cat/0.png").unlink()


def rename(root: Path) -> None:
    (root / "cat/0.png").rename(root / "cat/00.png")


def move(root: Path) -> None:
    (root / "cat").rename(root / "tiger")


@pytest.mark.parametrize("edit", [change, touch, add, remove, rename, move])
def test_changed_folder_is_decoded_again(
    root: Path, data_dir: Path, edit: Callable[[Path], None]
) -> None:
    fill(root, "cat", "dog")
    load(root)
    edit(root)
    data = load(root)
    assert len(caches(data_dir)) == 2
    assert len(all_pixels(data)) == sum(1 for _ in root.glob("*/*.png"))


def test_changed_pixels_are_seen(root: Path) -> None:
    fill(root, "cat", n=1)
    load(root)
    change(root)
    assert is_all(only_pixels(root), WHITE)


def test_another_size_is_another_cache(root: Path, data_dir: Path) -> None:
    fill(root, "cat")
    assert load(root, 8).X.shape[-1] == 8 and load(root, 16).X.shape[-1] == 16
    assert len(caches(data_dir)) == 2


def test_two_folders_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    for parent, colour in (("one", RED), ("two", BLUE)):
        path = paint(tmp_path / parent / "same/cat/a.bmp", colour)
        os.utime(path, (1, 1))
    assert is_all(only_pixels(tmp_path / "one/same"), RED)
    assert is_all(only_pixels(tmp_path / "two/same"), BLUE)


def test_interrupted_decoding_leaves_no_half_cache(root: Path, data_dir: Path) -> None:
    fill(root, "cat", "dog")

    def interrupted(path: Path, how: Decoding) -> np.ndarray:
        if path.name == "3.png":
            raise KeyboardInterrupt
        return np.zeros((3, how.size, how.size), np.uint8)

    with pytest.raises(KeyboardInterrupt):
        load(root, how=replace(AT_ONCE, decode=interrupted))
    assert caches(data_dir) == []
    assert all_pixels(load(root))[:, 2].min() == 200


def test_remains_of_a_killed_process_are_not_taken_for_a_cache(root: Path, data_dir: Path) -> None:
    fill(root, "cat")
    load(root)
    (name,) = caches(data_dir)
    cache = data_dir / "cache" / name
    cache.rename(cache.with_name(f".{name}.{os.getpid()}.tmp"))
    assert len(all_pixels(load(root))) == 5
    assert name in caches(data_dir)


def test_threads_that_make_the_same_cache_all_succeed(root: Path, data_dir: Path) -> None:
    fill(root, "cat", "dog")
    results: list[int] = []
    workers = [
        threading.Thread(target=lambda: results.append(int(load(root).X.sum()))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4 and len(set(results)) == 1
    assert len(caches(data_dir)) == 1


RACE = """
import logging, sys, time
from pathlib import Path
from skal.datasets.decoding import Decoding, decode
from skal.datasets.folder import load_folder
root, data_dir, begun, other_waits = map(Path, sys.argv[1:])
def slow(path, how):
    begun.touch()
    while not other_waits.exists():
        time.sleep(0.01)
    return decode(path, how.size)
class Waits(logging.Handler):
    def emit(self, record):
        if "waiting" in record.getMessage():
            other_waits.touch()
logging.getLogger("skal").addHandler(Waits())
logging.getLogger("skal").setLevel("INFO")
data = load_folder(root, data_dir=data_dir, image_size=8, decoding=Decoding(8, decode=slow))
print(len(data.X), int(data.X.sum()))
"""


def test_of_two_processes_that_want_the_same_cache_one_decodes_and_the_other_waits(
    root: Path, data_dir: Path, tmp_path: Path
) -> None:
    fill(root, "cat", "dog")
    waits, runs = tmp_path / "waits", []
    for begun in (tmp_path / "first", tmp_path / "second"):
        command = [sys.executable, "-c", RACE, *map(str, (root, data_dir, begun, waits))]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        while not (tmp_path / "first").exists():
            assert runs[0].poll() is None
            time.sleep(0.01)
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert not (tmp_path / "second").exists()
    data = load(root)
    assert outputs == [f"{len(data.X)} {int(data.X.sum())}\n"] * 2
    assert len(caches(data_dir)) == 1


STOPPED = """
import sys, time
from pathlib import Path
from skal.datasets import pixel_cache
from skal.datasets.decoding import Decoding, decode
from skal.datasets.folder import load_folder
root, data_dir, begun = map(Path, sys.argv[1:])
pixel_cache.SHARD_BYTES = 8 * 3 * 8 * 8
def slow(path, how):
    if "dog" in path.parts:
        begun.touch()
        time.sleep(60)
    return decode(path, how.size)
how = Decoding(8, chunk_files=4, decode=slow)
load_folder(root, data_dir=data_dir, image_size=8, decoding=how)
"""


@pytest.fixture
def half_decoded(root: Path, data_dir: Path, tmp_path: Path) -> ImageDataset:
    """A folder of which a killed process decoded some shards; what a whole cache would hold."""
    fill(root, "cat", "dog", n=26)
    (root / "cat/3.png").write_bytes(b"")
    (root / "dog/7.png").write_bytes(b"")
    begun = tmp_path / "begun"
    run = subprocess.Popen([sys.executable, "-c", STOPPED, *map(str, (root, data_dir, begun))])
    partial = data_dir / "cache"
    while not (begun.exists() and list(partial.glob(".*.partial/progress.json"))):
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    run.wait()
    return load(root, data_dir=tmp_path / "elsewhere")


def assert_same(one: ImageDataset, other: ImageDataset) -> None:
    assert one.paths == other.paths and one.skipped == other.skipped
    assert np.array_equal(one.X, other.X) and np.array_equal(one.X_test, other.X_test)


def test_killed_decoding_goes_on_at_its_last_whole_shard(
    root: Path, half_decoded: ImageDataset, data_dir: Path
) -> None:
    (partial,) = (data_dir / "cache").glob(".*.partial")
    (partial / ".progress.json.1.tmp").touch()  # killed while it wrote down how far it was
    counted = Counted()
    data = load(root, how=counted.how)
    folders = [name.split("/")[0] for name in counted.names]
    assert folders.count("dog") == 26 and folders.count("cat") <= 26 - 8
    assert_same(data, half_decoded)
    assert [path for path, _ in data.skipped] == ["cat/3.png", "dog/7.png"]
    (name,) = caches(data_dir)
    files = sorted(path.name for path in (data_dir / "cache" / name).iterdir())
    assert files == ["pixels.npy", "progress.json", "states.bin"]


def test_pixels_that_were_written_after_the_last_whole_shard_do_not_count(
    root: Path, half_decoded: ImageDataset, data_dir: Path
) -> None:
    (pixels,) = data_dir.glob("cache/.*.partial/pixels.npy")
    with pixels.open("ab") as file:
        file.write(bytes(1000))
    assert_same(load(root), half_decoded)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"n_files": 9}', b"[]"])
def test_damaged_remains_of_a_killed_process_are_made_anew(
    root: Path, half_decoded: ImageDataset, data_dir: Path, damage: bytes
) -> None:
    (partial,) = data_dir.glob("cache/.*.partial")
    if damage == b"[]":
        (partial / "pixels.npy").write_bytes(b"")
    else:
        (partial / "progress.json").write_bytes(damage)
    assert_same(load(root), half_decoded)


@pytest.mark.parametrize("cut", [False, True], ids=["a byte", "the end"])
def test_decoded_pixels_that_are_damaged_are_made_again_with_a_notice(
    root: Path, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: bool
) -> None:
    fill(root, "cat", "dog")
    (root / "cat/3.png").write_bytes(b"")
    whole = load(root, data_dir=tmp_path / "elsewhere")
    load(root)
    (pixels,) = data_dir.glob("cache/*/pixels.npy")
    content = bytearray(pixels.read_bytes())
    content[200] ^= 255
    pixels.write_bytes(content[:-9] if cut else content)
    assert_same(load(root), whole)
    assert f"{pixels.parent} is damaged and is made again" in caplog.text


def test_unchanged_files_are_not_decoded_again(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    fill(root, "cat", "dog", n=9)
    (root / "cat/bad.png").write_bytes(b"")
    load(root)
    paint(root / "cat/00.png", (1, 2, 3))  # before the others
    paint(root / "dog/4.png", (4, 5, 6))
    (root / "dog/7.png").unlink()
    (root / "cat/8.png").rename(root / "dog/8b.png")
    counted = Counted()
    data = load(root, how=counted.how)
    # what could not be read is tried again
    assert sorted(counted.names) == ["cat/00.png", "cat/bad.png", "dog/4.png", "dog/8b.png"]
    assert "15 of 19 images are unchanged and not decoded again" in caplog.text
    assert_same(data, load(root, data_dir=tmp_path / "elsewhere"))
    load(root, how=counted.how, size=9)
    assert len(counted.names) == 4 + 19  # at another size there is nothing to copy


def test_files_that_exchange_names_exchange_pixels_though_size_and_times_are_equal(
    root: Path, tmp_path: Path
) -> None:
    fill(root, "cat", "dog", suffix="bmp")
    for path in root.rglob("*.bmp"):
        os.utime(path, (10**9, 10**9))  # as archives made for a fixed date unpack
    load(root)
    (root / "cat/1.bmp").rename(root / "away")
    (root / "dog/1.bmp").rename(root / "cat/1.bmp")
    (root / "away").rename(root / "dog/1.bmp")
    assert_same(load(root), load(root, data_dir=tmp_path / "exchanged"))
    shutil.copy2(root / "cat/2.bmp", root / "dog/2.bmp")
    paint(root / "dog/99.bmp", (9, 9, 9))
    counted = Counted()
    data = load(root, how=counted.how)
    assert sorted(counted.names) == ["dog/2.bmp", "dog/99.bmp"]
    assert_same(data, load(root, data_dir=tmp_path / "elsewhere"))
    (root / "cat").rename(root / "away")
    (root / "dog").rename(root / "cat")
    (root / "away").rename(root / "dog")
    assert_same(load(root), load(root, data_dir=tmp_path / "folders exchanged"))


def test_files_that_exchange_names_before_decoding_resumes_are_decoded_again(
    root: Path, half_decoded: ImageDataset, tmp_path: Path
) -> None:
    for one, other in (("cat/0.png", "dog/1.png"), ("cat/1.png", "dog/2.png")):
        (root / one).rename(root / "away")
        (root / other).rename(root / one)
        (root / "away").rename(root / other)
    assert_same(load(root), load(root, data_dir=tmp_path / "exchanged"))


def test_pixels_are_copied_from_the_cache_that_has_most(root: Path, tmp_path: Path) -> None:
    fill(root, "cat", "dog", n=9)
    load(root)
    (root / "dog").rename(tmp_path / "dog")
    load(root)
    (tmp_path / "dog").rename(root / "dog")
    paint(root / "cat/99.png", (9, 9, 9))
    counted = Counted()
    load(root, how=counted.how)
    assert counted.names == ["cat/99.png"]


def test_a_new_label_decodes_nothing(root: Path) -> None:
    for k in range(12):
        paint(root / f"{k}.png", (10 * k, 0, 0))
    table, rows = root / "labels.csv", ["file,label", *(f"{k}.png,{'ab'[k % 2]}" for k in range(9))]
    table.write_text("\n".join(rows[:8]))
    load(root)
    table.write_text("\n".join(rows))
    counted = Counted()
    load(root, how=counted.how)
    assert counted.names == []


def test_pixels_are_right_whatever_changes(root: Path, data_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fill(root, "cat", "dog", n=12)
    for step in range(25):
        for _ in range(int(rng.integers(1, 5))):
            files = sorted(path for path in root.rglob("*.png") if path.is_file())
            one, other = (files[k] for k in rng.choice(len(files), 2, replace=False))
            deed = rng.integers(6)
            if deed == 0:
                paint(one.with_name(f"{step}-{rng.integers(100)}.png"), (step, 90, 90))
            elif deed == 1:
                paint(one, (200, step, int(rng.integers(255))))
            elif deed == 2:
                one.write_bytes(b"no picture")
            elif deed == 3 and len(files) > 12:
                one.unlink()
            elif deed == 4:
                one.replace(other)
            else:
                shutil.move(one, root / ("cat", "dog")[step % 2] / f"moved-{step}-{one.name}")
        assert_same(load(root), load(root, data_dir=tmp_path / f"anew-{step}"))


@pytest.mark.usefixtures("small_shards")
def test_a_stop_while_unchanged_files_are_copied_loses_nothing(root: Path, tmp_path: Path) -> None:
    fill(root, "cat", "dog", n=26)
    (root / "cat/3.png").write_bytes(b"")
    load(root)
    paint(root / "cat/20.png", (9, 9, 9))
    paint(root / "dog/20.png", (8, 8, 8))
    with limited_files(128 + 30 * 3 * 8 * 8), pytest.raises(DataError, match="File too large"):
        load(root)
    counted = Counted()
    data = load(root, how=counted.how)
    assert sorted(counted.names) == ["cat/3.png", "dog/20.png"]
    assert_same(data, load(root, data_dir=tmp_path / "elsewhere"))


@pytest.mark.parametrize("name", ["pixels.npy", "states.bin"])
def test_nothing_is_copied_from_a_damaged_cache(
    root: Path, data_dir: Path, tmp_path: Path, name: str
) -> None:
    fill(root, "cat", "dog")
    load(root)
    (path,) = data_dir.glob(f"cache/*/{name}")
    content = bytearray(path.read_bytes())
    content[-9] ^= 255
    path.write_bytes(content)
    paint(root / "cat/9.png", (9, 9, 9))
    counted = Counted()
    data = load(root, how=counted.how)
    assert len(counted.names) == 11
    assert_same(data, load(root, data_dir=tmp_path / "elsewhere"))


@pytest.mark.parametrize("damage", [None, "states.bin", "pixels.npy"])
def test_what_a_killed_process_decoded_is_used_though_the_folder_changed(
    root: Path, half_decoded: ImageDataset, tmp_path: Path, data_dir: Path, damage: str | None
) -> None:
    paint(root / "dog/99.png", (9, 9, 9))
    (partial,) = data_dir.glob("cache/.*.partial")
    if damage is not None:
        os.truncate(partial / damage, 0 if damage == "states.bin" else 150)
    counted = Counted()
    data = load(root, how=counted.how)
    folders = [name.split("/")[0] for name in counted.names]
    assert folders.count("dog") == 27
    assert folders.count("cat") <= 26 - 8 if damage is None else folders.count("cat") == 26
    assert_same(data, load(root, data_dir=tmp_path / "anew"))
    paint(root / "dog/98.png", (9, 9, 8))
    load(root)
    assert partial.is_dir()
    before = time.time() - 8 * 86_400
    os.utime(partial, (before, before))
    paint(root / "dog/97.png", (9, 9, 7))
    load(root)
    assert not partial.is_dir()


def test_caches_of_earlier_states_go_when_unused_for_a_week_but_the_last(
    root: Path, data_dir: Path
) -> None:
    fill(root, "cat", "dog")
    made: list[str] = []
    for step in range(4):
        paint(root / "cat" / f"new-{step}.png", (9, 9, step))
        hashes_of(load(root).X)
        (new,) = {name for name in caches(data_dir) if "8px" in name} - set(made)
        made.append(new)
        if step == 2:  # the first two were last used a week ago
            for number, name in enumerate(made[:2]):
                before = time.time() - 8 * 86_400 + number
                os.utime(data_dir / "cache" / name, (before, before))
    assert caches(data_dir) == sorted(made[2:])
    # what is used stays, and what is being made
    last, before = data_dir / "cache" / made[3], time.time() - 8 * 86_400
    for name in made[2:]:
        os.utime(data_dir / "cache" / name, (before, before))
    load(root)
    assert last.stat().st_mtime > before + 1
    os.utime(last, (before, before))
    paint(root / "cat/new-4.png", (9, 9, 4))
    with only_one(data_dir / "cache" / f".{made[2]}.lock", "is made"):
        load(root)
    assert set(made[2:]) < set(caches(data_dir))
    left = [path for path in (data_dir / "cache").iterdir() if made[0] in path.name]
    assert [path.suffix for path in left] == [".lock"] * len(left)


@pytest.mark.parametrize("processes_from", [None, 0])
def test_processes_decode_as_threads_do(root: Path, processes_from: int | None) -> None:
    fill(root, "cat", n=30)
    (root / "cat/9.png").write_bytes(b"")
    paths = [f"cat/{k}.png" for k in range(30)]
    chunks = list(decode_many(root, paths, Decoding(8, 2, processes_from)))
    assert len(chunks) == 2
    assert [path for chunk in chunks for path in chunk.paths] == paths
    assert [reason for chunk in chunks for reason in chunk.unread.items()] == [
        ("cat/9.png", "empty file")
    ]
    pixels = np.concatenate([chunk.pixels for chunk in chunks])
    assert pixels[:, 1, 0, 0].tolist() == [min(10 * k, 255) for k in range(30) if k != 9]


def test_huge_split_is_read_from_the_cache_and_equals_the_copy_in_memory(
    root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "cat", "dog", n=10)
    small = load(root)
    before = sorted(data_dir.rglob("*"))
    monkeypatch.setattr("skal.datasets.rows.MOST_COPIED", 0)
    huge = load(root)
    assert isinstance(huge.X, ImageRows) and not huge.X.flags.writeable
    assert isinstance(small.X, np.ndarray) and not isinstance(small.X, np.memmap)
    assert np.array_equal(small.X, huge.X) and np.array_equal(small.X_test, huge.X_test)
    assert sorted(data_dir.rglob("*")) == before


def test_chunks_of_a_large_folder_join_without_a_seam(root: Path) -> None:
    fill(root, "cat", n=26)
    fill(root, "dog", n=9)
    (root / "cat/15.png").write_bytes(b"")
    data = load(root, how=Decoding(8, chunk_files=16))
    for image, path in zip(data.X, data.paths, strict=True):
        assert image[1, 0, 0] == 10 * int(Path(path).stem)
    assert len(all_pixels(data)) == 34


def test_cache_that_cannot_be_written_is_one_clear_error(root: Path, tmp_path: Path) -> None:
    fill(root, "cat")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match=r"cannot write .*Not a directory.*--data-dir"):
        load(root, data_dir=tmp_path / "taken")


def test_full_disk_is_one_clear_error_and_leaves_nothing(
    root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "cat")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        load(root)
    assert caches(data_dir) == []


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "SHARD_BYTES", 4 * 3 * 8 * 8)


@pytest.mark.usefixtures("small_shards")
def test_full_disk_in_the_midst_keeps_what_is_decoded(
    root: Path, data_dir: Path, tmp_path: Path
) -> None:
    fill(root, "cat", n=26)
    whole = load(root, data_dir=tmp_path / "elsewhere")
    counted = Counted()
    with limited_files(128 + 10 * 3 * 8 * 8), pytest.raises(DataError, match="File too large"):
        load(root, how=Decoding(8, chunk_files=4))
    assert_same(load(root, how=counted.how), whole)
    assert len(counted.names) == 26 - 8
    assert len(caches(data_dir)) == 1


@contextmanager
def limited_files(most: int) -> Iterator[None]:
    """Let the system refuse to write more than so many bytes into a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_disk_that_is_likely_to_become_full_is_told_beforehand(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "cat", n=3)
    nearly_full = shutil._ntuple_diskusage(100, 0, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    load(root)
    assert "the decoded images take 1 KiB" in caplog.text and "0 KiB are free" in caplog.text


def test_cache_within_the_folder_is_no_part_of_it(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, "cat", "dog")
    first, second = load(root, data_dir=root), load(root, data_dir=root)
    assert first.classes == second.classes == ("cat", "dog")
    assert first.paths == second.paths and caplog.records == []


def test_clean_folder_gives_no_notice(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "skal")
    fill(root, "train/cat", "train/dog", "test/cat", "test/dog", "unlabeled")
    load(root)
    assert caplog.records == []


def test_broken_tiffs_are_named_and_libtiff_says_nothing(root: Path, tmp_path: Path) -> None:
    """In a process of its own, since what libtiff writes comes from C."""
    save(root, Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)), "good.png")
    path = root / "x" / "broken.tif"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(
        path, compression="tiff_adobe_deflate"
    )
    content = bytearray(path.read_bytes())
    content[200:220] = bytes(20)
    path.write_bytes(content)
    code = (
        "import skal, sys, logging\n"
        "logging.basicConfig(level='WARNING', format='%(message)s')\n"
        "skal.load_dataset(sys.argv[1], image_size=16, data_dir=sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "Decod" in line or "ZIP" in line]
    assert not lines, done.stderr
    assert "broken.tif" in done.stderr
