"""What can be wrong with places and names, found before torch is imported."""

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
"""What can be asked of any network without a strategy."""


def check_places(out: Path, places: Sequence[Path]) -> Form:
    """Return the form of what `skal.predict` is to write; an error if it cannot, or there are no
    such images.
    """
    form = form_of(out)
    form.check_place(out)
    if not places:
        raise UsageError("no image was named; expected files, or folders of images")
    for place in places:
        if not os.path.lexists(file_of(place)):
            raise DataError(f"{str(place)!r} does not exist; expected an image or a folder of them")
    return form


def check_asked(utilities: Sequence[str], shard_size: int) -> None:
    """Raise an error if there is no strategy of such a name, or no image in a part."""
    for name in utilities:
        if name in MEASURED:
            continue
        entry = STRATEGIES.resolve(name)
        package = entry.name.partition(":")[0].partition(".")[0]
        if ":" in entry.name and not (package and find_spec(package)):
            entry.load()  # which says that there is no such package
    if shard_size < 1:
        raise ParameterError(f"shard_size={shard_size}; expected 1 or more")


def check_network(run_dir: Path, device: str, trust: bool) -> None:
    """Raise an error if there is no such device, or no network in a folder that may be used; what
    is in a file is not looked at.
    """
    settings_of(TrainingSettings)["device"].check(device)
    if not run_dir.is_file():
        check_model(run_dir, read_description(run_dir), trust)
    elif device not in ("auto", "cpu"):
        raise ParameterError(
            f"device: got {device!r}; an exported network is computed on the CPU: leave it out, or "
            "predict by the run folder"
        )


def check_export(run_dir: Path, out: str | Path | None, format: str) -> Path:
    """Return the file that a network is to be exported to; an error if there is no such network, no
    such format, something of that name, or no folder for it that can be written to.
    """
    entry = NETWORK_FORMATS.resolve(format)
    read_description(run_dir)
    # of a format of somebody else's only the class may tell
    suffix = entry.facts.get("suffix") or entry.load().suffix
    path = run_dir / f"network{suffix}" if out is None else Path(out)
    if path.exists():
        raise RunExistsError(f"{str(path)!r} exists and is not overwritten; choose another --out")
    if not path.parent.is_dir():
        raise DataError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"cannot write {str(path)!r}: nothing can be written in its folder")
    return path
