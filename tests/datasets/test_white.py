"""What is black and white in files of more than 8 bits: decided once a dataset, and told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from skal.core.errors import ParameterError
from skal.datasets import ImageDataset, formats, load_dataset, pictures
from skal.datasets.deep import Range, Ranges
from skal.datasets.loading import how_to_decode

SIDE = 16
Array = np.ndarray[Any, Any]
RAMP = np.add.outer(np.arange(SIDE), np.arange(SIDE)) / (2 * SIDE - 2)
"""From 0 to 1."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


def save(root: Path, *arrays: Array, name: str = "x", no_data: str = "") -> None:
    """Write images of a class as TIFF, unlike each other in nothing but their pixels."""
    (root / name).mkdir(parents=True, exist_ok=True)
    tags = ImageFileDirectory_v2()
    if no_data:
        tags[42113] = no_data
        tags.tagtype[42113] = 2
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(root / name / f"{number}.tif", tiffinfo=tags)


def pixels(root: Path, **how: Any) -> Array:
    """Return the images, grey, in the order of their names."""
    data = load_dataset(root, image_size=SIDE, **how)
    assert data.skipped == () and len(data.paths) + len(data.X_test) == len(data.X) + 1
    return in_order(data)


def in_order(data: ImageDataset) -> Array:
    rows = np.concatenate([data.X, data.X_test])[:, 0].astype(int)
    names = [*data.paths, *(set(all_names(data)) - set(data.paths))]
    return rows[np.argsort(names)]


def all_names(data: ImageDataset) -> list[str]:
    assert data.root is not None
    return sorted(str(path.relative_to(data.root)) for path in data.root.rglob("*.tif"))


def whole(scale: float, shift: float = 0, dtype: Any = np.uint16) -> Array:
    return np.rint(RAMP * scale + shift).astype(dtype)


def test_floats_that_go_above_1_and_those_that_do_not_are_scaled_alike(root: Path) -> None:
    tops = (1.02, 0.98, 1.02, 0.98)
    save(root, *((RAMP * top).astype(np.float32) for top in tops))
    shown = pixels(root)
    for image, top in zip(shown, tops, strict=True):
        assert np.abs(image - np.clip(RAMP * top, 0, 1) * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("top", "white"),
    [
        *[(1, 1), (250, 255), (1000, 1023), (4095, 4095), (4200, 4095), (3000, 4095)],
        *[(16000, 16383), (65535, 65535), (40000, 65535), (1800, 1800), (25000, 25000)],
    ],
)
def test_white_is_the_nominal_one_near_by_or_as_bright_as_the_images_are(
    root: Path, top: int, white: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    save(root, *[whole(top)] * 3)
    data = load_dataset(root, image_size=SIDE)
    assert float(data.white.removesuffix(",none")) == pytest.approx(white, rel=0.002)
    assert np.abs(in_order(data) - np.clip(whole(top) / white, 0, 1) * 255).max() <= 1
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert "as white" in line and f"to {top}" in line and "--white" in line


def test_levels_far_from_black_are_spread_over_all_greys(root: Path) -> None:
    save(root, *[whole(2000, 27000)] * 3)
    data = load_dataset(root, image_size=SIDE)
    black, white = map(float, data.white.removesuffix(",none").split(":"))
    assert 27000 <= black < 27100 and 28900 < white <= 29000
    assert len(np.unique(in_order(data))) > 25


def test_a_pixel_below_zero_changes_nothing(root: Path) -> None:
    twin = whole(4000, dtype=np.int32)
    odd = twin.copy()
    odd[0, 1] = -1
    save(root, odd, twin, twin)
    shown = pixels(root)
    assert shown[0, 0, 1] == 0
    shown[0, 0, 1] = shown[1, 0, 1]
    assert np.array_equal(shown[0], shown[1])


def test_values_around_zero_are_spread_from_the_lowest_on(root: Path) -> None:
    save(root, *[(RAMP * 2 - 1).astype(np.float32)] * 3)
    shown = pixels(root)
    assert shown.min() < 3 and shown.max() > 252 and abs(np.median(shown) - 128) < 3


@pytest.mark.parametrize("no_data", ["-9999", "7777", "nan"])
def test_no_data_is_black_and_stretches_nothing(root: Path, no_data: str) -> None:
    plain = (whole(200) + 1).astype(np.float32)
    holed = plain.copy()
    holed[:4] = float(no_data)
    save(root, plain, name="a")
    save(root, holed, holed, name="b", no_data=no_data)
    shown = pixels(root)
    assert np.all(shown[1:, :4] == 0)
    assert np.array_equal(shown[1, 4:], shown[0, 4:]) and abs(shown[0, -1, -1] - 201) <= 1


@pytest.mark.parametrize("no_data", [-9999, -32768, np.inf, -3.4e38])
def test_no_data_that_the_file_does_not_name_stretches_nothing(root: Path, no_data: float) -> None:
    plain = whole(200).astype(np.float32)
    holed = plain.copy()
    holed[:4] = no_data
    save(root, plain, holed, holed)
    shown = pixels(root)
    assert np.all(shown[1:, :4] == 0) and np.array_equal(shown[1, 4:], shown[0, 4:])


def test_images_of_one_value_are_read_and_decide_nothing(root: Path) -> None:
    blank = [np.full((SIDE, SIDE), value, np.float32) for value in (-9999, 0, 0.5, 70000, np.nan)]
    save(root, *blank, name="blank")
    save(root, *[RAMP.astype(np.float32)] * 2)
    data = load_dataset(root, image_size=SIDE)
    assert data.skipped == () and data.white == "none,1"
    assert [int(image[0, 0]) for image in in_order(data)[:5]] == [0, 0, 128, 255, 0]


def test_whole_numbers_and_fractions_have_each_their_own_white(root: Path) -> None:
    save(root, *[RAMP.astype(np.float32)] * 2, name="a")
    save(root, *[whole(4095)] * 2, name="b")
    data = load_dataset(root, image_size=SIDE)
    assert data.white == "4095,1"
    shown = in_order(data)
    assert np.abs(shown - RAMP * 255).max() <= 0.55
    again = load_dataset(root, image_size=SIDE, white=data.white)
    assert np.array_equal(in_order(again), shown)


@pytest.mark.parametrize(("white", "top"), [(8000, 4000), ("8000", 4000), ("1000:3000", 4000)])
def test_white_that_is_given_is_used(root: Path, white: Any, top: int) -> None:
    save(root, *[whole(top)] * 3)
    low, high = (1000, 3000) if ":" in str(white) else (0, 8000)
    expected = np.clip((whole(top) - float(low)) / (high - low), 0, 1) * 255
    assert np.abs(pixels(root, white=white) - expected).max() <= 0.51


@pytest.mark.parametrize(
    "white", [0, -1, "x", "5:4", "1:2:3", "1,2,3", "none", "none,none", float("nan"), True]
)
def test_white_that_makes_no_sense_is_refused(root: Path, white: Any) -> None:
    save(root, whole(9))
    with pytest.raises(ParameterError, match=r"white: got .*LOW:HIGH"):
        load_dataset(root, white=white)


def test_what_was_found_and_what_is_given_share_one_cache(root: Path, tmp_path: Path) -> None:
    save(root, *[whole(4000)] * 3)
    cache = tmp_path / "data/cache"
    found = load_dataset(root, image_size=SIDE, data_dir=tmp_path / "data")
    before = sorted(cache.iterdir())
    again = load_dataset(root, image_size=SIDE, data_dir=tmp_path / "data", white=found.white)
    assert sorted(cache.iterdir()) == before and again.white == found.white == "4095,none"
    load_dataset(root, image_size=SIDE, data_dir=tmp_path / "data", white=3000)
    assert len(sorted(cache.iterdir())) > len(before)


RANGES = [None, Range(0, 1), Range(0, 4095), Range(-0.5, 1), Range(27000, 29000)]


@pytest.mark.parametrize("whole", RANGES)
@pytest.mark.parametrize("fractions", RANGES)
def test_ranges_are_read_back_as_they_were_written(
    whole: Range | None, fractions: Range | None
) -> None:
    ranges = Ranges(whole, fractions)
    assert Ranges.parse(str(ranges)) == ranges
    if ranges != Ranges():
        assert how_to_decode(white=str(ranges)).ranges == ranges


@pytest.mark.parametrize("white", ["4095", "100:4095"])
def test_white_that_is_given_is_that_of_both_kinds(white: str) -> None:
    ranges = how_to_decode(white=white).ranges
    assert ranges.whole == ranges.fractions is not None and str(ranges) == white


def test_a_kind_that_was_not_decided_is_scaled_by_its_type_and_told(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(root, *[RAMP.astype(np.float32)] * 3)
    found = load_dataset(root, image_size=SIDE)
    assert "no value of white was decided" not in caplog.text
    save(tmp_path / "new", *[whole(65535)] * 3)
    shown = pixels(tmp_path / "new", white=found.white)
    assert np.abs(shown - RAMP * 255).max() <= 1
    (line,) = [line for line in caplog.messages if "no value of white was decided" in line]
    assert "whole numbers" in line and "--white" in line


def test_folder_of_8_bits_says_nothing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "skal")
    save(root, *(whole(top, dtype=np.uint8) for top in (255, 254, 253)))
    assert load_dataset(root, image_size=SIDE).white == "" and caplog.records == []


def test_white_is_0_in_some_tiffs(root: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    (root / "x").mkdir(parents=True)
    for number in range(2):
        tifffile.imwrite(root / f"x/{number}.tif", whole(65535), photometric="miniswhite")
    assert np.abs(pixels(root) - (1 - RAMP) * 255).max() <= 0.51


def test_pages_are_told_and_averaged_when_asked(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    (root / "x").mkdir(parents=True)
    for number in range(2):
        first, *others = (Image.fromarray(whole(top)) for top in (60000, 30000, 0))
        first.save(root / f"x/{number}.tif", save_all=True, append_images=others)
    first_page = pixels(root, white=65535)
    assert "2 of 2 files examined have several pages" in caplog.text
    caplog.clear()
    mean = pixels(root, white=65535, pages="mean")
    assert "several pages" not in caplog.text
    assert np.abs(mean - RAMP * 30000 / 65535 * 255).max() <= 1
    assert np.abs(first_page - RAMP * 60000 / 65535 * 255).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_one_ome_set_hold_each_their_own_pixels_and_are_told(
    root: Path, dtype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile = pytest.importorskip("tifffile")
    caplog.set_level(logging.INFO, "skal")
    (root / "x").mkdir(parents=True)
    names = ["0.ome.tif", "1.ome.tif", "2.ome.tif"]
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID>'
        "</TiffData>"
        for z, name in enumerate(names)
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float" '
        f'SizeX="{SIDE}" SizeY="{SIDE}" SizeZ="3" SizeC="1" SizeT="1">{data}</Pixels></Image></OME>'
    )
    for number, name in enumerate(names):
        pixels_of_one = (RAMP * (number + 1) / 3).astype(dtype)
        tifffile.imwrite(root / "x" / name, pixels_of_one, description=xml, metadata=None)
    shown = pixels(root, white=1)
    assert [int(image.max()) for image in shown] == [85, 170, 255]
    assert "3 of 3 files examined are part of OME sets of several files" in caplog.text


@pytest.mark.parametrize("suffix", ["png", "ppm"])
@pytest.mark.parametrize("is_there", [True, False])
def test_colours_of_12_bits_are_read_whole_or_told(
    root: Path,
    suffix: str,
    is_there: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cv2 = pytest.importorskip("cv2")
    if is_there:
        pytest.importorskip("imagecodecs")
    else:
        monkeypatch.setattr(pictures.formats, "is_installed", lambda module: False)
    caplog.set_level(logging.INFO, "skal")
    (root / "x").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(root / f"x/{number}.{suffix}"), np.repeat(whole(4095)[..., None], 3, 2))
    data = load_dataset(root, image_size=SIDE)
    if is_there and suffix == "png":
        assert np.abs(data.X[0, 0] - RAMP * 255).max() <= 0.55 and data.white == "4095,none"
        assert "upper 8" not in caplog.text
    else:
        assert "3 of 3 files examined have 16-bit colours" in caplog.text


def test_files_are_decoded_once_their_extra_is_installed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    save(root, *[whole(255, dtype=np.uint8)] * 3)
    for number in range(2):
        fits.PrimaryHDU(whole(200, dtype=np.uint8)).writeto(root / f"x/odd{number}.fits")
        (root / f"x/odd{number}.fits").rename(root / f"x/odd{number}.tif")
    found = formats.is_installed
    monkeypatch.setattr(formats, "is_installed", lambda name: name != "astropy" and found(name))
    settings = {"image_size": SIDE, "data_dir": tmp_path / "data"}
    assert len(load_dataset(root, **settings).skipped) == 2
    monkeypatch.setattr(formats, "is_installed", found)
    assert load_dataset(root, **settings).skipped == ()
