"""`export_model`: a trained network as one file, for programs without skal, and back from it.

A file takes uint8 images (n, channels, size, size), does all the rest within, and returns class
probabilities and embeddings, float32. What it is, ``model.json`` as it was, is within it, too.
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
from ..runs.preparation import load_untold
from ..runs.record import CONFIG
from . import NETWORK_FORMATS
from .checks import check_export
from .networks import AT_ONCE, ExportedNetwork, NetworkFormat, example_images

DIGEST, UNSIGNED = "file_sha256", "0" * 64
_SIGNED = re.compile(rb'file_sha256\\*": \\*"([0-9a-f]{64})')
MOST_CHECKED = 1000
"""Images that an export is checked on."""
TOLERANCE = 1e-4
"""Of a probability, by which a file may differ from the network."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Exported:
    """The file of an export, and how far its answers are from skal's own on `n_images` images:
    the largest difference of a probability, and how many have the same most probable class. They
    are noise where there were none.
    """

    out: Path
    format: str
    n_images: int
    largest_difference: float
    n_same_class: int
    is_noise: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it with plain JSON values."""
        return {**asdict(self), "out": str(self.out)}


def export_model(
    run_dir: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    images: Images | None = None,
    trust: bool = False,
) -> Exported:
    """Write a trained network to one file, and check what it answers.

    Parameters
    ----------
    run_dir : str or Path
        A run folder, one of `skal train`, or any with ``model.safetensors`` and ``model.json``.
    out : str or Path, optional
        The file, which must not exist; by default ``network``, with the format's suffix, in
        `run_dir`.
    format : str, default="onnx"
        A name of ``skal list network-formats``.
    images : ndarray of uint8, shape (n, channels, size, size), optional
        What to check it on; by default noise.
    trust : bool, default=False
        See `skal.load_classifier`.

    Returns
    -------
    Exported

    Raises
    ------
    RunFolderError, UnknownNameError, MissingExtraError, RunExistsError
        If there is no network, no such format, its package is not installed, or the file is there.
    DataError
        If the file cannot be written, or answers otherwise than the network.
    """
    run_dir = Path(run_dir)
    path = place_for(run_dir, out, format)
    entry = NETWORK_FORMATS.resolve(format)
    form = entry.load()()
    classifier = load_classifier(run_dir, "cpu", trust)
    description = {**read_description(run_dir), "name": run_dir.resolve().name, DIGEST: UNSIGNED}
    classifier.neural_net_.module_.bf16 = False  # others compute in float32
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{form.suffix}")
    try:
        with blaming(f"the network cannot be written as {entry.name}", DataError):
            form.write(classifier, description, temporary)
        content = temporary.read_bytes()
        if content.count(UNSIGNED.encode()) == 1 and not zipfile.is_zipfile(temporary):
            # of the file as it is without that
            signed = content.replace(UNSIGNED.encode(), sha256(content).encode())
            temporary.write_bytes(signed)
        exported = _checked(classifier, form.read(temporary, True)[0], images, description)
        fsync_file(temporary)
        name_new(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, entry.name, *exported, is_noise=images is None)


def place_for(run_dir: Path, out: str | Path | None, format: str) -> Path:
    """Return the file that `export_model` is to write; an error, as there, if it cannot."""
    entry = NETWORK_FORMATS.resolve(format)
    check_installed(entry, entry.load()())
    return check_export(run_dir, out, format)


def _check_whole(path: Path) -> None:
    """Raise a RunFolderError if a file was changed; zip files have checksums of their own."""
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
            f"{str(path)!r} is damaged, by its checksum, or skal export-model did not write it"
        )


def images_for(run_dir: Path, paths: Sequence[Path], trust: bool = False) -> Images | None:
    """Return images to check an export on: those in files and folders, else those that the run was
    tested on, or that are in its folder, else None.
    """
    description = read_description(run_dir)
    if paths:
        return _decoded(description, paths)
    try:
        config = RunConfig(**read_config(run_dir / CONFIG))
        check_trusted(run_dir, foreign_names(config), trust)
        folder = folder_of(config.dataset, config.data_dir)
        try:
            data = load_untold(config, config.dataset)
        except DataError:
            if folder is None or not folder.is_dir():
                raise
            return _decoded(description, [folder])  # of people who label: folders tell no class
    except SkalError as error:
        _log.info("its images cannot be loaded (%s): it is checked on noise", error)
        return None
    images = data.X_test if len(data.X_test) else data.X
    fits = images.shape[1:] == tuple(description["image_shape"])
    return images[:MOST_CHECKED] if fits else None


def _decoded(description: Mapping[str, Any], paths: Sequence[Path]) -> Images:
    channels, size = description["image_shape"][0], description["image_shape"][-1]
    how = replace(how_to_decode(**decoded_as(description)), size=size)
    files = listed(paths, how.pages)[:MOST_CHECKED]
    with closing(decode_many(Path.cwd(), files, how)) as chunks:
        parts = [to_channels(chunk.pixels, channels) for chunk in chunks]
    images = np.concatenate(parts)
    if not len(images):
        raise DataError(f"none of the {counted(len(files), 'image')} can be read")
    return images


def check_installed(entry: Entry[Any], form: NetworkFormat) -> None:
    """Raise a MissingExtraError if a format's packages are not installed."""
    for name in form.modules:
        require(name, form.extra, f"the format {entry.name}")


def read_exported(
    path: Path, trust: bool = False
) -> tuple[ExportedNetwork | ImageClassifier, dict[str, Any]]:
    """Read a file that `export_model` wrote, and what it is; `RunFolderError` if it is none, is
    damaged, or is of a format that may run code and nobody has said to trust.
    """
    forms = {entry.load().suffix: entry for entry in NETWORK_FORMATS}
    entry = forms.get(path.suffix)
    if entry is None:
        raise RunFolderError(
            f"{str(path)!r} is no network; expected the folder of a run, or a file of "
            f"{', '.join(forms)} that skal export-model wrote"
        )
    form = entry.load()()
    check_installed(entry, form)
    if form.runs_code and not trust:
        raise RunFolderError(
            f"{str(path)!r} is {entry.name}, which may run code; if you trust it, give --trust"
        )
    try:
        _check_whole(path)
        return form.read(path, trust)
    except RunFolderError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        pass_on_memory(error)
        reason = str(error).partition("\n")[0]
        raise RunFolderError(f"{str(path)!r} cannot be read as {entry.name}: {reason}") from error


def _checked(
    classifier: ImageClassifier,
    other: ExportedNetwork | ImageClassifier,
    images: Images | None,
    description: Mapping[str, Any],
) -> tuple[int, float, int]:
    """Compare the answers of a file with the network's; `DataError` if they are others."""
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
            f"the file answers otherwise than the network: probabilities differ by {difference:.2g}"
        )
    return len(images), difference, same
