"""People label: rules (store, ledger, queue, leases, sample), service, page and terminal.

Nothing here imports torch until a network is trained, which happens in a process of its own.
"""

from collections.abc import Callable
from typing import Any

from ..core.registry import Registry

FORMATS: Registry[Callable[..., Any]] = Registry("format")
"""Functions that write the labels of a project out.

They are called with their own arguments, and with what they take of `project`, `out` (a path, or
None) and `copy` (whether files are copied, and not linked). They return the text to write; or how
many images they wrote into the folder `out`, which the fact `folder` says. Those with a
`suffix`, for the name of a file, or a `folder` are offered on the page, too.
"""
_add = FORMATS.add
_add(
    "csv",
    f"{__name__}.exporting:export_csv",
    summary="a table of all labels and who gave them",
    suffix=".csv",
)
_add(
    "folder",
    f"{__name__}.exporting:export_folder",
    summary="the images in a folder for each class",
    folder=True,
)
_add(
    "json-lines",
    f"{__name__}.exporting:export_json_lines",
    summary="an object a line: path, label",
    suffix=".jsonl",
)
_add(
    "huggingface",
    f"{__name__}.exporting:export_huggingface",
    summary="metadata.csv of Hugging Face's image folders",
)
_add(
    "ground-truth",
    f"{__name__}.exporting:export_ground_truth",
    summary="a manifest of SageMaker Ground Truth",
    suffix=".manifest",
)
_add(
    "label-studio", f"{__name__}.studio.tasks:export_label_studio", summary="tasks of Label Studio"
)
