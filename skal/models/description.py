"""Read ``model.json``, the description of a trained network, without importing torch."""

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
"""File of a run folder from the start of the run on, unlike the network."""
CHECKSUM = "checksum"
"""Key of the checksum of all other keys, which include the checksum of the weights."""
NO_MODEL = "no usable model in {!r}"


def check_model(folder: Path, content: Mapping[str, Any], trust: bool) -> None:
    """Raise RunFolderError if ``model.json`` names code that is not trusted."""
    params = content.get("params")
    model = params.get("model") if isinstance(params, dict) else None
    if isinstance(model, str) and is_foreign(model, ("models",)):
        check_trusted(folder / DESCRIPTION, {"model": model}, trust)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of ``model.json``; raise RunFolderError if it is missing or damaged."""
    damaged = NO_MODEL.format(str(folder))
    try:
        content = json.loads((folder / DESCRIPTION).read_text())
    except FileNotFoundError as error:
        begun = (folder / JOURNAL).is_file()
        advice = (
            f"the run is not finished: skal resume {quote(str(folder))}"
            if begun
            else "expected a run folder, or a folder that skal train wrote"
        )
        raise RunFolderError(f"{damaged}: it has no {DESCRIPTION}; {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{damaged}: {DESCRIPTION}: {one_line(error)}") from error
    written = content.get("format") if isinstance(content, dict) else None
    if not isinstance(written, int) or isinstance(written, bool):
        raise RunFolderError(f"{damaged}: {DESCRIPTION} was not written by skal")
    if written != MODEL_FORMAT:
        whose = "a newer" if written > MODEL_FORMAT else "an older"
        raise RunFolderError(
            f"the model in {str(folder)!r} has format {written}, written by {whose} skal; this "
            f"version reads format {MODEL_FORMAT}"
        )
    checksum = content.pop(CHECKSUM, None)
    if checksum != sha256(json.dumps(content, indent=2)):
        raise RunFolderError(
            f"{damaged}: {DESCRIPTION} is damaged or was edited: it does not match its checksum"
        )
    return dict(content)


def class_names(description: Mapping[str, Any]) -> list[str]:
    """Return the class names of a saved network, or its class labels if it has no names.

    Raises RunFolderError if the numbers of names and classes differ.
    """
    classes = description["params"]["classes"]
    names = description.get("class_names") or classes
    if len(names) != len(classes):
        raise RunFolderError(
            f"{DESCRIPTION} has {counted(len(names), 'name')} for "
            f"{counted(len(classes), 'class', 'classes')}"
        )
    return [str(name) for name in names]


def decoded_as(description: Mapping[str, Any]) -> dict[str, str]:
    """Return how the training files of a saved network were decoded, in the form of
    `skal.datasets.ImageDataset.decoded_as`; raise RunFolderError if it is not valid.
    """
    found = {"geometry": "cover", "white": "", "pages": "first"}
    found |= {name: str(description[name]) for name in found.keys() & description.keys()}
    for name, known in (("geometry", GEOMETRIES), ("pages", PAGES)):
        if found[name] not in known:
            raise RunFolderError(
                f"{DESCRIPTION} has the {name} {found[name]!r}; expected one of {', '.join(known)}"
            )
    return found
