"""Pixels as instruments write them, against what other libraries make of the same files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from skal.core.errors import DataError
from skal.datasets.decoding import decode
from skal.datasets.deep import Range, Ranges

SIDE = 48
SHOWN = Ranges(Range(0, 4095), Range(0, 1))
"""What is black and white in the files of these tests."""
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is written, and the pixels that it holds."""

    name: str
    write: Callable[[Path], Any]
    truth: Array
    tolerance: int = 0
    inverted: bool = False

    def __str__(self) -> str:
        return self.name


def numbers(dtype: str, *bands: int) -> Array:
    """Return smooth pixels, a gradient and a few others, as a microscope's or a camera's."""
    ramp = np.add.outer(np.arange(SIDE), 2 * np.arange(SIDE)) / (3.0071 * SIDE)
    pixels = np.stack([np.roll(ramp, 7 * band, 0) for band in range(bands[0] if bands else 1)], -1)
    pixels = pixels if bands else pixels[..., 0]
    if np.dtype(dtype).kind == "f":
        return pixels.astype(dtype)
    return (pixels * (255 if dtype == "u1" else 100 if dtype == "i1" else 4000)).astype(dtype)


def tiff(dtype: str, *bands: int, **how: Any) -> Kind:
    """Return a TIFF as tifffile writes it."""
    pixels = numbers(dtype, *bands)
    stored = np.moveaxis(pixels, -1, 0) if how.get("planarconfig") == "separate" else pixels
    how = {"photometric": "rgb" if bands in ((3,), (4,)) else "minisblack", **how}
    inverted = how["photometric"] == "miniswhite"

    def write(path: Path) -> None:
        pytest.importorskip("tifffile").imwrite(path, stored, metadata=None, **how)

    said = ",".join(f"{value}" for key, value in how.items() if key != "photometric")
    name = f"{dtype}{''.join(f'x{n}' for n in bands)}-{how['photometric']}-{said}.tif"
    truth = pixels[..., 0] if bands == (2,) else pixels[..., :3] if bands else pixels
    if inverted:
        truth = np.iinfo(dtype).max - truth
    return Kind(name.replace("-.", "."), write, truth, inverted=inverted)


def pillow(name: str, dtype: str, *bands: int, tolerance: int = 0, **how: Any) -> Kind:
    """Return a file as Pillow writes it."""
    pixels = numbers(dtype, *bands)
    return Kind(name, lambda path: Image.fromarray(pixels).save(path, **how), pixels, tolerance)


def opencv(name: str, dtype: str, *bands: int, tolerance: int = 0) -> Kind:
    """Return a file as OpenCV writes it."""
    pixels = numbers(dtype, *bands)

    def write(path: Path) -> None:
        stored = pixels[..., ::-1] if bands else pixels
        assert pytest.importorskip("cv2").imwrite(str(path), stored)

    return Kind(name, write, pixels, tolerance)


def with_plugin(name: str, module: str, opener: str, tolerance: int) -> Kind:
    """Return a file as a plugin of Pillow writes it."""
    pixels = np.repeat(numbers("u1")[..., None], 3, 2)  # of colours these keep a quarter

    def write(path: Path) -> None:
        plugin = pytest.importorskip(module)
        getattr(plugin, opener, lambda: None)()
        Image.fromarray(pixels).save(path, quality=95)

    return Kind(name, write, pixels, tolerance)


def fits(name: str, dtype: str, **how: Any) -> Kind:
    """Return a FITS file; its first row is the one below."""
    pixels = numbers(dtype)

    def write(path: Path) -> None:
        of = pytest.importorskip("astropy.io.fits")
        hdu = (of.CompImageHDU if how.get("packed") else of.PrimaryHDU)(pixels[::-1].copy())
        hdu.writeto(path)

    return Kind(name, write, pixels)


def dicom(name: str, shown: Callable[[Array], Array], dtype: str = "u2", **tags: Any) -> Kind:
    """Return a DICOM file of these tags."""
    pixels = numbers(dtype, *([3] if tags.get("SamplesPerPixel") == 3 else []))
    return Kind(name, partial(write_dicom, pixels=pixels, **tags), shown(pixels))


def write_dicom(path: Path, pixels: Array, **tags: Any) -> None:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[:2]
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored, data.HighBit = data.BitsAllocated, data.BitsAllocated - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


def window(values: Array, centre: float, width: float) -> Array:
    """Return what PS3.3 C.11.2.1.2.1 makes of values, word for word."""
    shown = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    shown = np.where(values <= centre - 0.5 - (width - 1) / 2, 0, shown)
    return np.rint(np.where(values > centre - 0.5 + (width - 1) / 2, 255, shown)).astype(np.uint8)


KINDS = [
    *(tiff(dtype) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")),
    tiff("u1", photometric="miniswhite"),
    tiff("u2", photometric="miniswhite"),
    *(tiff("u2", compression=name) for name in ("zlib", "lzw", "zstd", "packbits")),
    *(tiff(dtype, compression="zlib", predictor=True) for dtype in ("u1", "u2")),
    tiff("f4", compression="zlib", predictor=True),
    *(tiff(dtype, byteorder=">") for dtype in ("u2", "i2", "u4", "f4", "f8")),
    *(tiff(dtype, tile=(16, 16)) for dtype in ("u1", "u2", "f4")),
    *(tiff(dtype, bigtiff=True) for dtype in ("u1", "u2", "f8")),
    *(tiff(dtype, 3) for dtype in ("u1", "u2", "u4", "i2", "f4", "f8")),
    *(tiff(dtype, 3, planarconfig="separate") for dtype in ("u1", "u2", "f4")),
    *(tiff("u2", n, photometric="minisblack", planarconfig="contig") for n in (2, 3, 5, 13)),
    *(tiff("u1", n, photometric="minisblack", planarconfig="contig") for n in (2, 5)),
    tiff("u2", 13, planarconfig="separate"),
    tiff("f4", 5, planarconfig="contig"),
    tiff("u2", 3, tile=(16, 16), compression="zlib"),
    pillow("l.png", "u1"),
    pillow("rgb.png", "u1", 3),
    pillow("deep.png", "u2"),
    pillow("l.bmp", "u1"),
    pillow("rgb.bmp", "u1", 3),
    pillow("l.gif", "u1"),
    pillow("rgb.webp", "u1", 3, lossless=True),
    pillow("rgb.jpg", "u1", 3, tolerance=4, quality=100, subsampling=0),
    pillow("rgb.avif", "u1", 3, tolerance=8, quality=100, subsampling="4:4:4"),
    pillow("l.jp2", "u1"),
    pillow("rgb.jp2", "u1", 3),
    pillow("deep.jp2", "u2"),
    pillow("l.pgm", "u1"),
    pillow("rgb.ppm", "u1", 3),
    opencv("opencv-deep.png", "u2"),
    opencv("opencv-deep.tif", "u2"),
    opencv("opencv-deep-rgb.png", "u2", 3),
    opencv("opencv-float.tif", "f4"),
    opencv("opencv-rgb.tif", "u1", 3),
    opencv("opencv-deep-rgb.tif", "u2", 3),
    opencv("opencv.jp2", "u1", 3, tolerance=8),
    with_plugin("rgb.heic", "pillow_heif", "register_heif_opener", 8),
    with_plugin("rgb.jxl", "pillow_jxl", "", 8),
    fits("u2.fits", "u2"),
    fits("i2.fits", "i2"),
    fits("f4.fits", "f4"),
    fits("packed.fits", "i2", packed=True),
    dicom("plain.dcm", lambda stored: stored),
    dicom("signed.dcm", lambda stored: stored, "i2"),
    dicom("bytes.dcm", lambda stored: stored, "u1"),
    dicom("rescaled.dcm", lambda a: a * 2 - 100, "i2", RescaleSlope=2, RescaleIntercept=-100),
    dicom("inverted.dcm", lambda a: 65535 - a, PhotometricInterpretation="MONOCHROME1"),
    dicom("window.dcm", lambda a: window(a, 800, 600), WindowCenter=800, WindowWidth=600),
    dicom(
        "exact.dcm",
        lambda a: np.rint(255 * np.clip((a - 800.0) / 600 + 0.5, 0, 1)).astype(np.uint8),
        WindowCenter=800,
        WindowWidth=600,
        VOILUTFunction="LINEAR_EXACT",
    ),
    dicom(
        "sigmoid.dcm",
        lambda a: np.rint(255 / (1 + np.exp(-4 * (a - 800.0) / 600))).astype(np.uint8),
        WindowCenter=800,
        WindowWidth=600,
        VOILUTFunction="SIGMOID",
    ),
    dicom(
        "ct.dcm",
        lambda a: window(a - 1024.0, 40, 400),
        RescaleIntercept=-1024,
        RescaleSlope=1,
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
    ),
    dicom(
        "rgb.dcm",
        lambda stored: stored,
        "u1",
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        PhotometricInterpretation="RGB",
    ),
]


def scaled(values: Array) -> Array:
    """Return 8 bits, of three channels, of pixels as a file holds them."""
    if values.dtype != np.uint8:
        white = 1 if values.dtype.kind == "f" else 4095
        values = np.rint(np.clip(values.astype(np.float64), 0, white) * (255 / white))
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, 2)
    return values.astype(int)


def by_tifffile(path: Path) -> Array | None:
    tifffile = pytest.importorskip("tifffile")
    if path.suffix != ".tif":
        return None
    with tifffile.TiffFile(path) as file:
        pixels: Array = file.pages[0].asarray()
        return np.moveaxis(pixels, 0, -1) if file.pages[0].axes == "SYX" else pixels


def by_imageio(path: Path) -> Array | None:
    imageio = pytest.importorskip("imageio.v3")
    if path.suffix in (".dcm", ".fits", ".jxl", ".heic", ".tif"):
        return None  # it does not read them, or by tifffile, which is asked already
    if path.name == "opencv-deep-rgb.png":
        return None  # it keeps the upper 8 bits
    return np.asarray(imageio.imread(path))


def by_opencv(path: Path) -> Array | None:
    cv2 = pytest.importorskip("cv2")
    others = path.name.startswith(("i1", "u4", "u2x2", "u2x3-minisblack"))
    if (
        path.suffix in (".dcm", ".fits", ".gif", ".avif")
        or others
        or "x3-rgb-separate" in path.name
    ):
        return None  # of signed, 32-bit and two-band numbers it makes others, of planes stripes
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return read if read is None or read.ndim == 2 else read[..., [2, 1, 0]]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_decoded_pixels_are_those_that_were_written(kind: Kind, tmp_path: Path) -> None:
    kind.write(tmp_path / kind.name)
    read = decode(tmp_path / kind.name, SIDE, ranges=SHOWN).transpose(1, 2, 0).astype(int)
    assert np.abs(read - scaled(kind.truth)).max() <= kind.tolerance


@pytest.mark.parametrize("reader", [by_tifffile, by_imageio, by_opencv])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_decoded_pixels_are_those_of_other_libraries(
    kind: Kind, reader: Callable[[Path], Array | None], tmp_path: Path
) -> None:
    kind.write(tmp_path / kind.name)
    theirs = reader(tmp_path / kind.name)
    if theirs is None:
        pytest.skip("not read")
    if theirs.ndim == 3:
        theirs = theirs[..., 0] if theirs.shape[2] == 2 else theirs[..., :3]
    if kind.inverted and (theirs.dtype == np.uint16 or reader is by_tifffile):
        theirs = np.iinfo(theirs.dtype).max - theirs
    ours = decode(tmp_path / kind.name, SIDE, ranges=SHOWN).transpose(1, 2, 0).astype(int)
    assert np.abs(ours - scaled(theirs)).max() <= kind.tolerance


def shown_by_skal(path: Path) -> Array:
    return decode(path, SIDE, ranges=SHOWN).transpose(1, 2, 0).astype(int)


def test_a_dicom_files_own_table_says_how_its_values_are_shown(tmp_path: Path) -> None:
    table = pytest.importorskip("pydicom").Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = np.arange(4095, -1, -1, dtype="<u2").tobytes()
    pixels = numbers("u2")
    write_dicom(tmp_path / "table.dcm", pixels, VOILUTSequence=[table])
    assert np.array_equal(shown_by_skal(tmp_path / "table.dcm"), scaled(4095 - pixels))


@pytest.mark.parametrize("kind", ["png", "unassalpha", "assocalpha"])
def test_transparent_colours_of_16_bits_lie_on_white(kind: str, tmp_path: Path) -> None:
    pixels, path = numbers("u2", 3), tmp_path / ("x.png" if kind == "png" else "x.tif")
    alpha = np.full((SIDE, SIDE, 1), 65535, np.uint16)
    alpha[:, :20] = 0
    alpha[:, 20:25] = 64000  # of which white shows through by 1535
    colours = np.rint(pixels * (alpha / 65535)).astype(np.uint16)
    stored = np.concatenate([colours if kind == "assocalpha" else pixels, alpha], axis=2)
    if kind == "png":
        path.write_bytes(pytest.importorskip("imagecodecs").png_encode(stored))
    else:
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, stored, photometric="rgb", extrasamples=[kind])
    assert np.abs(shown_by_skal(path) - scaled(colours + (65535 - alpha))).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "LA", "L", "1", "P", "PA", "CMYK", "turned"])
def test_large_images_look_as_they_do_when_all_their_pixels_are_scaled(
    mode: str, tmp_path: Path
) -> None:
    rng, size = np.random.default_rng(0), (4111, 4097)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 4), np.uint8), "RGBA")
    image = coarse.resize(size, Image.Resampling.NEAREST)
    if mode == "P":
        image = image.convert("RGB").quantize(16)
        image.info["transparency"] = 3
    elif mode in ("PA", "CMYK"):
        image = image.convert("LA").convert("PA") if mode == "PA" else image.convert("RGB")
        image = image.convert(mode)
    elif mode not in ("RGBA", "turned"):
        image = image.convert(mode)
    exif = Image.Exif()
    if mode == "turned":
        exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / f"image.{'tif' if mode in ('PA', 'CMYK') else 'png'}", exif=exif)
    image = ImageOps.exif_transpose(Image.open(next(tmp_path.iterdir()))).convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    whole = ImageOps.fit(on_white, (32, 32), method=Image.Resampling.BICUBIC)
    file = next(tmp_path.iterdir())
    differences = np.abs(decode(file, 32).transpose(1, 2, 0).astype(int) - np.asarray(whole))
    assert differences.max() <= 12 and differences.mean() < 1, differences.mean()


def test_files_of_instruments_without_an_image_are_told(tmp_path: Path) -> None:
    pydicom, of = pytest.importorskip("pydicom"), pytest.importorskip("astropy.io.fits")
    write_dicom(tmp_path / "x.dcm", numbers("u2"))
    data = pydicom.dcmread(tmp_path / "x.dcm")
    del data.PixelData
    data.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match="a DICOM file without pixels"):
        decode(tmp_path / "x.dcm", SIDE, ranges=SHOWN)
    of.PrimaryHDU(np.arange(5)).writeto(tmp_path / "x.fits")
    with pytest.raises(DataError, match="a FITS file without an image"):
        decode(tmp_path / "x.fits", SIDE, ranges=SHOWN)
