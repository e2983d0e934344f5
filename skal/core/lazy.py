"""Lazy imports, so that importing skal does not import torch."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .errors import blaming


def attach(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose modules define these names."""
    modules = {name: module for module, defined in names.items() for name in defined}

    def __getattr__(name: str) -> Any:
        if name in names:
            return importlib.import_module(f".{name}", package)
        if name in modules:
            return getattr(importlib.import_module(f".{modules[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


@contextmanager
def importing() -> Iterator[None]:
    """Import inside the block with the garbage collector off, and freeze what was imported.

    Collections slow a large import down, for each looks through all existing objects.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def require_drawing() -> None:
    """Import matplotlib; raise a SkalError if it is missing or broken."""
    with blaming("cannot import matplotlib (pip install --force-reinstall matplotlib)"):
        importlib.import_module("matplotlib.backends.backend_agg")
