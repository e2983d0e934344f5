"""Checks that files made by others name no code to run, unless the user trusts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from .errors import RunFolderError
from .registry import parse_spec
from .settings import Settings, settings_of

FAMILIES = {"models": ("torchvision", "timm")}
"""By kind: prefixes of names that are not imported as modules."""
OF_STRATEGIES = ("skactiveml.pool", "skactiveml.stream", "skal.strategies")
"""Modules of which only strategy classes are used, which are validated first."""

ADVICE = "; if you trust the folder, pass --trust (in Python trust=True)"


def is_foreign(spec: str, kinds: Collection[str]) -> bool:
    """Return whether a name is an import path of code that is not known to be harmless.

    Names registered by installed packages are harmless, and so are strategy classes in a module
    that this process has already imported. `kinds` are those of ``skal list``.
    """
    module, colon, _ = parse_spec(spec)[0].partition(":")  # as `Registry.resolve` cuts it
    if not colon or any(module in FAMILIES.get(kind, ()) for kind in kinds):
        return False
    if "datasets" in kinds and os.path.lexists(spec):  # a folder
        return False
    known = any(f"{module}.".startswith(f"{own}.") for own in OF_STRATEGIES)
    known |= module in sys.modules
    return not (known and any("strategies" in kind for kind in kinds))


def naming(settings: Settings) -> Iterator[tuple[str, str, Collection[str]]]:
    """Yield each setting that names an entry of ``skal list``, its value, and the kinds."""
    values = settings.as_dict()
    for name, setting in settings_of(type(settings)).items():
        # others, such as paths and ranges, may contain a colon but name no code
        if setting.names and isinstance(values.get(name), str):
            yield name, values[name], setting.names


def foreign_names(settings: Settings) -> dict[str, str]:
    """Return the settings that name foreign code, and their values."""
    return {name: spec for name, spec, kinds in naming(settings) if is_foreign(spec, kinds)}


def check_trusted(place: Path, names: dict[str, str], trust: bool, advice: str = ADVICE) -> None:
    """Raise a RunFolderError if a file names foreign code and `trust` is False."""
    if names and not trust:
        listed = ", ".join(f"{name} {value!r}" for name, value in names.items())
        raise RunFolderError(
            f"{str(place)!r} names code to run that is neither skal's nor from a registered plugin "
            f"({listed}){advice}"
        )
