"""The checks of `skal doctor`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import SkalError
from ..core.lazy import require_drawing
from ..datasets import data_folder
from ..runs.environment import ENGINE, PACKAGES

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

LEAST_FREE = 2**30


class Check(NamedTuple):
    """The result of one check."""

    name: str
    found: str
    fine: bool = True


def examine(
    data_dir: str | Path | None = None,
    *,
    find: Callable[[str], Distribution] = distribution,
    least_free: int = LEAST_FREE,
) -> list[Check]:
    """Check the installation and the data folder, which is that of `load_dataset`.

    `find` returns an installed package by name, as `importlib.metadata.distribution` does; less
    than `least_free` free bytes on the disk are a problem.
    """
    return [*_software(find), *_devices(), *_data(data_folder(data_dir), least_free)]


def _software(find: Callable[[str], Distribution]) -> Iterator[Check]:
    fine = sys.version_info >= (3, 11)
    yield Check("Python", sys.version.split()[0] + ("" if fine else ", needs 3.11 or later"), fine)
    wanted = _requirements(find)
    for package in PACKAGES:
        found = None
        with suppress(PackageNotFoundError):
            found = find(package).version
        specifier = wanted.get(package.lower())
        fits = found is not None and (
            specifier is None or specifier.contains(found, prereleases=True)
        )
        expected = f", needs {specifier}" if specifier else ""
        yield Check(package, found if found and fits else f"{found or 'missing'}{expected}", fits)
    engine = None
    with suppress(PackageNotFoundError):
        engine = find(ENGINE).version
    fallback = "torch (pip install openvino speeds up frozen networks on most CPUs)"
    yield Check("engine on a CPU", f"{ENGINE} {engine}" if engine else fallback)
    try:
        import torchvision  # noqa: F401

        yield Check("torchvision with torch", "imports")
    except (ImportError, RuntimeError, OSError) as error:
        advice = "install both together: pip install --upgrade torch torchvision"
        yield Check("torchvision with torch", f"{error}; {advice}", False)
    try:
        require_drawing()
        yield Check("plots", "matplotlib imports")
    except SkalError as error:
        yield Check("plots", str(error), False)


def _requirements(find: Callable[[str], Distribution]) -> dict[str, SpecifierSet]:
    """Return the versions that skal requires, by lower-case package name."""
    from packaging.requirements import Requirement

    try:
        lines = find("skal").requires or []
    except PackageNotFoundError:  # run from source, not installed
        return {}
    return {(r := Requirement(line)).name.lower(): r.specifier for line in lines}


def _devices() -> Iterator[Check]:
    try:
        import torch

        from ..models.devices import resolve_bf16, resolve_device
    except (ImportError, OSError) as error:
        yield Check("device", f"torch cannot be imported: {error}", False)
        return

    device = resolve_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else device
    precision = "bf16" if resolve_bf16("auto", device) else "fp32"
    yield Check("device", f"{name}, {precision}")
    yield Check("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors")


def _data(folder: Path, least_free: int) -> Iterator[Check]:
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    yield Check("free disk", f"{free / 2**30:.1f} GiB at {existing}", free >= least_free)
    try:
        with tempfile.TemporaryFile(dir=existing):
            yield Check("data folder", f"{folder} is writable")
    except OSError as error:
        yield Check("data folder", f"{folder} is not writable: {error.strerror}", False)
