"""Export and training of the final network, started on the page."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from ..core.durable import write_new
from ..core.errors import DataError, UsageError
from ..core.text import plain_text
from ..runs.record import check_free
from . import FORMATS
from .beside import Beside
from .learning import Failure, Pickers
from .project import LabelProject

NETWORK = "network"
_NETWORK_SUMMARY = "the final network, trained on all labels; it takes minutes"

_log = logging.getLogger("skal")


class Finish(Beside):
    """Makes exports and the final network of a service's project, one at a time.

    This runs in another process, from the labels on disk, so that labelling continues. The result
    goes next to the image folder, under an unused name.
    """

    _doing = _told = ""
    _has_failed = False

    def look(self) -> dict[str, Any]:
        """Return what can be made and where it would go, the current job, and the last result."""
        with self._service.looking() as project:
            summaries = {entry.name: entry.facts.get("summary", "") for entry in FORMATS}
            summaries[NETWORK] = _NETWORK_SUMMARY
            return {
                "n_labeled": len(project.labels),
                "things": [
                    {"what": what, "summary": summaries[what], "where": plain_text(str(where))}
                    for what, where in places(project.root).items()
                ],
                "doing": self._doing,
                "told": self._told,
                "failed": self._has_failed,
            }

    def ask(self, what: Any, where: Any) -> None:
        """Start to make one thing at the place shown; raise a UsageError if this is impossible."""
        with self._service.looking() as project:
            free = places(project.root)
            if not (isinstance(what, str) and what in free):
                raise UsageError(f"what: got {what!r:.50}; expected {', '.join(free)}")
            place = free[what]
            if where != plain_text(str(place)):
                raise UsageError(f"where: got {where!r:.300}, which is not free; expected {place}")
            if self._doing:
                raise UsageError(f"{self._doing} is in progress; wait until it is done")
            if not project.labels:
                raise UsageError("no image has a label yet; label some first")
            if not os.access(place.parent, os.W_OK):
                raise UsageError(f"cannot write to {str(place.parent)!r}: permission denied")
            if self._submit is None:
                raise UsageError("not available here; use skal export and skal train")
            self._doing, self._told = what, ""
        self._submit(partial(make, what, place), self._take, self._fail)

    def _take(self, message: str) -> None:
        _log.info("%s", message)
        self._end(message, failed=False)

    def _fail(self, failure: Failure) -> None:
        _log.warning("%s", failure.reason, extra={"details": failure.details})
        self._end(failure.reason, failed=True)

    def _end(self, message: str, *, failed: bool) -> None:
        with self._service.lock:
            self._doing, self._told, self._has_failed = "", plain_text(message), failed


def places(root: Path) -> dict[str, Path]:
    """Return where each thing made of a folder's labels would go; raise a UsageError for `/`."""
    folder = root.resolve()
    if not folder.name:
        raise UsageError(
            f"{str(folder)!r} has no parent folder to write to; use skal export and skal train "
            "with --out"
        )
    found = {}
    for entry in FORMATS:
        if entry.facts.get("folder"):
            found[entry.name] = _free(folder, "-labeled")
        elif suffix := entry.facts.get("suffix"):
            found[entry.name] = _free(folder, "-labels", suffix)
    return {**found, NETWORK: _free(folder, "-model")}


def _free(folder: Path, end: str, suffix: str = "") -> Path:
    numbers = chain([""], (f"-{number}" for number in count(2)))
    places = (folder.with_name(f"{folder.name}{end}{number}{suffix}") for number in numbers)
    return next(place for place in places if not os.path.lexists(place))


def make(what: str, where: Path, pickers: Pickers) -> str:
    """Make one thing from the labels on disk, and return a message.

    Nothing is overwritten: raise a RunExistsError if `where` exists.
    """
    check_free(where)
    # list the images again, because the learner's list may be older
    opened = LabelProject.open(pickers.setup.root, create=False)
    with closing(opened) as project:
        try:
            if what == NETWORK:
                from .final import describe, train

                return ". ".join(describe(*train(project, where)))
            made = FORMATS.resolve(what).make(project=project, out=where, copy=False)
            if isinstance(made, str):
                write_new(where, made)
        except OSError as error:
            message = f"cannot write {str(where)!r}: {error.strerror or error}"
            raise DataError(message) from error
        return f"{where}: {len(project.labels)} labelled images"
