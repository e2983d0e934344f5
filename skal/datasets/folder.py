"""A folder of images, as people keep them, to uint8 arrays."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import unicodedata
import uuid
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ..errors import DataError, FolderNotFoundError
from ..files import write_atomic
from ..seeding import derive_seed
from .base import MISSING_LABEL, ImageDataset, Images, Labels, one_line, stratified_split

DEFAULT_IMAGE_SIZE = 48
TEST_SHARE = 0.2
DECODER_VERSION = 1
"""Part of the cache's key: raise it whenever `decode` changes a pixel."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)
OTHER_PICTURES = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".ppm", ".pgm", ".pbm")
).union((".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm"))
"""Suffixes of pictures that are not read, which their owner should know."""
UNLABELED = frozenset(("unlabeled", "unlabelled"))
VALIDATION = frozenset(("val", "valid", "validation"))
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
"""Put there by operating systems and network drives; some hold copies and thumbnails."""
CACHE_TAG = "CACHEDIR.TAG"
"""Marks a folder as a cache, see https://bford.info/cachedir/."""
LARGEST_COPY = 2**31
"""Bytes of a split that are copied into memory; a larger one becomes a memmap of its own."""
CHUNK_BYTES = 2**26
"""Pixels in flight while decoding, so that a slow disk never piles them up in memory."""
WHITE = {"I": (255, 65535), "F": (1, 255, 65535)}
"""What stands for white where the mode does not say it: the first that no pixel exceeds."""

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
    ``ROOT/train/<class>/**`` and ``ROOT/test/<class>/**`` the split is given; ``val`` serves where
    there is no ``test``. Images directly under ``ROOT``, ``ROOT/train`` or ``ROOT/test``, and those
    under ``ROOT/unlabeled``, are unlabelled.

    Parameters
    ----------
    root : Path
        The folder.
    data_dir : Path
        Where the cache of decoded pixels goes.
    image_size : int, default=48
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
    FolderNotFoundError
        If there is no such folder.
    DataError
        If no image in it can be read.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FolderNotFoundError(
            f"{str(root)!r} {what}; expected a folder with one subfolder of images per class"
        )
    files = find_images(root)
    size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    pixels, kept, skipped = decode_all(root, files, size, data_dir / "cache")
    _tell_skipped(skipped)
    if not kept:
        path, reason = skipped[0]
        raise DataError(
            f"none of the {len(files)} images under {str(root)!r} can be read ({path}: {reason})"
        )

    classes = tuple(sorted({file.label for file in kept if file.label is not None}))
    ids = {label: number for number, label in enumerate(classes)}
    y = np.array(
        [MISSING_LABEL if file.label is None else ids[file.label] for file in kept], dtype=np.int64
    )
    rows = {
        part: np.flatnonzero([file.part == part for file in kept])
        for part in ("train", "test", "unlabeled")
    }
    split_seed = None if len(rows["test"]) else seed
    if split_seed is not None:
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
        split_seed=split_seed,
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
    empty: list[PurePosixPath] = []
    for folder, names in _walk(root):
        found = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        others.update(Path(name).suffix.lower() for name in set(names) - set(found))
        images.extend(folder / name for name in found)
        if not found:
            empty.append(folder)
    if not images:
        raise DataError(
            f"no image under {str(root)!r} (found: {_count(others) or 'no file'}); expected "
            f"{', '.join(FORMATS)} files in one subfolder per class"
        )
    parts = _given_parts(images)
    files = [_place(path, parts) for path in images]
    _tell_passed_over(files, others, empty, parts)
    order = {"train": 0, "test": 1, "unlabeled": 2}
    files = [file for file in files if file.part in order]
    return sorted(files, key=lambda file: (order[file.part], file.path))


def _count(suffixes: Counter[str], most: int = 5) -> str:
    return ", ".join(
        f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(most)
    )


def _tell_passed_over(
    files: list[ImageFile], others: Counter[str], empty: list[PurePosixPath], parts: dict[str, str]
) -> None:
    """Say what somebody may have meant as a class, a part or an image, and is none."""
    depth = 2 if parts else 1
    folders = {PurePosixPath(*PurePosixPath(file.path).parts[:depth]) for file in files}
    for folder in sorted(set(empty) - folders):
        if len(folder.parts) == depth and not UNLABELED & {part.lower() for part in folder.parts}:
            _log.warning("the folder %r has no image in it and is not a class", str(folder))
    passed_over = Counter(file.path.split("/")[0] for file in files if file.part == "other")
    for name, count in sorted(passed_over.items()):
        _log.warning("passed over %r (%d images): neither train, test nor unlabeled", name, count)
    pictures = Counter({suffix: others[suffix] for suffix in OTHER_PICTURES & set(others)})
    if pictures:
        told, formats = _count(pictures), ", ".join(FORMATS)
        _log.warning(
            "passed over pictures that are not read: %s; convert them to %s", told, formats
        )


def _walk(root: Path) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """Yield each folder below `root`, relative to it, with the names of its files."""
    seen: dict[tuple[int, int], PurePosixPath] = {}
    for directory, folders, names in os.walk(root, onerror=_tell_unlistable, followlinks=True):
        folders.sort()
        relative = PurePosixPath(Path(directory).relative_to(root).as_posix())
        status = Path(directory).stat()
        first = seen.setdefault((status.st_dev, status.st_ino), relative)
        if first != relative:
            _log.warning("passed over %r, which links to %r", str(relative), str(first))
            folders.clear()
        elif CACHE_TAG in names:
            folders.clear()
        else:
            folders[:] = [f for f in folders if f[0] != "." and f not in SYSTEM_FOLDERS]
            yield relative, [name for name in names if name[0] != "."]


def _tell_unlistable(error: OSError) -> None:
    _log.warning("passed over a folder that cannot be listed: %s", error)


def _given_parts(images: list[PurePosixPath]) -> dict[str, str]:
    """Map the top folders of a given split to its parts; empty where no split is given.

    A folder of trains may well be called "train": it is a part if it has folders of its own, or
    if there is nothing beside it but other parts.
    """
    tops = {path.parts[0] for path in images if len(path.parts) > 1}
    nested = {path.parts[0] for path in images if len(path.parts) > 2}
    parts = {top: PARTS[top.lower()] for top in tops if top.lower() in PARTS}
    validation = {top for top in tops if top.lower() in VALIDATION}
    alone = all(top in {*parts, *validation} or top.lower() in UNLABELED for top in tops)
    if "train" not in (parts[top] for top in parts if alone or top in nested):
        return {}
    if "test" not in (parts[top] for top in parts if top in nested):
        parts.update((top, "test") for top in validation & nested)
    return parts


def _place(path: PurePosixPath, parts: dict[str, str]) -> ImageFile:
    """Tell from where an image lies which part and class it belongs to."""
    folders = path.parts[:-1]
    part = "train"
    if parts and folders and folders[0].lower() not in UNLABELED:
        part, folders = parts.get(folders[0], "other"), folders[1:]
    if part != "other" and (not folders or folders[0].lower() in UNLABELED):
        return ImageFile(str(path), "unlabeled", None)
    # macOS spells an accented name in other code points than the rest, and it is the same class
    label = unicodedata.normalize("NFC", folders[0]) if folders else None
    return ImageFile(str(path), part, label)


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

    Raises
    ------
    DataError
        If the memmap cannot be written.
    """
    # 40 characters keep the longest name that a folder can have below what a file system takes
    cache = cache_dir / f"{root.resolve().name[:40]}-{size}px-{_fingerprint(root, files, size)}"
    if not cache.is_dir():
        try:
            _make_cache(cache, root, files, size)
        except OSError as error:
            raise DataError(
                f"cannot write the decoded images to {str(cache_dir)!r}: "
                f"{error.strerror or error}; name another place by --data-dir or $SKAL_DATA_DIR"
            ) from error
    skipped = [(path, reason) for path, reason in json.loads((cache / "skipped.json").read_text())]
    bad = {path for path, _ in skipped}
    kept = [file for file in files if file.path not in bad]
    pixels: Images = np.load(cache / "pixels.npy", mmap_mode="r")
    return pixels, kept, skipped


def _fingerprint(root: Path, files: list[ImageFile], size: int) -> str:
    digest = hashlib.sha256(f"{DECODER_VERSION} {size} {root.resolve()}\n".encode())
    for file in files:
        try:
            status = (root / file.path).stat()
            readable = os.access(root / file.path, os.R_OK)
            state = f"{status.st_size} {status.st_mtime_ns} {readable}"
        except OSError:
            state = "unreadable"
        digest.update(f"{state} {file.part} {file.path}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _make_cache(cache: Path, root: Path, files: list[ImageFile], size: int) -> None:
    """Decode into a folder of a temporary name and rename it when it is whole."""
    temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir(parents=True)
    try:
        cache.with_name(CACHE_TAG).write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
        skipped = _decode_into(temporary / "pixels.npy", root, files, size)
        write_atomic(temporary / "skipped.json", json.dumps(skipped))
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
    """Write what can be decoded to a .npy file; return what cannot.

    The file is written and not mapped, for a full disk is an error to the one and kills the other.
    """
    skipped: list[tuple[str, str]] = []
    with path.open("wb") as out, closing(_decode_many(root, files, size)) as results:
        _write_header(out, len(files), size)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, str):
                skipped.append((file.path, result))
            else:
                out.write(result.tobytes())
        out.seek(0)
        _write_header(out, len(files) - len(skipped), size)
        out.flush()
        os.fsync(out.fileno())
    return skipped


def _write_header(out: BinaryIO, n_images: int, size: int) -> None:
    """Write the header of a .npy file, whose length does not depend on the number of images."""
    np.lib.format.write_array_header_1_0(  # type: ignore[no-untyped-call]
        out, {"descr": "|u1", "fortran_order": False, "shape": (n_images, 3, size, size)}
    )


def _decode_many(
    root: Path, files: list[ImageFile], size: int
) -> Generator[Images | str, None, None]:
    """Decode in parallel, in order; for each file its pixels or why it has none."""
    step = max(16, min(1024, CHUNK_BYTES // (3 * size * size)))
    with (
        ThreadPoolExecutor(os.cpu_count()) as workers,
        warnings.catch_warnings(),
        tqdm(
            total=len(files),
            desc="decoding",
            unit="image",
            disable=os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or None,
            leave=False,
        ) as bar,
    ):
        # Pillow warns of odd metadata; the pixels are what counts here
        warnings.simplefilter("ignore")
        for start in range(0, len(files), step):
            chunk = files[start : start + step]
            for result in workers.map(lambda file: try_decode(root / file.path, size), chunk):
                yield result
                bar.update()


def try_decode(path: Path, size: int) -> Images | str:
    """Decode one file as `decode` does, or say why it cannot be."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"  # to open a pipe would be to wait for ever
        return decode(path, size)
    except UnidentifiedImageError:
        return "empty file" if status.st_size == 0 else f"not one of {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return "too many pixels to be opened safely"
    except FileNotFoundError:
        return "a link to a file that is not there"
    except OSError as error:
        return error.strerror or one_line(error)
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        return one_line(error)


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
    image = read_rgb(path, 2 * size)
    fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def read_rgb(path: Path, needed: int) -> Image.Image:
    """Read one image file as RGB, upright, in the ways that `decode` says.

    Parameters
    ----------
    path : Path
        The file; its content tells its format, not its suffix.
    needed : int
        Height and width in pixels that will do: a JPEG is decoded at a half, a quarter or an
        eighth of its size if that is as much.

    Returns
    -------
    Image
    """
    # from an open file: of a path Pillow maps grey TIFFs, and scrambles those that EXIF rotates
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        if image.format == "JPEG":
            image.draft(None, (needed, needed))
        _set_upright(image)
        return _to_rgb(image)


def _set_upright(image: Image.Image) -> None:
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # damaged metadata, of which Pillow raises nearly anything
        _log.debug("metadata of an image passed over: %s", error)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _scale_deep(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode != "RGBA":  # else `convert` would copy what may be a gigabyte
        image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white


def _scale_deep(image: Image.Image) -> Image.Image:
    """Bring more than 8 bits a channel to 8, which Pillow's `convert` would clip to white.

    What is darker than black or brighter than white can be is stretched from its darkest to its
    brightest pixel.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    whites: list[float] = [
        top for top in WHITE.get(image.mode, (65535,)) if 0 <= low <= high <= top
    ]
    if not whites:
        values, whites = values - low, [high - low]
    return Image.fromarray(np.rint(values * (255 / whites[0])).astype(np.uint8))


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
        for start in range(0, len(rows), 4096):
            file.write(pixels[rows[start : start + 4096]].tobytes())
        file.flush()
        return np.memmap(file, dtype=np.uint8, mode="r", shape=(len(rows), *pixels.shape[1:]))


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
