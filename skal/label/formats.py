"""The formats of labels by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.registry import Registry

FORMATS: Registry[Callable[..., Any]] = Registry("format")
"""Functions that write the labels of a project out.

They are called with their own arguments, and with what they take of `project`, `out` (a path, or
None) and `copy` (whether files are copied, and not linked). They return the text to write; or how
many images they wrote into the folder `out`, which the fact `folder` says.
"""

FORMATS.add(
    "csv", "skal.label.exporting:export_csv", summary="a table of all labels and who gave them"
)
FORMATS.add(
    "folder",
    "skal.label.exporting:export_folder",
    summary="the images in a folder for each class",
    folder=True,
)
FORMATS.add(
    "label-studio", "skal.label.label_studio:export_label_studio", summary="tasks of Label Studio"
)
