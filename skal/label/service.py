"""`LabelService`: takes answers, hands out images, and requests batches from the learner."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError, UsageError
from ..core.text import plain_text, shown
from . import queue, telling
from .answers import check_answer, check_key
from .kept_classes import ClassEdits
from .learning import Ask, ComputedBatch, Failure, LearnerSetup
from .leases import Leases
from .ledger import GRID, OTHER, SETTLED, TEST, BatchIndex
from .listing import Files
from .names import check_annotator
from .previews import Previews
from .project import LabelProject
from .sample import model_row
from .store import Action, BatchRow

QUEUE = 12
"""Images to send to a page, so that it can prefetch them."""
NEWS_SHARE = 0.1
"""The share of images that must have changed before the learner is given the new list."""
FRESH_SHARE = 0.2
"""New labels, as a share of a batch, after which a batch that nobody has begun is recomputed."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("skal")


class NothingToUndoError(UsageError):
    """There is no answer to undo, or it was undone already."""


def _locked(
    method: Callable[Concatenate[LabelService, P], T],
) -> Callable[Concatenate[LabelService, P], T]:
    """Run a method in one thread at a time, after reading what other processes wrote."""

    @wraps(method)
    def run(self: LabelService, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.looking():
            return method(self, *args, **kwargs)

    return run


class LabelService:
    """The operations of page and terminal, for any number of annotators at once.

    `next`, `grid`, `act` and `undo` change the project; `state` and `guess` only read it. The rules
    in `skal.label.queue` decide which image comes next. The next batch is computed while this one
    is labelled, and recomputed from new labels until somebody reaches it.

    In all methods, `annotator` is a name, `window` distinguishes pages of one annotator, and `key`
    identifies a request: a repeated one is not executed again, but answered as before. Invalid
    requests raise a UsageError and write nothing. `previews` know which images can be read, and
    `batches` which were handed out. Other users of the project must hold the `lock`.
    """

    def __init__(
        self,
        project: LabelProject,
        previews: Previews | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.project = project
        self.previews = previews or Previews(
            project.root, project.paths, ranges=lambda: project.ranges, pages=project.config.pages
        )
        self.learner_state = "idle"
        self.lock = threading.RLock()
        self._ask: Ask | None = None
        self._renew: Callable[[LearnerSetup], None] | None = None
        self._by_chance = np.empty(0, np.int64)
        self._learned = project.paths  # images that the learner knows
        self._take_images()
        self._picks: Sequence[int] = ()
        self._kind = "start"
        self._asked: tuple[int, Mapping[int, int]] | None = None  # rows and labels at last request
        self.leases = Leases(clock)
        self._front: dict[str, list[int]] = {}
        self._due: dict[str, list[int]] = {}
        self._unreadable: set[int] = set()
        self.batches = BatchIndex()
        self.batches.take(project.store.batches())
        for image in project.ledger.images():
            self._follow(image)
        project.on_action = lambda action: self._follow(action.image)

    def start(self, ask: Ask, renew: Callable[[LearnerSetup], None] | None = None) -> None:
        """Start to request batches with `ask` of a `Learner`.

        `renew` is called with a new setup before the next request, when images have changed.
        """
        with self.lock:
            self._ask, self._renew = ask, renew
            self._wake()

    @contextmanager
    def looking(self) -> Iterator[LabelProject]:
        """Yield the current project, locked."""
        with self.lock:
            self.project.refresh()
            yield self.project

    @_locked
    def take_files(self, files: Files) -> None:
        """Update the images of the project.

        The learner gets them before the next batch once a tenth has changed, because it then
        decodes all images again.
        """
        before = len(self.project.paths)
        self.project.take_files(files)
        self._take_images()
        n = len(self.project.paths)
        _log.info("images were added or removed: %d before, %d now", before, n)
        n_other = self.project.paths.n_other(self._learned)
        if n_other >= max(1, round(NEWS_SHARE * len(self._learned))):
            self._learned, self._asked = self.project.paths, None
            if self._renew is not None:
                self._renew(self.project.learner_setup())
        self._wake()

    def _take_images(self) -> None:
        project = self.project
        there, sizes = project.paths, (project.n_init, project.n_query, project.terms.overlap)
        reserve = np.array(project.reserve, np.int64)
        self._facts = queue.ProjectFacts(there, project.pool, frozenset(project.reserve), *sizes)
        self.previews.paths = there
        present = np.flatnonzero(there.mask())
        self._by_chance = queue.with_new(self._by_chance, present, project.config.seed)
        others = self._by_chance[~np.isin(self._by_chance, reserve)]
        self._orders = [queue.InOrder(images.data) for images in (others, reserve)]

    @_locked
    def next(
        self, annotator: str, n: int = QUEUE, *, grid: bool = False, window: str | None = None
    ) -> list[int]:
        """Hand out the next `n` images, the first to be shown now; none at the end.

        While the annotator's `grid` is open, its images are not shown to others either.
        """
        who = check_annotator(annotator)
        self.leases.tell(who, "grid", None if grid else ())
        if window is not None:
            self.leases.see(who, window)
        images = self._hand_out(who, n)
        self._wake()
        return images

    @_locked
    def grid(self, annotator: str, n: int, among: Sequence[int] = ()) -> list[int]:
        """Hand out similar images, if embeddings are known, else the next of the queue.

        The first is the next image of the queue that is not a test image. With `among`, they are
        those of the given images that can be labelled. Test images are left out, because images
        selected by appearance are not a fair sample; `next` returns those that are due.
        """
        who = check_annotator(annotator)
        following = self._hand_out(who, max(n, QUEUE), lease=False)
        state = self._snapshot(who)
        images = [n for n in following if not ((row := state.row(n)) and row.kind == TEST)]
        guesses = self.project.guesses
        if among:
            images = queue.together(state, among, n)
        elif images and guesses is not None and images[0] in guesses.rows:
            images = queue.together(state, guesses.nearest_to(images[0]), n)
        self.leases.tell(who, "grid", images[:n])
        self._owe(who, () if images or among else following)
        return images[:n]

    @_locked
    def act(
        self,
        annotator: str,
        answers: Sequence[Mapping[str, Any]],
        key: str | None = None,
        *,
        grid: bool = False,
    ) -> list[int]:
        """Write an annotator's answers to disk, all or none, and return the actions' ids.

        Each answer has `action` (one of `ANSWERS`), `image`, `label` (a class's number, if the
        action is "label"), and optionally `seconds`, `guess` (the number of the class shown as the
        prediction) and `settles` (true if it settles a dispute; see `Ledger`).
        """
        who, request = check_annotator(annotator), check_key(key)
        if before := self._answered(request, by_undo=False):
            return [action.id for action in before]
        if not answers:
            raise ParameterError("actions: got none; expected at least one")
        request = request or uuid.uuid4().hex  # so that an undo takes all actions back
        actions = [self._action(who, answer, request, grid) for answer in answers]
        ids = self.project.record(actions)
        done = {action.image for action in actions}
        self._front[who] = [i for i in self._front.get(who, ()) if i not in done]
        if grid:
            self._owe(who)
        self._wake()
        return ids

    @_locked
    def edit_classes(self, edits: ClassEdits) -> None:
        """Apply edits of classes and their keys."""
        self.project.edit_classes(edits)
        self._take_images()
        if edits.into or edits.new:
            self._asked = None  # request a new batch
        self._wake()

    @_locked
    def undo(
        self,
        annotator: str,
        key: str | None = None,
        of: str | None = None,
        window: str | None = None,
    ) -> list[Action]:
        """Undo an annotator's request, and return its actions that were not undone before.

        `of` is the key of that request, by default the annotator's latest. If another window is
        open under the same name, the latest may be the other window's, so `of` is required. The
        images are shown to the annotator next. Raise a NothingToUndoError if there is nothing.
        """
        who, request, named = check_annotator(annotator), check_key(key), check_key(of)
        if before := self._answered(request, by_undo=True):
            undone = [self.project.store.action(action.undoes or 0) for action in before]
            return [self.project.said(action) for action in undone]
        undone = self._undoable(who, named, window)
        if not undone:
            raise NothingToUndoError("nothing to undo")
        undo = partial(Action, who, "undo", request=request)
        self.project.record(
            [undo(a.image, round=a.round, source=a.source, undoes=a.id) for a in undone]
        )
        images = [action.image for action in undone]
        self._front[who] = [*images, *(i for i in self._front.get(who, ()) if i not in images)]
        self._wake()
        return undone

    @_locked
    def state(self, annotator: str, *, window: str | None = None) -> dict[str, Any]:
        """Return what the page shows, ready for JSON, without changing anything.

        Its `queue` has the images that `next` would hand out now.
        """
        project, seen = self.project, self._snapshot(check_annotator(annotator))
        listed = project.class_list
        plan = queue.plan(seen, QUEUE)
        images, seen = plan.images, seen.with_rows(plan.rows)
        number, size, n_done = queue.progress(seen, images)
        waiting = [] if images else self._holders(seen)
        return {
            "project": plain_text(project.name),
            "classes": listed.described(),
            "annotator": annotator,
            "pictures": self.previews.stamp,
            "elsewhere": self.leases.is_elsewhere(annotator, window),
            "round": number,
            "done_in_round": n_done,
            "round_size": size,
            **telling.counts(project, self._unreadable),
            **telling.figures(project),
            "learner": self.learner_state,
            "finished": not images and not waiting,
            "waiting_for": waiting,
            "due": len(queue.due(seen)),
            "queue": [
                {**self.describe(image), "why": telling.why(project, seen.row(image))}
                for image in images
            ],
        }

    def describe(self, image: int, *, note_of_label: bool = False) -> dict[str, Any]:
        """Return what the page shows of an image; notes on its label only with `note_of_label`."""
        width, height = self.previews.size(image) or (0, 0)
        name = plain_text(self.project.paths[image])
        note = self.project.notes.of(image, of_label=note_of_label)
        return {"image": image, "width": width, "height": height, "name": name, "note": note}

    @_locked
    def guess(self, image: int) -> NDArray[np.float32] | None:
        guesses = self.project.guesses
        return None if guesses is None else guesses.proba_of(image)

    @_locked
    def why(self, image: int, *, named: bool = False) -> str:
        """Return why an image is shown; if `named`, with the classes that are most probable."""
        row = self._snapshot("").row(image)
        return telling.why(self.project, row, self.project.classes if named else ())

    @_locked
    def leave(self, annotator: str, window: str | None) -> None:
        """Note that a window was closed."""
        self.leases.leave(check_annotator(annotator), window)

    def take_batch(self, batch: ComputedBatch) -> None:
        """Take a computed batch; if this fails, the previous one stays."""
        with self.lock:
            if batch.guesses.is_of_network:
                self.project.add_model(model_row(batch, self.project.reserve))
            self.project.guesses = batch.guesses.by_class(self.project.class_list)
            self._picks, self._kind = tuple(batch.picks), batch.kind
            self._unreadable.update(batch.unreadable)
            self.learner_state = "idle"
            self._wake()

    def take_failure(self, failure: Failure) -> None:
        """Note that no batch could be computed; people continue with single images."""
        with self.lock:
            state = f"failed: {failure.reason}"
            if self.learner_state != state:
                text = "cannot pick the next images: %s"
                _log.warning(text, failure.reason, extra={"details": failure.details})
            self.learner_state = state

    def _snapshot(self, annotator: str) -> queue.Snapshot:
        guesses = self.project.guesses
        by_margin = guesses.by_margin if guesses else ()
        state = queue.Snapshot(
            annotator,
            self._facts,
            self.project.ledger,
            self.batches,
            held=self.leases.of_others(annotator),
            front=self._front.get(annotator, ()),
            due=self._due.get(annotator, ()),
            unreadable=self._unreadable,
            can_read=self._can_read,
        )
        by_chance, tests = (images.left(state.is_free) for images in self._orders)
        supply = queue.Supply(self._picks, self._kind, by_margin, by_chance, tests)
        return replace(state, supply=supply)

    def _hand_out(self, annotator: str, n: int, *, lease: bool = True) -> list[int]:
        state = self._snapshot(annotator)
        self.batches.prune(state.is_done)
        self._due[annotator] = queue.due(state)
        plan = queue.plan(state, n)
        self._picks = plan.picks
        self._add_rows(plan.rows)
        if lease:
            self.leases.tell(annotator, "queue", plan.images)
        return plan.images

    def _add_rows(self, rows: Sequence[BatchRow]) -> None:
        if rows:
            self.project.add_batch(rows)
            self.batches.take(rows)

    def _holders(self, seen: queue.Snapshot) -> list[str]:
        """Return the people who hold images that this annotator could also be shown."""
        left = [i for i in seen.facts.pool if i not in self._unreadable and seen.is_open(i)]
        return self.leases.holders(left, seen.annotator)

    def _owe(self, annotator: str, more: Sequence[int] = ()) -> None:
        """Make test images due, in proportion to the labels given in the grid."""
        self._due[annotator], rows = queue.owed(self._snapshot(annotator), more)
        self._add_rows(rows)

    def _follow(self, image: int) -> None:
        self.batches.follow(image, self.project.ledger.verdicts(image))
        if image not in self.batches.by_image and not self.project.ledger.is_touched(image):
            for images in self._orders:
                images.anew()

    def _can_read(self, image: int) -> bool:
        if image in self._unreadable:
            return False
        if self.previews.size(image) is None:
            _log.warning("cannot read %s; it is left out", shown(self.project.paths[image]))
            self._unreadable.add(image)
            return False
        return True

    def _answered(self, request: str | None, *, by_undo: bool) -> list[Action]:
        """Return the actions of an earlier request with this key, which must be of this kind."""
        before = [] if request is None else self.project.store.answered(request)
        if any((action.action == "undo") is not by_undo for action in before):
            raise ParameterError("key: a request of another kind used it; choose a new key")
        return before

    def _undoable(self, who: str, named: str | None, window: str | None) -> list[Action]:
        """Return the actions to undo: those of a named request, else the latest."""
        ledger = self.project.ledger
        if named is not None:
            done = map(self.project.said, self.project.store.answered(named))
            return [action for action in ledger.standing(done) if action.annotator == who]
        if window is not None:
            self.leases.see(who, window)
        if self.leases.is_elsewhere(who, window):
            raise NothingToUndoError(
                "another window is labelling under this name, and the latest answer may be its own"
            )
        return ledger.latest(who)

    def _action(self, who: str, answer: Mapping[str, Any], request: str, grid: bool) -> Action:
        said = check_answer(who, answer, self.project.paths, self.project.class_list.ids)
        if self.previews.changed(said.image):
            name = shown(self.project.paths[said.image])
            raise ParameterError(f"{name} has changed since it was shown; look at it again")
        row = self.batches.by_image.get(said.image)
        number = row.round if row else max(self.batches.last_round, 0)
        kind = row.kind if row else GRID if grid else OTHER
        source = said.source if said.source == SETTLED else kind
        return said._replace(round=number, source=source, request=request)

    def _wake(self) -> None:
        if self._ask is None or self.learner_state == "training":
            return
        project, labels = self.project, self.project.training_labels
        if self._asked is not None and not self._is_time(*self._asked):
            return
        self._asked = (len(self.batches.rows), labels)
        self.learner_state = "training"
        n = self._facts.size_of(self.batches.last_round + 1) + queue.LOOKAHEAD
        request = project.request(queue.candidates(self._snapshot("")), n)
        self._ask(request, self.take_batch, self.take_failure)

    def _is_time(self, n_rows: int, labels: Mapping[int, int]) -> bool:
        """Return whether to request a new batch, given the rows and labels of the last request."""
        failed = self.learner_state.startswith("failed")
        if not (self._picks or failed or len(self.batches.rows) == n_rows):
            return True
        now = self.project.training_labels
        if len(now.items() ^ labels.items()) < max(1, round(FRESH_SHARE * self._facts.n_query)):
            return False
        # without a network, a new batch would be no better
        return not self._picks or len(set(now.values())) > 1
