"""The review: all images with their answers, filtered and sorted, and doubtful labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ..core.errors import UsageError
from ..core.text import plain_text
from .beside import Beside
from .doubts import Doubt, Doubts, find_doubts

N_RECENT = 8
VERDICTS = ("label", "unsure", "bad", "none")
AGREEMENTS = ("agrees", "differs", "doubtful")
DISPUTED = ("disputed",)
NOTED = ("noted",)
ORDERS = ("time", "doubt", "unsure", "note", "name")


class Review(Beside):
    """All images with their answers; doubtful labels are computed on request."""

    what = "doubts"
    _doubts: Mapping[int, Doubt] = {}
    _asked_with: tuple[Any, ...] = ()  # the labels and classes of the last request
    _of_classes: tuple[int, ...] = ()  # the numbers of the classes whose ids the doubts use

    def ask(self) -> None:
        """Start to compute doubtful labels, unless this is running or up to date."""
        with self._service.looking() as project:
            now = (dict(project.labels), tuple(project.class_list.numbers))
            if self.state == "computing" or (now == self._asked_with and self._doubts):
                return
            if self._submit is None:
                self.state = "failed: no network can be trained here"
                return
            self._asked_with, self.state = now, "computing"
            job = partial(find_doubts, tuple(project.classes), now[0])
        self._submit(job, self.take, self._fail)

    def take(self, doubts: Doubts) -> None:
        """Take the computed doubts."""
        with self._service.lock:
            self._of_classes = tuple(self._service.project.class_list.numbers)
            is_of_today = not self._asked_with or self._asked_with[1] == self._of_classes
            self._doubts = {doubt.image: doubt for doubt in doubts.ranked if is_of_today}
            self.state = "ready"

    def _forget_others(self) -> None:
        """Drop doubts if classes were merged or removed since."""
        if self._doubts and self._of_classes != tuple(self._service.project.class_list.numbers):
            self._doubts, self._asked_with, self.state = {}, (), "none"

    def find(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the numbers of the requested images, sorted.

        The filters are `class` (a number), `annotator`, `round`, `verdict` (one of `VERDICTS`),
        `agreement` (one of `AGREEMENTS`), `people` ("disputed"), `notes` ("noted") and `name` (a
        part of it). `sort` is one of `ORDERS`: the latest answers, least probable labels, smallest
        margins or lowest scores of notes first, or by name.
        """
        with self._service.looking() as project:
            self._forget_others()
            fits, order = self._filters(asked), _one_of(asked, "sort", ORDERS) or "time"
            images = [n for n in project.paths if all(fit(n) for fit in fits)]
            return {
                "images": self._ordered(images, order),
                "annotators": project.ledger.annotators(),
                "n_rounds": project.n_batches,
                "doubts": self.state,
                "n_disputed": len(project.disputed),
                "n_noted": sum(n in project.paths for n in project.notes.by_image),
                "n_doubtful": sum(map(self._is_doubtful, self._doubts)),
            }

    def _filters(self, asked: Mapping[str, Any]) -> list[Callable[[int], bool]]:
        """Return conditions that images must meet."""
        project, batches = self._service.project, self._service.batches
        ledger, labels, paths = project.ledger, project.labels, project.paths
        ids = project.class_list.ids
        fits: list[Callable[[int], bool]] = []
        if number := _number(asked, "class"):
            if int(number) not in ids:
                raise UsageError(f"class: got {number!r}; expected an existing class")
            label = ids[int(number)]
            fits.append(lambda n: labels.get(n) == label)
        if (who := asked.get("annotator")) and isinstance(who, str):
            fits.append(lambda n: who in ledger.verdicts(n))
        if verdict := _one_of(asked, "verdict", VERDICTS):
            fits.append(lambda n: (self._verdict(n) or "none") == verdict)
        if number := _number(asked, "round"):
            of_round = int(number)
            fits.append(lambda n: batches.round_of(n) == of_round)
        if agreement := _one_of(asked, "agreement", AGREEMENTS):
            doubtful, wanted = agreement == "doubtful", agreement == "agrees"
            fits.append(self._is_doubtful if doubtful else lambda n: self._agrees(n) is wanted)
        if _one_of(asked, "people", DISPUTED):
            fits.append(project.disputed.__contains__)
        if _one_of(asked, "notes", NOTED):
            fits.append(project.notes.by_image.__contains__)
        if part := str(asked.get("name") or "").casefold():
            fits.append(lambda n: part in plain_text(paths[n]).casefold())
        return fits

    def _ordered(self, images: list[int], order: str) -> list[int]:
        project = self._service.project
        if order == "name":
            return sorted(images, key=project.paths.__getitem__)
        first: Iterable[int]
        if order == "note":
            worst = project.notes.worst()
            first = sorted(worst, key=worst.__getitem__)
        elif order == "unsure":
            first = project.guesses.by_margin if project.guesses else ()
        elif order == "doubt":
            labels = project.labels
            first = [n for n, doubt in self._doubts.items() if labels.get(n) == doubt.label]
        else:
            said = {n: project.ledger.verdicts(n).values() for n in project.ledger.images()}
            last = {n: max(a.id for a in verdicts) for n, verdicts in said.items() if verdicts}
            first = sorted(last, key=last.__getitem__, reverse=True)
        ranks = {n: rank for rank, n in enumerate(first)}
        return sorted(images, key=lambda n: (ranks.get(n, len(ranks)), n))

    def _verdict(self, image: int) -> str | None:
        project = self._service.project
        return "label" if image in project.labels else project.ledger.aside.get(image)

    def _said(self, image: int) -> tuple[int, float] | None:
        """Return the predicted class id and probability of a labelled image; held out if known."""
        project = self._service.project
        if image not in project.labels:
            return None
        if doubt := self._doubts.get(image):
            return doubt.guess, doubt.guess_probability
        proba = None if project.guesses is None else project.guesses.proba_of(image)
        return None if proba is None else (int(proba.argmax()), float(proba.max()))

    def _agrees(self, image: int) -> bool | None:
        """Return whether the prediction equals the label; None if either is missing."""
        said = self._said(image)
        return None if said is None else said[0] == self._service.project.labels[image]

    def _is_doubtful(self, image: int) -> bool:
        """Return whether the label is contradicted and was not confirmed by a second answer."""
        project, doubt = self._service.project, self._doubts.get(image)
        if doubt is None or not doubt.contradicted or project.labels.get(image) != doubt.label:
            return False
        n_votes = project.ledger.n_votes(image, doubt.label)
        return n_votes + (project.folder_labels.get(image) == doubt.label) < 2

    def rows(self, images: Iterable[int]) -> list[dict[str, Any]]:
        """Return the facts of some images."""
        with self._service.looking() as project:
            self._forget_others()
            return [self._row(image) for image in images if image in project.paths]

    def _row(self, image: int) -> dict[str, Any]:
        project, number = self._service.project, self._service.project.class_list.number_of
        label, said = project.labels.get(image), self._said(image)
        verdicts = project.ledger.verdicts(image)
        latest = max(verdicts.values(), key=lambda action: action.id, default=None)
        return {
            **self._service.describe(image, note_of_label=bool(verdicts) or label is not None),
            "verdict": self._verdict(image),
            "label": number(label),
            "by": sorted(verdicts),
            "said": self._said_by(image) if image in project.ledger.disputed else [],
            "time": latest and latest.time,
            "round": self._service.batches.round_of(image),
            "guess": said and number(said[0]),
            "probability": said and round(said[1], 4),
            "doubtful": self._is_doubtful(image),
        }

    def _said_by(self, image: int) -> list[dict[str, Any]]:
        project = self._service.project
        said, numbers = project.ledger.votes(image), project.class_list.numbers
        return [{"by": who, "label": numbers[k]} for who, k in sorted(said.items())]

    def recent(self, annotator: str) -> list[dict[str, Any]]:
        """Return an annotator's last answers that were not undone, the latest first."""
        with self._service.lock:
            project = self._service.project
            return [
                {
                    **self._service.describe(action.image),
                    "action": action.action,
                    "label": project.class_list.number_of(action.label),
                }
                for action in project.ledger.recent(annotator, N_RECENT)
                if action.image in project.paths
            ]


def _one_of(asked: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str | None:
    value = asked.get(name) or None
    if value is not None and value not in known:
        raise UsageError(f"{name}: got {value!r:.50}; expected {', '.join(known)}")
    return value


def _number(asked: Mapping[str, Any], name: str) -> str | None:
    value = asked.get(name) or None
    if value is not None and not (isinstance(value, str) and value.isdecimal() and len(value) < 10):
        raise UsageError(f"{name}: got {value!r:.50}; expected a number")
    return value
