"""`export_model`: write a trained network to one file for programs without skal, and read it.

ONNX and TorchScript files take uint8 images (n, channels, size, size), include all preprocessing,
and return class probabilities and embeddings, float32. All files contain ``model.json``.
"""

from __future__ import annotations

import logging
import re
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.durable import fsync_file, name_new, sha256
from ..core.errors import (
    DataError,
    RunFolderError,
    SkalError,
    blaming,
    pass_on_memory,
    require,
)
from ..core.registry import Entry
from ..core.text import counted
from ..core.trust import check_trusted, foreign_names
from ..datasets.base import Images
from ..datasets.decoding import decode_many, to_channels
from ..datasets.index import listed
from ..datasets.loading import folder_of, how_to_decode
from ..models.classifier import ImageClassifier
from ..models.description import decoded_as, read_description
from ..models.persistence import load_classifier
from ..runs.config import RunConfig, read_config
from ..runs.preparation import load_silently
from ..runs.record import CONFIG
from . import NETWORK_FORMATS
from .checks import check_export
from .networks import AT_ONCE, ExportedNetwork, NetworkFormat, example_images

DIGEST, UNSIGNED = "file_sha256", "0" * 64
_SIGNED = re.compile(rb'file_sha256\\*": \\*"([0-9a-f]{64})')
MOST_CHECKED = 1000
"""Maximum number of images to check an export on."""
TOLERANCE = 1e-4
"""Maximum difference between probabilities of the file and of the network."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Exported:
    """An exported file, and its check against skal's own predictions on `n_images` images (noise if
    `is_noise`): the largest difference between probabilities, and the number of images with the
    same most probable class. `n_same_in_bf16` is that number where skal itself computes in
    bfloat16 on this machine, else None: the file computes in float32.
    """

    out: Path
    format: str
    n_images: int
    largest_difference: float
    n_same_class: int
    is_noise: bool = False
    n_same_in_bf16: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "out": str(self.out)}


def export_model(
    run_dir: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    images: Images | None = None,
    trust: bool = False,
) -> Exported:
    """Write a trained network to one file, and check the file's predictions.

    Parameters
    ----------
    run_dir : str or Path
        A run folder, a folder of `skal train`, or any folder with ``model.safetensors`` and
        ``model.json``.
    out : str or Path, optional
        File to create; it must not exist. By default ``network`` with the format's suffix, in
        `run_dir`.
    format : str, default="onnx"
        A name from ``skal list network-formats``.
    images : ndarray of uint8, shape (n, channels, size, size), optional
        Images to check the file on; by default noise.
    trust : bool, default=False
        See `skal.load_classifier`.

    Returns
    -------
    Exported

    Raises
    ------
    RunFolderError, UnknownNameError, MissingExtraError, RunExistsError
        If the network or the format does not exist, its package is not installed, or the file
        exists.
    DataError
        If the file cannot be written, or its predictions differ from the network's.
    """
    run_dir = Path(run_dir)
    path = place_for(run_dir, out, format)
    entry = NETWORK_FORMATS.resolve(format)
    form = entry.load()()
    classifier = load_classifier(run_dir, "cpu", trust)
    description = {**read_description(run_dir), "name": run_dir.resolve().name, DIGEST: UNSIGNED}
    is_bf16 = classifier.neural_net_.module_.bf16
    classifier.neural_net_.module_.bf16 = False  # exported files compute in float32
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{form.suffix}")
    try:
        with blaming(f"cannot write the network as {entry.name}", DataError):
            form.write(classifier, description, temporary)
        content = temporary.read_bytes()
        if content.count(UNSIGNED.encode()) == 1 and not zipfile.is_zipfile(temporary):
            # the checksum covers the file with zeros in place of the checksum
            signed = content.replace(UNSIGNED.encode(), sha256(content).encode())
            temporary.write_bytes(signed)
        read = form.read(temporary, True)[0]
        n_images, difference, same, expected = _checked(classifier, read, images, description)
        fsync_file(temporary)
        name_new(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    rounded = None
    if is_bf16 and images is not None:  # loaded anew, without an engine in float32
        usual = load_classifier(run_dir, "cpu", trust)
        rounded = int((usual.predict(images) == expected).sum())
    return Exported(
        path,
        entry.name,
        n_images,
        difference,
        same,
        is_noise=images is None,
        n_same_in_bf16=rounded,
    )


def place_for(run_dir: Path, out: str | Path | None, format: str) -> Path:
    """Return the file that `export_model` writes; raise its errors if that cannot work."""
    entry = NETWORK_FORMATS.resolve(format)
    check_installed(entry, entry.load()())
    return check_export(run_dir, out, format)


def _check_whole(path: Path) -> None:
    """Raise a RunFolderError if a file was changed; zip files have their own checksums."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    else:
        content = path.read_bytes()
        found = _SIGNED.search(content)
        digest = found and found[1]
        plain = content.replace(digest, UNSIGNED.encode()) if digest else content
        damaged = None if digest and sha256(plain).encode() == digest else "it"
    if damaged is not None:
        raise RunFolderError(
            f"{str(path)!r} is damaged (wrong checksum), or was not written by skal export-model"
        )


def images_for(
    run_dir: Path, paths: Sequence[Path], trust: bool = False, most: int = MOST_CHECKED
) -> Images | None:
    """Return at most so many images to check an export on: those of `paths`, else the run's test
    images, else those in its dataset's folder, else None.
    """
    description = read_description(run_dir)
    if paths:
        return _decoded(description, paths, most)
    try:
        config = RunConfig(**read_config(run_dir / CONFIG))
        check_trusted(run_dir, foreign_names(config), trust)
        folder = folder_of(config.dataset, config.data_dir)
        try:
            data = load_silently(config, config.dataset)
        except DataError:
            if folder is None or not folder.is_dir():
                raise
            return _decoded(
                description, [folder], most
            )  # a labelling project's folders are no classes
    except SkalError as error:
        _log.info("cannot load the run's images (%s): checking the file on noise", error)
        return None
    images = data.X_test if len(data.X_test) else data.X
    fits = images.shape[1:] == tuple(description["image_shape"])
    return images[_spread(len(images), most)] if fits else None


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of n positions, evenly spread: images are ordered by class."""
    return np.unique(np.linspace(0, max(0, n - 1), min(n, most)).astype(np.int64))


def _decoded(description: Mapping[str, Any], paths: Sequence[Path], most: int) -> Images:
    channels, size = description["image_shape"][0], description["image_shape"][-1]
    how = replace(how_to_decode(**decoded_as(description)), size=size)
    files = listed(paths, how.pages)
    files = [files[place] for place in _spread(len(files), most)]
    with closing(decode_many(Path.cwd(), files, how)) as chunks:
        parts = [to_channels(chunk.pixels, channels) for chunk in chunks]
    images = np.concatenate(parts)
    if not len(images):
        raise DataError(f"cannot read any of the {counted(len(files), 'image')}")
    return images


def check_installed(entry: Entry[Any], form: NetworkFormat) -> None:
    """Raise a MissingExtraError if a format's packages are not installed."""
    for name in form.modules:
        require(name, form.extra, f"the format {entry.name}")


def read_exported(
    path: Path, trust: bool = False
) -> tuple[ExportedNetwork | ImageClassifier, dict[str, Any]]:
    """Read a file of `export_model`; return the network and its ``model.json``. Raise a
    `RunFolderError` if it is another or a damaged file, or may run code and is not trusted.
    """
    forms = {entry.load().suffix: entry for entry in NETWORK_FORMATS}
    entry = forms.get(path.suffix)
    if entry is None:
        raise RunFolderError(
            f"{str(path)!r} is not a network; expected a run folder, or a file written by skal "
            f"export-model ({', '.join(forms)})"
        )
    form = entry.load()()
    check_installed(entry, form)
    if form.runs_code and not trust:
        raise RunFolderError(
            f"{str(path)!r} is {entry.name}, which may run code; if you trust it, add --trust"
        )
    try:
        _check_whole(path)
        return form.read(path, trust)
    except RunFolderError:
        raise
    except Exception as error:  # a damaged file may raise anything
        pass_on_memory(error)
        reason = str(error).partition("\n")[0]
        raise RunFolderError(f"cannot read {str(path)!r} as {entry.name}: {reason}") from error


def _checked(
    classifier: ImageClassifier,
    other: ExportedNetwork | ImageClassifier,
    images: Images | None,
    description: Mapping[str, Any],
) -> tuple[int, float, int, NDArray[Any]]:
    """Compare a file's predictions with the network's; raise a `DataError` if they differ. Return
    the first fields of an `Exported`, and the network's classes.
    """
    if images is None or not len(images):
        images = example_images(description, AT_ONCE).numpy()
    expected = classifier.predict_proba(images)
    if isinstance(other, ExportedNetwork):
        found = other(images)[0]
    else:
        other.neural_net_.module_.bf16 = False
        found = other.predict_proba(images)
    difference = float(np.abs(found - expected).max())
    same = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    if not difference <= TOLERANCE:
        raise DataError(
            f"the file and the network disagree: probabilities differ by {difference:.2g}"
        )
    return len(images), difference, same, classifier.classes_[expected.argmax(axis=1)]
