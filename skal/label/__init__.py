"""Labelling by people: rules (store, ledger, queue, leases, sample), service, page and terminal.

Nothing here imports torch until a network is trained, which happens in a separate process.
"""

from collections.abc import Callable
from typing import Any

from ..core.registry import Registry

FORMATS: Registry[Callable[..., Any]] = Registry("format")
"""Functions that export the labels of a project.

They are called with their own arguments, and with those they accept of `project`, `out` (a path or
None) and `copy` (whether to copy files instead of linking them). They return the text to write, or,
with the fact `folder`, the number of images written to the folder `out`. The page also offers those
with a `suffix` (of the file's name) or a `folder`.
"""


def _add(name: str, summary: str, place: str = "exporting", **facts: Any) -> None:
    function = f"export_{name.replace('-', '_')}"
    FORMATS.add(name, f"{__name__}.{place}:{function}", summary=summary, **facts)


_add("csv", "a table of all labels with their annotators", suffix=".csv")
_add("folder", "a folder of images for each class", folder=True)
_add("json-lines", "JSON objects with path and label, one per line", suffix=".jsonl")
_add("huggingface", "metadata.csv for Hugging Face's ImageFolder")
_add("ground-truth", "a manifest for SageMaker Ground Truth", suffix=".manifest")
_add("label-studio", "tasks for Label Studio", "studio.tasks")
