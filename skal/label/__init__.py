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


def _add(name: str, summary: str, place: str = "exporting", **facts: Any) -> None:
    function = f"export_{name.replace('-', '_')}"
    FORMATS.add(name, f"{__name__}.{place}:{function}", summary=summary, **facts)


_add("csv", "a table of all labels and who gave them", suffix=".csv")
_add("folder", "the images in a folder for each class", folder=True)
_add("json-lines", "an object a line: path, label", suffix=".jsonl")
_add("huggingface", "metadata.csv of Hugging Face's image folders")
_add("ground-truth", "a manifest of SageMaker Ground Truth", suffix=".manifest")
_add("label-studio", "tasks of Label Studio", "studio.tasks")
