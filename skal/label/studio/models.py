"""The models of `skal serve`: the network of a run, or one that learns while people label."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import SkalError
from ...core.text import counted, plain_text
from ...datasets.addresses import Addresses, Located, UnclearAddressError
from ..formats.tools import address_of, rows_of_tasks
from ..learning import ComputedBatch, Failure, Learner
from ..project import LabelProject
from ..service import FRESH_SHARE
from .answers import Answers, answers_of_run
from .tasks import MARK, Question, mark_of

GIVEN = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
TAKEN_BACK = "ANNOTATIONS_DELETED"
TRAIN = "START_TRAINING"

_log = logging.getLogger("skal")


class NotReadyError(SkalError):
    """There are no predictions yet."""


class Model:
    """Finds the images of tasks; its predictions are fixed."""

    def __init__(self, addresses: Addresses, answers: Answers | None = None) -> None:
        self.addresses, self._answers = addresses, answers
        self._problem = "the network is training"
        addresses.prepare()

    def answers(self) -> Answers:
        """Return the current answers; raise a NotReadyError if there are none yet."""
        if self._answers is None:
            raise NotReadyError(f"not ready yet: {self._problem}")
        return self._answers

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in an event of Label Studio."""

    def images_of(self, tasks: list[Any], name: str) -> list[str | None]:
        """Return the images of tasks, found as in an import; `name` is their field in the data.

        Unclear images are None; if addresses belong to several folders, all are None.
        """
        found = [self._locate(task, name) for task in tasks]
        message = self.addresses.contradiction(one for one in found if one is not None)
        if not message:
            return [None if one is None else one.path for one in found]
        _log.warning("nothing is predicted: the data of the tasks %s the image folder", message)
        return [None] * len(tasks)

    def _locate(self, task: Any, name: str) -> Located | None:
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            return None
        try:
            return self.addresses.locate(plain_text(address_of(data, name)))
        except (UnclearAddressError, AttributeError, TypeError, ValueError) as error:
            _log.debug("task %r: %r", task.get("id"), error)
            return None


def model_of_run(run_dir: Path, images: Path | None = None, trust: bool = False) -> Model:
    """Return the model with a run's network; see `answers_of_run`."""
    answers, addresses = answers_of_run(run_dir, images, trust=trust)
    return Model(addresses, answers)


class LearningModel(Model):
    """Learns from a project's labels, and from those given in Label Studio meanwhile.

    The latter are not stored: `skal import --pull` does that. A network is trained at the start,
    after a fifth of a batch of new labels, and on request.
    """

    def __init__(self, project: LabelProject) -> None:
        addresses, self._numbers = project.addresses()
        super().__init__(addresses)
        self._project = project
        self._said: dict[Any, tuple[int, int]] = {}  # image and number of a class, by annotation
        self._heard: Any = None  # number of a project without a mark
        self._refused: list[Any] = []
        self._n_new = 0
        self._is_busy = self._is_due = False
        self._lock = threading.Lock()
        self._learner = Learner(project.learner_setup())
        self._learn()

    def hear(self, event: Mapping[str, Any]) -> None:
        action = event.get("action")
        with self._lock:
            if not self._is_ours(event.get("project")):
                return
            if action in GIVEN:
                self._given(event)
            elif action == TAKEN_BACK and isinstance(event.get("annotations"), list):
                for one in event["annotations"]:
                    self._n_new += self._said.pop(_id(one), None) is not None
            enough = max(1, round(FRESH_SHARE * self._project.n_query))
            if action != TRAIN and self._n_new < enough:
                return
        self._learn()

    def _is_ours(self, project: Any) -> bool:
        """Return whether an event comes from our Label Studio project.

        This is the project pushed from this folder, or, of projects created by hand, the first one
        that sends an event.
        """
        if not isinstance(project, dict):
            return False
        number, description = project.get("id"), str(project.get("description") or "")
        if MARK in description:
            is_ours = mark_of(self._project.id) in description
        else:
            self._heard = number if self._heard is None else self._heard
            is_ours = number == self._heard
        if not is_ours and number not in self._refused:
            self._refused.append(number)
            text = "ignoring labels of Label Studio's project %r, which is not that of this folder"
            _log.warning(text, number)
        return is_ours

    def close(self) -> None:
        self._learner.stop()

    def _given(self, event: Mapping[str, Any]) -> None:
        project, task, annotation = (event.get(n) for n in ("project", "task", "annotation"))
        question = Question.of(project.get("label_config") if isinstance(project, dict) else None)
        (path,) = self.images_of([task], question.field)
        if path is None or not isinstance(task, dict):
            return
        said = {**task, "annotations": [annotation]}
        choice = question.from_name if question.classes else None
        try:
            rows = [*rows_of_tasks([said], "task", choice, set())]
            ids = [self._project.class_id(row.label) for row in rows if row.label]
        except SkalError as error:
            _log.warning("an annotation is not used: %s", error)
            return
        before = self._said.pop(_id(annotation), None)
        for n in ids:
            number = self._project.class_list.numbers[n]
            self._said[_id(annotation)] = (self._numbers[path], number)
        self._n_new += before != self._said.get(_id(annotation))

    def _learn(self) -> None:
        """Request a network and its next batch; repeat afterwards if called meanwhile."""
        with self._lock:
            self._is_due = self._is_busy
            if self._is_busy:
                return
            self._is_busy, self._n_new = True, 0
            project = self._project
            project.refresh()
            ids = project.class_list.ids
            said = {image: ids[number] for image, number in self._said.values() if number in ids}
            labels = {**project.training_labels, **said}
            done = {*labels, *project.reserve, *project.ledger.images()}
            candidates = sorted(project.pool - done)
            request = project.request(candidates, project.n_query, labels)
        self._learner.ask(request, self._take, self._fail)

    def _take(self, batch: ComputedBatch) -> None:
        paths, names = self._project.paths, tuple(self._project.classes)
        guesses = batch.guesses.by_class(self._project.class_list)
        rows = {plain_text(paths[n]): row for n, row in guesses.rows.items()}
        first = {plain_text(paths[n]): place for place, n in enumerate(batch.picks)}
        self._answers = Answers(names, rows, guesses.proba, first)
        by = (
            counted(guesses.n_labeled, "label")
            if guesses.is_of_network
            else "embeddings, without a trained network"
        )
        _log.info("picked the next %s, by %s", counted(len(first), "image"), by)
        self._ended()

    def _fail(self, failure: Failure) -> None:
        self._problem = f"failed: {failure.reason}"
        text = "the next images could not be computed: %s"
        _log.warning(text, failure.reason, extra={"details": failure.details})
        self._ended()

    def _ended(self) -> None:
        with self._lock:
            self._is_busy = False
            is_due = self._is_due
        if is_due:
            self._learn()


def _id(annotation: Any) -> Any:
    number = annotation.get("id") if isinstance(annotation, dict) else annotation
    return number if isinstance(number, int | str) else None
