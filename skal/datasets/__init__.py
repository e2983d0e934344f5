"""Named datasets and folders of images as arrays, and oracles that label them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.lazy import attach

if TYPE_CHECKING:
    from .base import DATASETS as DATASETS
    from .base import MISSING_LABEL as MISSING_LABEL
    from .base import ImageDataset as ImageDataset
    from .loading import data_folder as data_folder
    from .loading import folder_of as folder_of
    from .loading import load_dataset as load_dataset
    from .rows import ImageRows as ImageRows

# lazy, so that `datasets.settings` imports no numpy; `builtin` fills DATASETS
_LAZY = {
    "base": ("MISSING_LABEL", "ImageDataset"),
    "builtin": ("DATASETS",),
    "loading": ("data_folder", "folder_of", "load_dataset"),
    "rows": ("ImageRows",),
}

__all__ = [name for names in _LAZY.values() for name in names]
__getattr__ = attach(__name__, _LAZY)
