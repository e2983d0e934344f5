"""Labels as tasks of Label Studio, and the settings that Label Studio needs for them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from ...core.text import plain_text
from ..exporting import check_files
from ..ledger import TEST
from ..project import LabelProject

LOCAL_FILES = "/data/local-files/?d="
"""The path from which Label Studio serves local files."""
MODEL_VERSION = "skal"
"""Version of all predictions: Label Studio shows those of one version, and sorts tasks without
one of it last."""
MARK = "skal:"
FROM_NAME, TO_NAME = "choice", "image"
"""Names of the question and of the image in our labelling interface."""


def export_label_studio(project: LabelProject, images: Iterable[int] | None = None) -> str:
    """Return `tasks` for Label Studio as a JSON list, which fits `labeling_config`."""
    return json.dumps(tasks(project, images), indent=1) + "\n"


def tasks(project: LabelProject, images: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """Return a task for each image (by default all), except bad ones.

    Each annotator's label is an annotation; skipped and unsure images have none. The last network's
    predicted class, if any, is a prediction with its probability as the score.
    """
    check_files(project, "a task of Label Studio")
    if images is None:
        images = sorted(project.paths, key=project.paths.__getitem__)
    return [_task(project, n) for n in images if project.ledger.aside.get(n) != "bad"]


def labeling_config(classes: Sequence[str]) -> str:
    """Return the labelling interface of Label Studio for the tasks."""
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View><Image name="{TO_NAME}" value="$image"/>'
        f'<Choices name="{FROM_NAME}" toName="{TO_NAME}">{choices}</Choices></View>'
    )


class Question(NamedTuple):
    """The question of a labelling interface.

    The names of question and image, the image's field in a task's data, and the classes (None if
    unknown).
    """

    from_name: str = FROM_NAME
    to_name: str = TO_NAME
    field: str = "image"
    classes: Collection[str] | None = None

    @classmethod
    def of(cls, interface: Any) -> Question:
        """Read the first choices for an image in a labelling interface; by default, ours."""
        try:
            root = ElementTree.fromstring(interface)
        except (ElementTree.ParseError, TypeError, ValueError):
            return cls()
        fields = {one.get("name", ""): one.get("value", "") for one in root.iter("Image")}
        for one in root.iter("Choices"):
            to_name = one.get("toName", "")
            if to_name in fields:
                classes = {choice.get("value", "") for choice in one.iter("Choice")}
                field = fields[to_name].removeprefix("$")
                return cls(one.get("name", ""), to_name, field, classes)
        return cls()


def local_files_settings(project: LabelProject) -> dict[str, str]:
    """Return the environment variables with which Label Studio serves local images."""
    return {
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": plain_text(str(project.root.resolve().parent)),
    }


def what_to_set(project: LabelProject, tasks_file: str) -> str:
    """Return instructions for setting up Label Studio to show the images of tasks, as Markdown."""
    folder = plain_text(str(project.root.resolve()))
    variables = local_files_settings(project).items()
    exports = "\n".join(f"    export {name}={shlex.quote(value)}" for name, value in variables)
    return f"""# Label Studio setup for {tasks_file}

Start Label Studio so that it serves local images:

{exports}
    label-studio start

Then, in your Label Studio project, in this order:

1. Settings, Labeling Interface, Code:

        {labeling_config(project.classes)}

2. Settings, Cloud Storage, Add Source Storage, Local Files: the path {folder}, the import method
   "Files", and "Scan all sub-folders" on. Save it, but do not sync it: a sync creates a second
   task for every image.
3. Import {tasks_file}.

Or let skal do all three on a running server:

    skal export {shlex.quote(folder)} --format label-studio --push http://localhost:8080
"""


def _task(project: LabelProject, image: int) -> dict[str, Any]:
    path = project.paths[image]
    # relative to the parent folder: Label Studio's storage must be below its document root
    address = quote(f"{project.name}/{path}", errors="surrogateescape")
    data: dict[str, Any] = {"image": f"{LOCAL_FILES}{address}", "path": plain_text(path)}
    annotations: list[dict[str, Any]] = []
    annotators: dict[str, str] = {}
    for who, action in sorted(project.ledger.verdicts(image).items()):
        if action.action == "label" and action.label is not None:
            result = _choice(f"{image} {who}", project.classes[action.label])
            times = {} if action.seconds is None else {"lead_time": action.seconds}
            annotations.append({"result": [result], "was_cancelled": False, **times})
            annotators[result["id"]] = who
            if project.is_test(image):
                data["source"] = TEST
    if not annotations and image in project.folder_labels:
        result = _choice(f"{image}", project.classes[project.folder_labels[image]])
        annotations.append({"result": [result], "was_cancelled": False})
    if annotators:  # Label Studio knows only its own users, but keeps a task's data
        data["annotators"] = annotators
    guess = prediction_of(project, image)
    predictions = [] if guess is None else [guess]
    return {"data": data, "annotations": annotations, "predictions": predictions}


def prediction_of(project: LabelProject, image: int) -> dict[str, Any] | None:
    """Return the last network's prediction for a task, with its probability as score, or None."""
    guesses = project.guesses
    proba = None if guesses is None else guesses.proba_of(image)
    if proba is None:
        return None
    label = int(proba.argmax())
    score = round(float(proba[label]), 6)
    result = {**_choice(f"{image} guess", project.classes[label]), "score": score}
    return {"model_version": MODEL_VERSION, "score": score, "result": [result]}


def mark_of(project_id: str) -> str:
    """Return the mark in the description of a Label Studio project that was pushed from ours."""
    return f"{MARK}{project_id}"


def _choice(of: str, name: str) -> dict[str, Any]:
    number = hashlib.sha256(of.encode(errors="surrogateescape")).hexdigest()[:10]
    return {"id": number, **choice_of(name)}


def choice_of(name: str, from_name: str = FROM_NAME, to_name: str = TO_NAME) -> dict[str, Any]:
    """Return the choice of a class as an item of a result list."""
    value = {"choices": [name]}
    return {"from_name": from_name, "to_name": to_name, "type": "choices", "value": value}
