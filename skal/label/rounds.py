"""What is shown to whom: batches, the images in between, and who has which."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import islice, zip_longest
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError, UsageError
from ..core.seeding import derive_seed
from .answers import check_answer, check_key
from .batches import BatchRequest, ComputedBatch, Failure
from .leases import Leases
from .names import check_annotator, plain_text, shown
from .previews import Previews
from .project import TEST, LabelProject
from .store import Action, BatchRow, ModelRow

QUEUE = 12
"""Images told to a page, so that it can fetch them ahead."""
LOOKAHEAD = 3
"""So many images are always at hand, if there are any; the next batch is begun for that."""
TEST_EVERY = 10
GRID = "grid"
"""Source of a label that was given in the grid to an image of no batch."""
MOST_NAMES = 20
"""Of files that cannot be read, told to a page."""
FRESH_SHARE = 0.2
"""Of a batch: after so many new labels a batch that nobody has begun yet is computed anew."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("skal")


class NothingToUndoError(UsageError):
    """What is to be taken back was never done, or does not stand any more."""


class Jobs(Protocol):
    """Who computes batches, such as `skal.label.learning.Learner`."""

    def submit(self, job: BatchRequest) -> None:
        """Begin to answer a job."""


def _locked(
    method: Callable[Concatenate[Rounds, P], T],
) -> Callable[Concatenate[Rounds, P], T]:
    """Let one thread at a time in, and see what other processes wrote."""

    @wraps(method)
    def run(self: Rounds, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            self.project.refresh()
            return method(self, *args, **kwargs)

    return run


class Rounds:
    """Queues of images for any number of annotators.

    The images of a batch are shown in its order; one that is skipped comes back behind the others
    of its batch, and when it is skipped again, after all other images. The next batch is computed
    while this one is labelled, and computed anew from further labels as long as nobody has come to
    it; if there is none when one is needed, single images are shown until it is there: those that
    the last network is least sure of, or any, while there is no network.

    To nine images of other kinds comes one of those kept for the test, also where somebody labels
    in the grid: there they are due one by one, before the grid goes on.

    Parameters
    ----------
    project : LabelProject
        The images and labels.
    previews : Previews
        Says which images can be read.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        project: LabelProject,
        previews: Previews,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.project = project
        self.previews = previews
        self.learner_state = "idle"
        self._lock = threading.RLock()
        self._jobs: Jobs | None = None
        self._rows: list[BatchRow] = []
        self._n_tests = 0
        self._by_image: dict[int, BatchRow] = {}
        self._by_round: dict[int, list[BatchRow]] = {}
        self._unfinished: set[int] = set()
        self._wanting: dict[int, BatchRow] = {}  # a second opinion
        self._from_grid: set[int] = set()
        self._take_rows(project.store.batches())
        for image in project.ledger.images():
            self._follow(image)
        project.on_action = lambda action: self._follow(action.image)
        self._reserved = frozenset(project.reserve)
        self._picks: list[int] = []
        self._kind = "start"
        self._asked: int | None = None
        self._asked_labels: Mapping[int, int] = {}
        self._leases = Leases(clock)
        self._front: dict[str, list[int]] = {}
        self._due: dict[str, list[int]] = {}
        self._unreadable: set[int] = set()
        draw = np.random.default_rng(derive_seed(project.config.seed, "explore"))
        self._by_chance = draw.permutation(sorted(project.paths)).tolist()
        self._least_sure: tuple[object, list[int]] = (None, [])

    def start(self, jobs: Jobs) -> None:
        """Compute batches from now on."""
        with self._lock:
            self._jobs = jobs
            self._wake()

    @_locked
    def queue(self, annotator: str, n: int = QUEUE) -> list[int]:
        """Return the next images for an annotator, the first of which is to be shown now.

        Parameters
        ----------
        annotator : str
            Who asks.
        n : int
            At most so many.

        Returns
        -------
        list of int
            Empty if nothing is left.
        """
        queue = self._queue(check_annotator(annotator), n)
        self._leases.tell(annotator, queue)
        self._wake()
        return list(queue)

    @_locked
    def grid(self, annotator: str, n: int) -> list[int]:
        """Return images that look alike, as far as that is known, else the next of the queue.

        The first is the next of the queue that is not kept for the test; none of the test is in
        it, for what is chosen by its looks is no fair sample. Those that are due come by `queue`.
        """
        queue = self._queue(check_annotator(annotator), max(n, QUEUE))
        images = [image for image in queue if self._source(image) != TEST]
        guesses = self.project.guesses
        if images and guesses is not None and images[0] in guesses.rows:
            images = self._alike(annotator, images[0], n)
        self._leases.tell_grid(annotator, images[:n])
        self._owe(annotator, queue if not images else ())
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
        """Write what an annotator said of images, all or nothing; it is on the disk afterwards.

        Parameters
        ----------
        annotator : str
            Who.
        answers : sequence of mappings
            Each with `action` (one of `ANSWERS`), `image`, `label` (a class id, if the action is
            "label"), and, if they are known, `seconds` and `guess` (the class id shown).
        key : str, optional
            Of this request: one with the same key has been answered already.
        grid : bool, default=False
            Whether they were given in the grid.

        Returns
        -------
        list of int
            Ids of the actions.

        Raises
        ------
        UsageError
            If something is not valid; nothing is written then.
        """
        who, request = check_annotator(annotator), check_key(key)
        if before := self._answered(request, by_undo=False):
            return [action.id for action in before]
        if not answers:
            raise ParameterError("no action was given")
        request = request or uuid.uuid4().hex  # so that an undo takes all of it back
        actions = [self._action(who, answer, request, grid) for answer in answers]
        ids = self.project.record(actions)
        done = {action.image for action in actions}
        self._front[who] = [i for i in self._front.get(who, []) if i not in done]
        if grid:
            self._owe(who)
        self._wake()
        return ids

    @_locked
    def undo(
        self,
        annotator: str,
        key: str | None = None,
        of: str | None = None,
        window: str | None = None,
    ) -> list[Action]:
        """Take back what an annotator did by one request, as far as it still stands.

        Parameters
        ----------
        annotator : str
            Who.
        key : str, optional
            As for `act`.
        of : str, optional
            The key of the request to be taken back; by default it is the annotator's latest.
        window : str, optional
            Of the page that asks: where another one labels under the same name, too, the latest
            request may be of that one and is not taken back without being named.

        Returns
        -------
        list of Action
            What was taken back; their images are the annotator's next.

        Raises
        ------
        NothingToUndoError
            If there is nothing.
        """
        who, request, named = check_annotator(annotator), check_key(key), check_key(of)
        store, ledger = self.project.store, self.project.ledger
        if before := self._answered(request, by_undo=True):
            return [store.action(action.undoes or 0) for action in before]
        if named is not None:
            undone = [a for a in ledger.standing(store.answered(named)) if a.annotator == who]
        elif self._leases.is_elsewhere(who, window):
            raise NothingToUndoError(
                "this name labels in another window, too, and the latest answer may be of that one"
            )
        else:
            undone = ledger.latest(who)
        if not undone:
            raise NothingToUndoError("nothing to undo")
        facts = [(a.image, a.round, a.source, a.id) for a in undone]
        self.project.record(
            [
                Action(who, "undo", image, round=number, source=source, undoes=id_, request=request)
                for image, number, source, id_ in facts
            ]
        )
        images = [action.image for action in undone]
        self._front[who] = [*images, *(i for i in self._front.get(who, []) if i not in images)]
        self._wake()
        return undone

    def _answered(self, request: str | None, *, by_undo: bool) -> list[Action]:
        """Return what the request of a key led to, if there was one; of this kind it must be."""
        before = [] if request is None else self.project.store.answered(request)
        if any((action.action == "undo") is not by_undo for action in before):
            raise ParameterError("key: it is that of a request of another kind")
        return before

    @_locked
    def state(
        self, annotator: str, *, grid: bool = False, window: str | None = None
    ) -> dict[str, Any]:
        """Return what a page shows beside the image, as JSON has it.

        Parameters
        ----------
        annotator : str
            Who asks.
        grid : bool, default=False
            Whether the grid is open; its images are kept from others as long as it is.
        window : str, optional
            Tells a page from another of the same annotator.
        """
        project = self.project
        if grid:
            self._leases.renew_grid(check_annotator(annotator))
        else:
            self._leases.tell_grid(check_annotator(annotator), ())
        queue = self.queue(annotator)
        number, size = self._round_of(queue)
        rows = self._by_round.get(number, [])
        done = sum(self._is_done(row.image) for row in rows)
        counts = project.label_counts()
        aside = list(project.ledger.aside.values())
        waiting = [] if queue else self._held_up_by(annotator)
        unreadable = sorted(project.paths[n] for n in self._unreadable if n in project.paths)
        return {
            "project": plain_text(project.name),
            "classes": [{"id": n, "name": name} for n, name in enumerate(project.classes)],
            "annotator": annotator,
            "elsewhere": self._leases.is_elsewhere(annotator, window),
            "round": number,
            "done_in_round": done,
            "round_size": size,
            "n_labeled": sum(counts.values()),
            "n_images": len(project.paths) - len(self._unreadable),
            "n_unsure": aside.count("unsure"),
            "n_bad": aside.count("bad"),
            "n_unreadable": len(unreadable),
            "unreadable": [plain_text(path) for path in unreadable[:MOST_NAMES]],
            "counts": {str(n): counts.get(n, 0) for n in range(len(project.classes))},
            **self._figures(),
            "learner": self.learner_state,
            "finished": not queue and not waiting,
            "waiting_for": waiting,
            "due": len(self._due_to(annotator)),
            "queue": [self.describe(image) for image in queue],
        }

    def _figures(self) -> dict[str, Any]:
        """Return how good the last network is, and how good those before were."""
        accuracy, n_known = self.project.accuracy, self.project.n_known
        return {
            "n_test": len(self.project.test_labels),
            "accuracy": accuracy and {**accuracy._asdict(), "n_known": n_known},
            "curve": [
                {"n_labeled": n, "accuracy": point.value, "low": point.low, "high": point.high}
                for n, point in self.project.curve
            ],
        }

    def describe(self, image: int) -> dict[str, Any]:
        """Return number, size and name of an image, as JSON has it."""
        width, height = self.previews.size(image) or (0, 0)
        name = plain_text(self.project.paths[image])
        return {"image": image, "width": width, "height": height, "name": name}

    @_locked
    def guess(self, image: int) -> NDArray[np.float32] | None:
        """Return the class probabilities of an image, if there is a network that gave any."""
        guesses = self.project.guesses
        return None if guesses is None else guesses.proba_of(image)

    def on_answer(self, answer: ComputedBatch) -> None:
        """Take in a computed batch; if that fails, the one before stays."""
        with self._lock:
            guesses = answer.guesses
            if guesses.is_of_network:
                kept = [n for n in self.project.reserve if n in guesses.rows]
                rows = [guesses.rows[n] for n in kept]
                predicted = guesses.proba[rows].argmax(1).astype(np.int64)
                images = np.array(kept, dtype=np.int64)
                self.project.add_model(
                    ModelRow(
                        guesses.n_labeled, answer.seconds, images.tobytes(), predicted.tobytes()
                    )
                )
            self.project.guesses = guesses
            self._picks, self._kind = list(answer.picks), answer.kind
            self._unreadable.update(answer.unreadable)
            self.learner_state = "idle"
            self._wake()

    def on_failure(self, failure: Failure) -> None:
        """Take in that no batch could be computed; people go on with single images."""
        with self._lock:
            state = f"failed: {failure.reason}"
            if self.learner_state != state:
                text = "the next images could not be computed: %s"
                _log.warning(text, failure.reason, extra={"details": failure.details})
            self.learner_state = state

    def _take_rows(self, rows: Sequence[BatchRow]) -> None:
        self._rows.extend(rows)
        self._n_tests += sum(row.kind == TEST for row in rows)
        for row in rows:
            self._by_image[row.image] = row
            self._by_round.setdefault(row.round, []).append(row)
            self._unfinished.add(row.round)

    def _follow(self, image: int) -> None:
        """Note what follows from something that was said of an image, or taken back."""
        verdicts = self.project.ledger.verdicts(image)
        row = self._by_image.get(image)
        if row is None:
            is_of_grid = any(action.source == GRID for action in verdicts.values())
            (self._from_grid.add if is_of_grid else self._from_grid.discard)(image)
            return
        self._unfinished.add(row.round)  # so that its round is looked at again
        if row.shared and len(verdicts) == 1:
            self._wanting[image] = row
        else:
            self._wanting.pop(image, None)

    def _unfinished_rounds(self) -> list[list[BatchRow]]:
        """Return the batches that may have images to show, so that thousands are not searched."""
        for number in sorted(self._unfinished):
            rows = self._by_round[number]
            if number < self._last_round - 1 and all(self._is_done(r.image) for r in rows):
                self._unfinished.discard(number)
        return [self._by_round[number] for number in sorted(self._unfinished)]

    def _queue(self, annotator: str, n: int) -> list[int]:
        held = self._leases.of_others(annotator)
        found: dict[int, None] = {}  # a set in order

        def add(images: Iterator[int] | Sequence[int]) -> None:
            for image in images:
                if len(found) >= n:
                    return
                n_people = held[image] + len(self.project.ledger.verdicts(image))
                row = self._by_image.get(image)
                taken = n_people >= (2 if row and row.shared else 1)
                if image not in found and not taken and self._is_readable(image):
                    found[image] = None

        add([i for i in self._front.get(annotator, []) if self._is_open(i, annotator)])
        add(self._due_to(annotator))
        add(self._in_turn(annotator))
        wanted = min(LOOKAHEAD, n)
        while len(found) < wanted and (new := self._extend(wanted - len(found))):
            add(row.image for row in new)
        if not found:
            add(self._left_over(annotator))
        return list(found)

    def _in_turn(self, annotator: str) -> Iterator[int]:
        """Yield the images of batches, every other one such as wants a second opinion."""
        skips = self.project.ledger.skips
        wanting = [image for image in self._wanting if self._is_open(image, annotator)]
        wanting.sort(key=lambda image: skips(image, annotator))
        new = (
            row.image
            for rows in self._unfinished_rounds()
            for n_skips in (0, 1)
            for row in rows
            if row.image not in self._wanting and self._skips(row, annotator) == n_skips
        )
        if not wanting:
            yield from new
            return
        if self.project.ledger.n_done(annotator) % 2:
            yield from islice(new, 1)
        for pair in zip_longest(wanting, new):
            yield from (image for image in pair if image is not None)

    def _skips(self, row: BatchRow, annotator: str) -> int | None:
        """Return how often one skipped an image of a batch that is still to be shown to him."""
        if not self._is_open(row.image, annotator):
            return None
        return self.project.ledger.skips(row.image, annotator)

    def _is_open(self, image: int, annotator: str) -> bool:
        """Tell whether an annotator may be shown an image."""
        ledger = self.project.ledger
        if image not in self.project.pool or image in ledger.aside:
            return False
        verdicts = ledger.verdicts(image)
        row = self._by_image.get(image)
        if not verdicts or row is None or not row.shared:
            return not verdicts
        return len(verdicts) == 1 and annotator not in verdicts

    def _held_up_by(self, annotator: str) -> list[str]:
        """Return who has the images before them that are left."""
        pool = self.project.pool - self._unreadable
        return self._leases.holders([i for i in pool if self._is_open(i, annotator)], annotator)

    def _due_to(self, annotator: str) -> list[int]:
        """Return the images of the test that an annotator is to see before the grid goes on."""
        due = [i for i in self._due.get(annotator, []) if self._is_open(i, annotator)]
        ledger = self.project.ledger
        self._due[annotator] = [i for i in due if not ledger.skips(i, annotator)]
        return self._due[annotator]

    def _owe(self, annotator: str, more: Sequence[int] = ()) -> None:
        """Let those images of the test be due that the labels given in the grid call for."""
        held = self._leases.of_others(annotator)
        settled = self.project.ledger.labels.keys() | self.project.ledger.aside.keys()
        kinds = [self._source(image) for image in settled & self._by_image.keys()]
        n_others = len(kinds) - kinds.count(TEST) + len(settled & self._from_grid)
        tests = [row for row in self._rows if row.kind == TEST and row.image not in settled]
        tests = [row for row in tests if self._is_open(row.image, annotator)]
        n_theirs = sum(bool(held[row.image]) for row in tests)
        n_due = n_others // (TEST_EVERY - 1) - kinds.count(TEST) - n_theirs
        due = [row.image for row in tests if not held[row.image] and self._is_readable(row.image)]
        due = due[: max(0, n_due)]
        while len(due) < n_due and (row := self._draw_test()):
            due.append(row.image)
        self._due[annotator] = [*due, *(image for image in more if image not in due)]

    def _draw_test(self) -> BatchRow | None:
        """Put one more image of the test into the last batch, if there is one left."""
        free = (n for n in self.project.reserve if self._is_free(n) and self._is_readable(n))
        image = next(free, None)
        if image is None:
            return None
        number = max(self._last_round, 0)
        rank = len(self._by_round.get(number, []))
        row = BatchRow(number, rank, image, TEST, self._is_shared(len(self._rows)))
        self.project.add_batch([row])
        self._take_rows([row])
        return row

    def _is_readable(self, image: int) -> bool:
        if image in self._unreadable:
            return False
        if self.previews.size(image) is None:
            _log.warning("left out %s: it cannot be read", shown(self.project.paths[image]))
            self._unreadable.add(image)
            return False
        return True

    def _is_free(self, image: int) -> bool:
        """Tell whether an image may be put into a batch."""
        return (
            image in self.project.pool
            and image not in self._by_image
            and image not in self._unreadable
            and not self.project.ledger.is_touched(image)
        )

    def _is_done(self, image: int) -> bool:
        """Tell whether an image does not come again before the end."""
        ledger = self.project.ledger
        return (
            ledger.is_settled(image)
            or ledger.skips(image) > 1
            or image in self._unreadable
            or image not in self.project.paths
        )

    @property
    def _last_round(self) -> int:
        return self._rows[-1].round if self._rows else -1

    def _size_of(self, number: int) -> int:
        """Return how many images a round is to have."""
        return self.project.n_query if number else self.project.n_init

    def _round_of(self, queue: Sequence[int]) -> tuple[int, int]:
        """Return number and size of the round that a queue is in."""
        last = max(self._last_round, 0)
        rounds = (self._by_image[image].round for image in queue if image in self._by_image)
        number = next(rounds, last)
        n = len(self._by_round.get(number, []))
        # the last one may be filled up yet, if there are images for it
        return number, max(n, self._size_of(number)) if number == last and queue else n

    def _extend(self, n: int) -> list[BatchRow]:
        """Begin the next batch, or fill up the last one; without picks, by `n` single images."""
        number = max(self._last_round, 0)
        rank = len(self._by_round.get(number, []))
        if rank >= self._size_of(number):
            number, rank = number + 1, 0
        room = self._size_of(number) - rank
        picks = [image for image in self._picks if self._is_free(image)]
        rows: list[BatchRow] = []
        for _ in range(room if picks else min(n, room)):
            place = len(self._rows) + len(rows)
            drawn = self._draw(rows, picks)
            if drawn is None:
                break
            image, kind = drawn
            rows.append(BatchRow(number, rank + len(rows), image, kind, self._is_shared(place)))
        if picks or not rows:
            self._picks = []
        if rows:
            self.project.add_batch(rows)
            self._take_rows(rows)
        return rows

    def _is_shared(self, place: int) -> bool:
        """Tell whether two annotators see the image of a place; those of the test come first."""
        share = self.project.overlap
        return math.floor(round((place + 1) * share, 9)) > math.floor(round(place * share, 9))

    def _draw(self, rows: Sequence[BatchRow], picks: Sequence[int]) -> tuple[int, str] | None:
        """Return the image that follows some new ones, and why it."""
        taken = {row.image for row in rows}

        def first(images: Sequence[int], kept: bool = False) -> int | None:
            return next(
                (
                    image
                    for image in images
                    if (image in self._reserved) is kept
                    and image not in taken
                    and self._is_free(image)
                ),
                None,
            )

        test = (self.project.reserve, TEST, True)
        supplies = [
            (picks, self._kind, False),
            (self._by_doubt(), "doubt", False),
            (self._by_chance, "chance", False),
        ]
        n_tests = self._n_tests + sum(row.kind == TEST for row in rows)
        n_others = len(self._rows) + len(rows) - n_tests + len(self._from_grid)
        is_test = n_others // (TEST_EVERY - 1) > n_tests
        for images, kind, kept in [test, *supplies] if is_test else [*supplies, test]:
            if (image := first(images, kept)) is not None:
                return image, kind
        return None

    def _by_doubt(self) -> list[int]:
        """Return images by the margin between the network's two best classes, smallest first."""
        guesses = self.project.guesses
        if guesses is None or not guesses.is_of_network:
            return []
        if self._least_sure[0] is not guesses:
            best = np.sort(guesses.proba, axis=1)
            order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
            self._least_sure = (guesses, guesses.images[order].tolist())
        return self._least_sure[1]

    def _left_over(self, annotator: str) -> list[int]:
        """Return what was skipped, the least often skipped first."""
        ledger = self.project.ledger
        left = [i for i in ledger.images() if self._is_open(i, annotator)]
        return sorted(left, key=lambda image: (ledger.skips(image, annotator), image))

    def _alike(self, annotator: str, first: int, n: int) -> list[int]:
        """Return the images most like one, itself in front."""
        guesses = self.project.guesses
        assert guesses is not None
        distance = ((guesses.embeddings - guesses.embeddings[guesses.rows[first]]) ** 2).sum(1)
        distance[guesses.rows[first]] = -1
        held = self._leases.of_others(annotator)
        found: list[int] = []
        for image in guesses.images[np.argsort(distance, kind="stable")].tolist():
            if len(found) == n:
                break
            if image in self._reserved or held[image]:
                continue
            batched = image in self._by_image and self._is_open(image, annotator)
            if (batched or self._is_free(image)) and self._is_readable(image):
                found.append(image)
        return found

    def _source(self, image: int) -> str:
        row = self._by_image.get(image)
        return row.kind if row else "other"

    def _action(self, who: str, answer: Mapping[str, Any], request: str, grid: bool) -> Action:
        """Check one answer and say where its image came from."""
        said = check_answer(answer, self.project.paths, len(self.project.classes))
        row = self._by_image.get(said.image)
        return Action(
            who,
            said.action,
            said.image,
            said.label,
            said.seconds,
            row.round if row else max(self._last_round, 0),
            row.kind if row else GRID if grid else "other",
            said.guess,
            request=request,
        )

    def _wake(self) -> None:
        """Ask for the next batch if it is time to."""
        if self._jobs is None or self.learner_state == "training":
            return
        project = self.project
        labels = project.training_labels
        failed = self.learner_state.startswith("failed")
        idle = self._picks or failed or len(self._rows) == self._asked
        if self._asked is not None and idle:
            n_new = len(labels.items() ^ self._asked_labels.items())
            if n_new < max(1, round(FRESH_SHARE * project.n_query)):
                return
            if self._picks and len(set(labels.values())) < 2:
                return  # a batch chosen without a network would be no better
        self._asked, self._asked_labels = len(self._rows), labels
        self.learner_state = "training"
        gone = self._by_image.keys() | self._unreadable | set(project.ledger.images())
        candidates = sorted(project.pool - self._reserved - gone)
        n = self._size_of(self._last_round + 1) + LOOKAHEAD
        self._jobs.submit(
            BatchRequest(
                tuple(project.classes), labels, candidates, project.reserve, n, project.n_batches
            )
        )
