"""Names of a package that are imported when asked for: importing the package costs no torch."""

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
    """Import inside the block without a look for garbage, which grows with what is there already;
    nor is any looked for later in what was imported.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def require_drawing() -> None:
    """Raise a SkalError if what draws is missing or broken; it is imported, to be used later."""
    told = "nothing can be drawn, for matplotlib cannot be imported (install it again, by pip)"
    with blaming(told):
        importlib.import_module("matplotlib.backends.backend_agg")
