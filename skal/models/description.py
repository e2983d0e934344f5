"""What ``model.json`` says of a trained network, read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from ..core.durable import sha256
from ..core.errors import RunFolderError, one_line
from ..core.text import counted
from ..core.trust import check_trusted, is_foreign
from ..datasets.decoding import GEOMETRIES
from ..datasets.settings import PAGES

MODEL_FORMAT = 2
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
JOURNAL = "journal.jsonl"
"""Of a run; it is there from its beginning, the network at its end."""
CHECKSUM = "checksum"
"""Of all that stands before it in the description, which holds that of the weights."""
NO_MODEL = "no usable model in {!r}"


def check_model(folder: Path, content: Mapping[str, Any], trust: bool) -> None:
    """Raise a RunFolderError if ``model.json`` names code that nobody has said to trust."""
    params = content.get("params")
    model = params.get("model") if isinstance(params, dict) else None
    if isinstance(model, str) and is_foreign(model, ("models",)):
        check_trusted(folder / DESCRIPTION, {"model": model}, trust)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of ``model.json``; RunFolderError as of `load_classifier`."""
    damaged = NO_MODEL.format(str(folder))
    try:
        content = json.loads((folder / DESCRIPTION).read_text())
    except FileNotFoundError as error:
        begun = (folder / JOURNAL).is_file()
        told = (
            f"; the run is not finished: skal resume {quote(str(folder))}"
            if begun
            else ("; expected the folder of a run, or one that skal train wrote")
        )
        raise RunFolderError(f"{damaged}: it has no {DESCRIPTION}{told}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{damaged}: {DESCRIPTION}: {one_line(error)}") from error
    written = content.get("format") if isinstance(content, dict) else None
    if not isinstance(written, int) or isinstance(written, bool):
        raise RunFolderError(f"{damaged}: {DESCRIPTION} is not one of skal's")
    if written != MODEL_FORMAT:
        whose = "a newer" if written > MODEL_FORMAT else "an older"
        raise RunFolderError(
            f"the model in {str(folder)!r} has format {written}, written by {whose} skal; this "
            f"one reads {MODEL_FORMAT}"
        )
    checksum = content.pop(CHECKSUM, None)
    if checksum != sha256(json.dumps(content, indent=2)):
        raise RunFolderError(f"{damaged}: {DESCRIPTION} is damaged or was edited, by its checksum")
    return dict(content)


def class_names(description: Mapping[str, Any]) -> list[str]:
    """Return the names of a saved network's classes, or their labels if it has no names.

    It raises RunFolderError if there are more or fewer names than classes.
    """
    classes = description["params"]["classes"]
    names = description.get("class_names") or classes
    if len(names) != len(classes):
        raise RunFolderError(
            f"{DESCRIPTION}: {counted(len(names), 'name')} of "
            f"{counted(len(classes), 'class', 'classes')}"
        )
    return [str(name) for name in names]


def decoded_as(description: Mapping[str, Any]) -> dict[str, str]:
    """Return how the files that a saved network was trained on were decoded, as
    `skal.datasets.ImageDataset.decoded_as` says it; a RunFolderError is raised if that is not
    valid.
    """
    found = {"geometry": "cover", "white": "", "pages": "first"}
    found |= {name: str(description[name]) for name in found.keys() & description.keys()}
    for name, known in (("geometry", GEOMETRIES), ("pages", PAGES)):
        if found[name] not in known:
            raise RunFolderError(
                f"{DESCRIPTION} has the {name} {found[name]!r}; expected one of {', '.join(known)}"
            )
    return found
