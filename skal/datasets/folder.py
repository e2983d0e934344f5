"""A folder of images, as people keep them, to uint8 arrays."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ..errors import DataError, DatasetNotFoundError
from ..seeding import derive_seed
from .base import MISSING_LABEL, ImageDataset, Images, Labels, stratified_split

DEFAULT_IMAGE_SIZE = 64
TEST_SHARE = 0.2
DECODER_VERSION = 1
"""Part of the cache's key: raise it whenever `decode` changes a pixel."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)
UNLABELED = frozenset(("unlabeled", "unlabelled"))
VALIDATION = frozenset(("val", "valid", "validation"))
LARGEST_COPY = 2**31
"""Bytes of a split that are copied into memory; a larger one becomes a memmap of its own."""
CHUNK = 1024
"""Images in flight while decoding, so that a slow disk never piles them up in memory."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class ImageFile:
    """One file found: where it is, and what its place says about it."""

    path: str
    part: str  # "train", "test" or "unlabeled"
    label: str | None


def load_folder(
    root: Path,
    *,
    data_dir: Path,
    image_size: int | None = None,
    seed: int = 0,
    name: str | None = None,
) -> ImageDataset:
    """Read a folder of images.

    ``ROOT/<class>/**`` is split by `seed`, stratified, one fifth for the test; with
    ``ROOT/train/<class>/**`` and ``ROOT/test/<class>/**`` the split is given. Images directly
    under ``ROOT``, ``ROOT/train`` or ``ROOT/test``, and those under ``ROOT/unlabeled``, are
    unlabelled.

    Parameters
    ----------
    root : Path
        The folder.
    data_dir : Path
        Where the cache of decoded pixels goes.
    image_size : int, default=64
        Height and width of the decoded images, in pixels: scaled to cover the square, then cut
        to its centre.
    seed : int, default=0
        Decides the split where none is given.
    name : str, optional
        Name of the dataset; the folder's own by default.

    Returns
    -------
    ImageDataset
        With `X` of three channels. Unreadable files are in `skipped`.

    Raises
    ------
    DatasetNotFoundError
        If there is no such folder.
    DataError
        If no image in it can be read.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DatasetNotFoundError(
            f"{str(root)!r} {what}; expected a folder with one subfolder of images per class"
        )
    files = find_images(root)
    size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    pixels, kept, skipped = decode_all(root, files, size, data_dir / "cache")
    _tell_skipped(skipped)
    if not kept:
        raise DataError(f"none of the {len(files)} images under {str(root)!r} can be read")

    classes = tuple(sorted({file.label for file in kept if file.label is not None}))
    ids = {label: number for number, label in enumerate(classes)}
    y = np.array(
        [MISSING_LABEL if file.label is None else ids[file.label] for file in kept], dtype=np.int64
    )
    rows = {
        part: np.flatnonzero([file.part == part for file in kept])
        for part in ("train", "test", "unlabeled")
    }
    if not len(rows["test"]):
        train, test = stratified_split(y[rows["train"]], TEST_SHARE, derive_seed(seed, "split"))
        rows["train"], rows["test"] = rows["train"][train], rows["train"][test]
    _tell_unseen(classes, y[rows["train"]], y[rows["test"]])

    return ImageDataset(
        X=take_rows(pixels, rows["train"]),
        y=y[rows["train"]],
        X_test=take_rows(pixels, rows["test"]),
        y_test=y[rows["test"]],
        X_unlabeled=take_rows(pixels, rows["unlabeled"]),
        classes=classes,
        name=name or root.resolve().name,
        paths=tuple(kept[row].path for row in rows["train"]),
        paths_unlabeled=tuple(kept[row].path for row in rows["unlabeled"]),
        root=root.resolve(),
        augmentation=("flip", "shift"),
        skipped=tuple(skipped),
    )


def find_images(root: Path) -> list[ImageFile]:
    """List the image files under a folder, training part first, then test, then unlabelled.

    Hidden files and folders are passed over; links are followed, each folder once.

    Parameters
    ----------
    root : Path
        The folder.

    Returns
    -------
    list of ImageFile
        Within each part in the order of their relative paths.

    Raises
    ------
    DataError
        If there is no file with the suffix of an image.
    """
    images: list[PurePosixPath] = []
    others: Counter[str] = Counter()
    empty: list[str] = []
    for folder, names in _walk(root):
        found = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        others.update(Path(name).suffix.lower() or name for name in set(names) - set(found))
        images.extend(folder / name for name in found)
        if not found and len(folder.parts) == 1:
            empty.append(str(folder))
    if not images:
        seen = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        raise DataError(
            f"no image under {str(root)!r} (found: {seen or 'no file'}); expected "
            f"{', '.join(FORMATS)} files in one subfolder per class"
        )
    parts = _given_parts(images)
    files = [_place(path, parts) for path in images]
    with_images = {PurePosixPath(file.path).parts[0] for file in files}
    for name in sorted(set(empty) - with_images - UNLABELED - set(parts)):
        _log.warning("the folder %r has no image in it and is not a class", name)
    others_than = Counter(file.path.split("/")[0] for file in files if file.part == "other")
    for name, count in sorted(others_than.items()):
        _log.warning("passed over %r (%d images): neither train, test nor unlabeled", name, count)
    order = {"train": 0, "test": 1, "unlabeled": 2}
    files = [file for file in files if file.part in order]
    return sorted(files, key=lambda file: (order[file.part], file.path))


def _walk(root: Path) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """Yield each folder below `root`, relative to it, with the names of its files."""
    seen: set[tuple[int, int]] = set()
    for directory, folders, names in os.walk(root, onerror=_tell_unlistable, followlinks=True):
        status = Path(directory).stat()
        key = (status.st_dev, status.st_ino)
        if key in seen:  # a link back to where the walk has been
            folders.clear()
            continue
        seen.add(key)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        relative = PurePosixPath(Path(directory).relative_to(root).as_posix())
        yield relative, [name for name in names if not name.startswith(".")]


def _tell_unlistable(error: OSError) -> None:
    _log.warning("passed over a folder that cannot be listed: %s", error)


def _given_parts(images: list[PurePosixPath]) -> dict[str, str]:
    """Map the top folders of a given split to its parts; empty where no split is given."""
    nested = {path.parts[0] for path in images if len(path.parts) > 2}
    if "train" not in nested:
        return {}
    parts = {"train": "train", "test": "test"}
    if "test" not in nested:
        parts.update((name, "test") for name in nested & VALIDATION)
    return parts


def _place(path: PurePosixPath, parts: dict[str, str]) -> ImageFile:
    """Tell from where an image lies which part and class it belongs to."""
    folders = path.parts[:-1]
    part = "train"
    if parts and folders and folders[0].lower() not in UNLABELED:
        part, folders = parts.get(folders[0], "other"), folders[1:]
    if part != "other" and (not folders or folders[0].lower() in UNLABELED):
        return ImageFile(str(path), "unlabeled", None)
    return ImageFile(str(path), part, folders[0] if folders else None)


def decode_all(
    root: Path, files: list[ImageFile], size: int, cache_dir: Path
) -> tuple[Images, list[ImageFile], list[tuple[str, str]]]:
    """Decode all files into one uint8 memmap, or open the one made before.

    Parameters
    ----------
    root : Path
        The folder that the files' paths are relative to.
    files : list of ImageFile
        What to decode.
    size : int
        Height and width in pixels.
    cache_dir : Path
        Where memmaps are kept, one folder each, named by a hash of the paths, sizes and
        modification times of the files, the image size and the decoder's version.

    Returns
    -------
    pixels : memmap of uint8, shape (n_kept, 3, size, size)
    kept : list of ImageFile
        The files that could be read.
    skipped : list of (path, reason)
        Those that could not.
    """
    cache = cache_dir / f"{root.resolve().name}-{size}px-{_fingerprint(root, files, size)}"
    if not cache.is_dir():
        _make_cache(cache, root, files, size)
    skipped = [(path, reason) for path, reason in json.loads((cache / "skipped.json").read_text())]
    bad = {path for path, _ in skipped}
    kept = [file for file in files if file.path not in bad]
    pixels: Images = np.load(cache / "pixels.npy", mmap_mode="r")[: len(kept)]
    return pixels, kept, skipped


def _fingerprint(root: Path, files: list[ImageFile], size: int) -> str:
    digest = hashlib.sha256(f"{DECODER_VERSION} {size} {root.resolve()}\n".encode())
    for file in files:
        try:
            status = (root / file.path).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "unreadable"
        digest.update(f"{state} {file.part} {file.path}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _make_cache(cache: Path, root: Path, files: list[ImageFile], size: int) -> None:
    """Decode into a folder of a temporary name and rename it when it is whole."""
    temporary = cache.with_name(f".{cache.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        skipped = _decode_into(temporary / "pixels.npy", root, files, size)
        (temporary / "skipped.json").write_text(json.dumps(skipped))
        try:
            temporary.rename(cache)
        except OSError:
            if not cache.is_dir():  # else another process made the same cache meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode_into(
    path: Path, root: Path, files: list[ImageFile], size: int
) -> list[tuple[str, str]]:
    pixels = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, mode="w+", dtype=np.uint8, shape=(len(files), 3, size, size)
    )
    skipped: list[tuple[str, str]] = []
    row = 0
    with (
        ThreadPoolExecutor(os.cpu_count()) as workers,
        warnings.catch_warnings(),
        tqdm(total=len(files), desc="decoding", unit="image", disable=None, leave=False) as bar,
    ):
        # Pillow warns of odd metadata; the pixels are what counts here
        warnings.simplefilter("ignore")
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            results = workers.map(lambda file: _try_decode(root / file.path, size), chunk)
            for file, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    skipped.append((file.path, result))
                else:
                    pixels[row] = result
                    row += 1
            bar.update(len(chunk))
    pixels.flush()
    return skipped


def _try_decode(path: Path, size: int) -> Images | str:
    """Decode one file, or say why it cannot be."""
    try:
        return decode(path, size)
    except UnidentifiedImageError:
        return "empty file" if path.stat().st_size == 0 else f"not one of {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return "too many pixels to be opened safely"
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        # what Pillow's decoders raise on damaged files
        return str(error) or type(error).__name__


def decode(path: Path, size: int) -> Images:
    """Decode one image file to RGB, upright, cut to a square.

    Grey, palette, CMYK and 16-bit images are converted; transparent ones are laid on white; EXIF
    rotation is applied; of an animation the first frame is taken.

    Parameters
    ----------
    path : Path
        The file; its content tells its format, not its suffix.
    size : int
        Height and width wanted, in pixels.

    Returns
    -------
    ndarray of uint8, shape (3, size, size)
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.format == "JPEG":
            # decodes at half, a quarter or an eighth, still at least twice what is wanted
            image.draft("RGB" if image.mode == "YCbCr" else image.mode, (2 * size, 2 * size))
        upright = ImageOps.exif_transpose(image)
        fitted = ImageOps.fit(_to_rgb(upright), (size, size), method=Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _scale_deep(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _scale_deep(image: Image.Image) -> Image.Image:
    """Bring more than 8 bits a channel to 8, which Pillow's `convert` would clip to white."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        values = (values - low) / max(high - low, 1e-12) * 255
    elif values.max(initial=0) > 255 or image.mode != "I":
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def take_rows(pixels: Images, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Images:
    """Take rows of a memmap: as a view when they lie together, else as a copy.

    Parameters
    ----------
    pixels : memmap of uint8
        As made by `decode_all`.
    rows : ndarray of int64
        Sorted row numbers.

    Returns
    -------
    ndarray of uint8
        A copy above `LARGEST_COPY` bytes lies in an unnamed file beside the cache, not in memory.
    """
    if len(rows) == 0 or rows[-1] - rows[0] + 1 == len(rows):
        start = int(rows[0]) if len(rows) else 0
        return pixels[start : start + len(rows)]
    if len(rows) * pixels[0].nbytes <= LARGEST_COPY:
        return pixels[rows]
    return _copy_to_disk(pixels, rows)


def _copy_to_disk(pixels: Images, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Images:
    folder = Path(str(getattr(pixels, "filename", "."))).parent
    with tempfile.TemporaryFile(dir=folder) as file:
        copy = np.memmap(file, dtype=np.uint8, mode="w+", shape=(len(rows), *pixels.shape[1:]))
        for start in range(0, len(rows), 4096):
            copy[start : start + 4096] = pixels[rows[start : start + 4096]]
        copy.flush()
        return copy


def _tell_skipped(skipped: list[tuple[str, str]], most: int = 10) -> None:
    for path, reason in skipped[:most]:
        _log.warning("left out %s: %s", path, reason)
    if len(skipped) > most:
        _log.warning("... and %d more unreadable files", len(skipped) - most)


def _tell_unseen(classes: tuple[str, ...], y: Labels, y_test: Labels) -> None:
    unseen = sorted({classes[label] for label in np.setdiff1d(y_test, y)})
    if unseen and len(y):
        _log.warning(
            "the test set has classes without a training image, which count as errors: %s",
            ", ".join(unseen),
        )
