"""Checks of paths and names before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..core.errors import DataError, ParameterError, RunExistsError, UsageError
from ..core.settings import settings_of
from ..datasets.formats import file_of
from ..models.description import check_model, read_description
from ..models.settings import TrainingSettings
from ..strategies import STRATEGIES
from . import NETWORK_FORMATS
from .writers import Form, form_of

MEASURED = ("least-confidence", "margin", "entropy")
"""Uncertainty measures that need no strategy."""


def check_places(out: Path, places: Sequence[Path]) -> Form:
    """Return the form of the output of `skal.predict`; raise an error if it cannot be written, or
    images do not exist.
    """
    form = form_of(out)
    form.check_place(out)
    if not places:
        raise UsageError("no images given; expected files, or folders of images")
    for place in places:
        if not os.path.lexists(file_of(place)):
            raise DataError(f"{str(place)!r} does not exist; expected an image or a folder of them")
    return form


def check_utilities(utilities: Sequence[str], shard_size: int) -> None:
    """Raise an error if a strategy does not exist, or `shard_size` is not positive."""
    for name in utilities:
        if name in MEASURED:
            continue
        entry = STRATEGIES.resolve(name)
        package = entry.name.partition(":")[0].partition(".")[0]
        if ":" in entry.name and not (package and find_spec(package)):
            entry.load()  # raises the error about the missing package
    if shard_size < 1:
        raise ParameterError(f"shard_size={shard_size}; expected 1 or more")


def check_network(run_dir: Path, device: str, trust: bool) -> None:
    """Raise an error if the device is unknown, or a folder has no trusted network; files are not
    read.
    """
    settings_of(TrainingSettings)["device"].check(device)
    if not run_dir.is_file():
        check_model(run_dir, read_description(run_dir), trust)
    elif device not in ("auto", "cpu"):
        raise ParameterError(
            f"device: got {device!r}; an exported network runs on the CPU: leave it out, or "
            "predict with the run folder"
        )


def check_export(run_dir: Path, out: str | Path | None, format: str) -> Path:
    """Return the file to export a network to; raise an error if the network or the format does not
    exist, the file exists, or its folder is missing or not writable.
    """
    entry = NETWORK_FORMATS.resolve(format)
    read_description(run_dir)
    # a format from outside may only have the suffix in its class
    suffix = entry.facts.get("suffix") or entry.load().suffix
    path = run_dir / f"network{suffix}" if out is None else Path(out)
    if path.exists():
        raise RunExistsError(f"{str(path)!r} already exists; choose another name with --out")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {str(path)!r}: no such folder: {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"cannot write {str(path)!r}: its folder is not writable")
    return path
