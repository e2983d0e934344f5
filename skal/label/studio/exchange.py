"""Push a project to a Label Studio server, and pull its annotations back."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...core.errors import DataError, MissingExtraError, SkalError, UsageError
from ...core.progress import progress
from ...core.text import counted, plain_text
from ..exporting import check_files
from ..formats import Source
from ..formats.tools import address_of
from ..importing import Imported, import_into
from ..project import LabelProject
from .tasks import (
    MODEL_VERSION,
    labeling_config,
    local_files_settings,
    mark_of,
    prediction_of,
    tasks,
)

TOKEN = "LABEL_STUDIO_API_KEY"
"""The environment variable with the token of a Label Studio user."""
TASKS_AT_ONCE = 1000
PATIENCE = 600.0
"""Seconds, for an export of a large project."""
SHORTEST_TITLE, LONGEST_TITLE = 3, 50

_log = logging.getLogger("skal")


class ServerError(SkalError):
    """Label Studio cannot be reached, or refuses a request."""


@dataclass(frozen=True)
class Pushed:
    """The result of a push.

    The project's `url`, whether it `is_new`, how many tasks were added, how many existed, and how
    many of these got a new prediction.
    """

    url: str
    is_new: bool
    n_added: int
    n_there: int
    n_renewed: int = 0

    def __str__(self) -> str:
        made = "created" if self.is_new else "existing"
        tasks = counted(self.n_added, "task")
        message = f"{self.url} ({made}): {tasks} added, {self.n_there} already on the server"
        return (
            f"{message}, {counted(self.n_renewed, 'prediction')} updated"
            if self.n_renewed
            else message
        )


def push(project: LabelProject, url: str) -> Pushed:
    """Create or find the Label Studio project for `project`, and add missing tasks.

    Existing tasks get the current predictions. The project is found by our project's id in its
    description, and its images by their addresses, as in an import. The token is read from the
    environment variable `TOKEN`.

    Raises
    ------
    UsageError, MissingExtraError
        There is no token, the address is not valid, or the SDK of Label Studio is not installed.
    ServerError, DataError
        The server cannot be reached or refuses a request, or the image field of a task is unclear.
    """
    check_files(project, "a task of Label Studio")  # before anything is made there
    with closing(_Server(url)) as server, server.errors():
        if server.number is not None:
            raise UsageError(
                f"--push: got {url!r}, a project; expected the server's address {server.address}, "
                "because skal creates its own project"
            )
        number = server.find(project.id)
        is_new = number is None
        kept = [] if number is None else server.tasks(number, everything=True)
        there = _tasks_of(project, kept)
        config = labeling_config(project.classes)
        if number is None:
            number = server.make(project, config)
        else:
            server.set_interface(number, config)
        server.add_storage(number, project)
        by_path = sorted(project.paths, key=project.paths.__getitem__)
        wanted = tasks(project, [n for n in by_path if n not in there])
        with progress(total=len(wanted), desc="pushing", unit="task") as bar:
            for start in range(0, len(wanted), TASKS_AT_ONCE):
                part = wanted[start : start + TASKS_AT_ONCE]
                server.add_tasks(number, part)
                bar.update(len(part))
        guesses = {task: prediction_of(project, image) for image, task in there.items()}
        known = {task: guess for task, guess in guesses.items() if guess is not None}
        n_renewed = server.renew(number, known) if known else 0
        address = f"{server.address}/projects/{number}"
        return Pushed(address, is_new, len(wanted), len(there), n_renewed)


def pull(
    folder: Path,
    url: str,
    classes: Sequence[str] = (),
    annotator: str = "me",
    choice: str | None = None,
    path_column: str | None = None,
) -> Imported:
    """Import the annotations of a Label Studio project, all or none; see `import_into`.

    `url` is that of a project, or of the server to which ours was pushed. `choice` and
    `path_column` are as in `Source`. Errors are those of `push` and of `import_into`.
    """
    with closing(_Server(url)) as server, server.errors():
        number = server.number
        if number is None:
            opened = LabelProject.open(folder, classes, create=False, needs_classes=False)
            with closing(opened) as ours:
                number = server.find(ours.id)
        if number is None:
            raise DataError(
                f"{server.address} has no project for {str(folder)!r}; give a project's address, "
                f"such as {server.address}/projects/1, or push first with skal export"
            )
        found = server.tasks(number, everything=False)
    if not found:
        return Imported(0, 0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"label-studio-project-{number}.json"
        path.write_text(json.dumps(found), encoding="utf-8")
        source = Source(path, path_column, choice=choice)
        return import_into(folder, source, classes, annotator)


def _tasks_of(project: LabelProject, found: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Return the tasks of our images by image, and warn of tasks whose image is not in the project.

    Raise a DataError if the image field of a task is unclear: its image could be pushed twice.
    """
    addresses, by_path = project.addresses()
    images: dict[int, int] = {}
    unclear = 0
    for task in found:
        where, remedy = f"task {task['id']}", "nothing was pushed: name the image field 'image'"
        address = address_of(task["data"], where=where, remedy=remedy)
        try:
            image = by_path[addresses.find(plain_text(address))]
            images.setdefault(image, task["id"])
        except DataError:
            unclear += 1
    if unclear:
        tasks_there = counted(unclear, "task on the server has", "tasks on the server have")
        _log.warning("%s no image in this project", tasks_there)
    return images


class _Server:
    """The requests to Label Studio, by its SDK."""

    def __init__(self, url: str) -> None:
        self.address, self.number = _parse(url)
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise UsageError(
                f"{TOKEN} is not set; set it to the token of a user of {self.address}, shown on "
                "its page 'Account & Settings'"
            )
        try:
            import httpx
            from label_studio_sdk import LabelStudio
        except ImportError as error:
            package = str(error.name or "label_studio_sdk").replace("_", "-")
            raise MissingExtraError(package, "labelstudio", "--push and --pull") from error
        self._http = httpx.Client(timeout=PATIENCE, follow_redirects=True)
        with self.errors():
            self._client = LabelStudio(
                base_url=self.address, api_key=token, httpx_client=self._http
            )

    def close(self) -> None:
        self._http.close()

    def find(self, project_id: str) -> int | None:
        """Return the number of the project that was created for one of ours."""
        found = self._client.projects.list(page_size=100)
        ours = (one.id for one in found if mark_of(project_id) in (one.description or ""))
        return next(map(int, ours), None)

    def make(self, project: LabelProject, config: str) -> int:
        name = plain_text(project.name)
        title = name if len(name) >= SHORTEST_TITLE else f"skal {name}"
        message = f"Images of {name}, pushed by skal ({mark_of(project.id)}: do not remove this)"
        made = self._client.projects.create(
            title=title[:LONGEST_TITLE], description=message, label_config=config
        )
        return int(made.id)

    def set_interface(self, number: int, config: str) -> None:
        if self._client.projects.get(id=number).label_config != config:
            self._client.projects.update(id=number, label_config=config)
            _log.info("updated the classes of project %d", number)

    def add_storage(self, number: int, project: LabelProject) -> None:
        """Let the server show the images; if it refuses, log the settings needed, and continue."""
        path = plain_text(str(project.root.resolve()))
        storages = self._client.import_storage.local
        try:
            with self.errors():
                if any(one.path == path for one in storages.list(project=number)):
                    return
                storages.create(
                    project=number,
                    path=path,
                    title="images",
                    use_blob_urls=True,
                    recursive_scan=True,
                    synchronizable=False,  # a sync would make a second task of every image
                )
        except ServerError as error:
            settings = local_files_settings(project).items()
            _log.warning(
                "%s; the server cannot show the images: start it with %s, and push again",
                error,
                " ".join(f"{name}={value}" for name, value in settings),
            )

    def tasks(self, number: int, *, everything: bool) -> list[dict[str, Any]]:
        """Return the tasks of a project with their annotations, or only those that have any."""
        parts = self._client.projects.exports.download_sync(
            id=number, export_type="JSON", download_all_tasks=everything
        )
        try:
            found = json.loads(b"".join(parts))
        except ValueError as error:
            message = f"{self.address} did not answer with JSON; check that it is Label Studio"
            raise ServerError(message) from error
        if not (isinstance(found, list) and all(isinstance(one, dict) for one in found)):
            raise ServerError(f"{self.address} did not answer with a list of tasks")
        return found

    def add_tasks(self, number: int, some: Sequence[dict[str, Any]]) -> None:
        self._client.projects.import_tasks(id=number, request=some)

    def renew(self, number: int, wanted: Mapping[int, dict[str, Any]]) -> int:
        """Replace our earlier predictions on tasks; those of other models stay.

        Return how many have changed.
        """
        listed = self._client.predictions.list(project=number)
        ours = {one.task: one for one in listed if one.model_version == MODEL_VERSION}
        changed = {
            ours[task].id: guess
            for task, guess in wanted.items()
            if task in ours and not _is_same(ours[task], guess)
        }
        new = [{"task": task, **guess} for task, guess in wanted.items() if task not in ours]
        for prediction, guess in progress(changed.items(), desc="renewing", unit="task"):
            self._client.predictions.update(id=prediction, **guess)
        for start in range(0, len(new), TASKS_AT_ONCE):
            part = new[start : start + TASKS_AT_ONCE]
            self._client.projects.import_predictions(id=number, request=part)
        return len(changed) + len(new)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Convert errors of the SDK to ours, in one line."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        try:
            yield
        except ApiError as error:
            message = f"refused ({error.status_code}): {' '.join(str(error.body).split())[:500]}"
            if error.status_code in (401, 403):
                message = (
                    f"refused the token in {TOKEN} (status {error.status_code}); use one shown on "
                    "its page 'Account & Settings'"
                )
            raise ServerError(f"{self.address} {message}") from error
        except httpx.HTTPError as error:
            message = f"cannot be reached ({error}); check that Label Studio is running there"
            raise ServerError(f"{self.address} {message}") from error


def _is_same(one: Any, guess: Mapping[str, Any]) -> bool:
    """Return whether a prediction on the server equals ours."""
    said, ours = one.result or [], guess["result"]
    values = [item.get("value") for item in said if isinstance(item, dict)]
    return one.score == guess["score"] and values == [item["value"] for item in ours]


def _parse(url: str) -> tuple[str, int | None]:
    """Return the address of a server, and the number of the project in a URL, if any."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"got the address {url!r}; expected a server such as http://localhost:8080, or a "
            "project such as http://localhost:8080/projects/1"
        )
    place = re.fullmatch(r"(.*?)(?:/projects/(\d+)(?:/.*)?)?/?", parts.path)
    assert place is not None
    number = None if place[2] is None else int(place[2])
    return f"{parts.scheme}://{parts.netloc}{place[1]}".rstrip("/"), number
