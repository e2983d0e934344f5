"""Labels to and from Label Studio, as its JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from ..core.errors import DataError
from .entries import IMPORT, Entry, Reading, short_name
from .ledger import TEST
from .names import plain_text
from .project import LabelProject

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its own machine from."""
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded to it."""


def export_label_studio(project: LabelProject, images: Iterable[int] | None = None) -> str:
    """Return tasks for Label Studio, as a JSON list; `labeling_config` is what it fits.

    Each annotator's label is an annotation; what was skipped or nobody is sure of has none. Bad
    images are left out. Where the last network gave an image a probability, its guess is a
    prediction, with that as its score.
    """
    chosen = images if images is not None else sorted(project.paths, key=project.paths.__getitem__)
    chosen = [image for image in chosen if project.ledger.aside.get(image) != "bad"]
    tasks = [_task(project, image) for image in chosen]
    return json.dumps(tasks, indent=1, ensure_ascii=True) + "\n"


def labeling_config(classes: Sequence[str]) -> str:
    """Return the labelling interface of Label Studio that the tasks are made for."""
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="choice" toName="image">{choices}</Choices></View>'
    )


def _task(project: LabelProject, image: int) -> dict[str, Any]:
    path = project.paths[image]
    # relative to the folder above, for Label Studio wants its storage below its document root
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
    return {"data": data, "annotations": annotations, "predictions": _predictions(project, image)}


def _predictions(project: LabelProject, image: int) -> list[dict[str, Any]]:
    guesses = project.guesses
    proba = None if guesses is None else guesses.proba_of(image)
    if guesses is None or proba is None:
        return []
    label = int(proba.argmax())
    score = round(float(proba[label]), 6)
    result = {**_choice(f"{image} guess", project.classes[label]), "score": score}
    version = f"{guesses.model}, {guesses.n_labeled} labels"
    return [{"model_version": version, "score": score, "result": [result]}]


def _choice(of: str, name: str) -> dict[str, Any]:
    return {
        "id": hashlib.sha256(of.encode(errors="surrogateescape")).hexdigest()[:10],
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [name]},
    }


def read_tasks(reading: Reading, text: str) -> list[Entry]:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{reading.name} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise DataError(
            f"{reading.name} is not what Label Studio exports as JSON: expected a list of tasks, "
            "each with its data"
        )
    entries: list[Entry] = []
    for number, task in enumerate(tasks, start=1):
        entries += _entries(reading, task, f"task {task.get('id', number)}")
    reading.check()
    return entries


def _entries(reading: Reading, task: Mapping[str, Any], where: str) -> list[Entry]:
    data, entries = task["data"], []
    annotations = _list(task.get("annotations"), where, "annotations")
    chosen = [(annotation, _chosen(annotation, where)) for annotation in annotations]
    given = [(annotation, choice) for annotation, choice in chosen if choice is not None]
    image = _image_of(reading, data, where) if given else None
    for annotation, choice in given:
        label = reading.class_id(where, choice)
        if image is not None:
            who = _annotator(annotation, data) or reading.annotator
            seconds = annotation.get("lead_time")
            if not (isinstance(seconds, int | float) and 0 <= seconds < 1e9):
                seconds = None
            source = str(data.get("source", IMPORT))
            entries.append(Entry(where, image, "label", label, who, source, seconds))
    return entries


def _chosen(annotation: Any, where: str) -> str | None:
    """Return the class that an annotation gives; None if it was skipped or gives none."""
    if not isinstance(annotation, dict):
        raise DataError(f"{where}: an annotation is {annotation!r:.50}; expected an object")
    if annotation.get("was_cancelled"):
        return None
    chosen: list[Any] = []
    for item in _list(annotation.get("result"), where, "result"):
        if isinstance(item, dict) and item.get("type") == "choices":
            value = item.get("value")
            if isinstance(value, dict):
                chosen += _list(value.get("choices"), where, "choices")
    if len(chosen) > 1:
        raise DataError(f"{where} has the choices {', '.join(map(str, chosen))}; expected one")
    if chosen and not isinstance(chosen[0], str):
        raise DataError(f"{where}: the choice is {chosen[0]!r:.50}; expected text")
    return chosen[0] if chosen else None


def _list(value: Any, where: str, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{where}: {what} is {value!r:.50}; expected a list")
    return value


def _annotator(annotation: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
    """Return whose annotation it is: one of ours that came back, or that of a user there."""
    ours = data.get("annotators")
    for item in annotation["result"]:
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(ours, dict) and isinstance(name, str) and name in ours:
            return short_name(str(ours[name]))
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return None if by in (None, "") else short_name(f"label-studio-{by}")


def _image_of(reading: Reading, data: Mapping[str, Any], where: str) -> int | None:
    """Tell which image a task is about: by our own path, else by the address of the image."""
    if isinstance(data.get("path"), str):
        return reading.image_at(where, data["path"])
    address = next((v for v in (data.get("image"), *data.values()) if isinstance(v, str)), "")
    parts = urlsplit(address)
    if "d" in (query := parse_qs(parts.query)):
        path = PurePosixPath(query["d"][0])
        return reading.image_at(where, str(PurePosixPath(*path.parts[1:])))
    return reading.image_named(where, UPLOADED.sub("", PurePosixPath(unquote(parts.path)).name))
