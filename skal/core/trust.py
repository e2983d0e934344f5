"""Code that files name: what somebody else made runs none of it, unless that is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from .errors import RunFolderError
from .registry import parse_spec
from .settings import Settings, settings_of

FAMILIES = {"models": ("torchvision", "timm")}
"""What may stand before the colon of a name of that kind without being imported as it stands."""
OF_STRATEGIES = ("skactiveml.pool", "skactiveml.stream", "skal.strategies")
"""Modules of which nothing but classes of strategies are taken, and those checked before."""

ADVICE = "; if you trust the folder, give --trust (from Python trust=True)"


def is_foreign(spec: str, kinds: Collection[str]) -> bool:
    """Tell whether a name is an import path, of code that is not known to be harmless.

    Names that an installed package has registered are none, nor are classes of strategies in a
    module that this process has imported; `kinds` are those of ``skal list``.
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
    """Yield the settings that name something of ``skal list``, its names, and of which kinds."""
    values = settings.as_dict()
    for name, setting in settings_of(type(settings)).items():
        # others, a place or a range say, may have a colon and name no code
        if setting.names and isinstance(values.get(name), str):
            yield name, values[name], setting.names


def foreign_names(settings: Settings) -> dict[str, str]:
    """Return the settings that name such code, and what they name."""
    return {name: spec for name, spec, kinds in naming(settings) if is_foreign(spec, kinds)}


def check_trusted(place: Path, names: dict[str, str], trust: bool, advice: str = ADVICE) -> None:
    """Raise a RunFolderError if a file names code that nobody has said to trust."""
    if names and not trust:
        told = ", ".join(f"{name} {value!r}" for name, value in names.items())
        raise RunFolderError(
            f"{str(place)!r} names code that is neither skal's nor registered by an installed "
            f"package ({told}), and it would be run{advice}"
        )
