"""Images to arrays: named datasets and folders."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import DATASETS as DATASETS
    from .base import MISSING_LABEL as MISSING_LABEL
    from .base import ImageDataset as ImageDataset
    from .loading import data_folder as data_folder
    from .loading import load_dataset as load_dataset

__all__ = ["DATASETS", "MISSING_LABEL", "ImageDataset", "data_folder", "load_dataset"]

# imported when asked for: the settings of data cost no numpy
_LAZY = {
    "DATASETS": "builtin",  # which fills it
    "MISSING_LABEL": "base",
    "ImageDataset": "base",
    "data_folder": "loading",
    "load_dataset": "loading",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
