"""What is shown to whom: batches, the images in between, and who has which."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError, UsageError
from ..seeding import derive_seed
from .learning import Answer, Job
from .previews import Previews
from .project import TEST, LabelProject, check_annotator, plain_text
from .store import ANSWERS, Action, BatchRow, ModelRow

QUEUE = 12
"""Images told to a page, so that it can fetch them ahead."""
LOOKAHEAD = 3
"""So many images are always at hand, if there are any; the next batch is begun for that."""
TEST_EVERY = 10
LEASE_SECONDS = 600.0
"""For so long the images told to one annotator are not shown to another."""
FRESH_SHARE = 0.2
"""Of a batch: after so many new labels a batch that nobody has begun yet is computed anew."""
LONGEST_KEY = 100

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("skal")


class NothingToUndoError(UsageError):
    """The annotator has done nothing that still stands."""


class Jobs(Protocol):
    """Who computes batches, such as `skal.label.learning.Learner`."""

    def submit(self, job: Job) -> None:
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


@dataclass
class Lease:
    """The images that were told to an annotator, and when."""

    queue: list[int] = field(default_factory=list)
    grid: list[int] = field(default_factory=list)
    since: float = 0.0

    def __contains__(self, image: int) -> bool:
        return image in self.queue or image in self.grid


class Rounds:
    """Queues of images for any number of annotators.

    The images of a batch are shown in its order; one that is skipped comes back behind the others
    of its batch, and when it is skipped again, after all other images. The next batch is computed
    while this one is labelled, and computed anew from further labels as long as nobody has come to
    it; if there is none when one is needed, single images are shown until it is there: those that
    the last network is least sure of, or any, while there is no network.

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
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs: Jobs | None = None
        self._rows: list[BatchRow] = []
        self._by_image: dict[int, BatchRow] = {}
        self._by_round: dict[int, list[BatchRow]] = {}
        self._unfinished: set[int] = set()
        self._take_rows(project.store.batches())
        project.on_action = self._reopen
        self._reserved = frozenset(project.reserve)
        self._picks: list[int] = []
        self._kind = "start"
        self._asked: int | None = None
        self._asked_labels: Mapping[int, int] = {}
        self._leases: dict[str, Lease] = {}
        self._front: dict[str, list[int]] = {}
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
        lease = self._leases.setdefault(check_annotator(annotator), Lease())
        queue = self._queue(annotator, n)
        lease.queue, lease.since = queue, self._clock()
        self._wake()
        return list(queue)

    @_locked
    def grid(self, annotator: str, n: int) -> list[int]:
        """Return images that look alike, as far as that is known, else the next of the queue.

        The first is the next of the queue that is not kept for the test; none of the test is in
        it, for what is chosen by its looks is no fair sample.
        """
        lease = self._leases.setdefault(check_annotator(annotator), Lease())
        queue = self._queue(annotator, max(n, QUEUE))
        first = [image for image in queue if self._source(image) != TEST]
        guesses = self.project.guesses
        if first and guesses is not None and first[0] in guesses.rows:
            images = self._alike(annotator, first[0], n)
        else:
            images = queue[:n]
        lease.grid, lease.since = images, self._clock()
        return list(images)

    @_locked
    def act(
        self, annotator: str, answers: Sequence[Mapping[str, Any]], key: str | None = None
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

        Returns
        -------
        list of int
            Ids of the actions.

        Raises
        ------
        UsageError
            If something is not valid; nothing is written then.
        """
        who = check_annotator(annotator)
        request = _check_key(key)
        if request is not None and (before := self.project.store.answered(request)):
            return [action.id for action in before]
        if not answers:
            raise ParameterError("no action was given")
        actions = [self._checked(who, answer, request) for answer in answers]
        ids = self.project.record(actions)
        done = {action.image for action in actions}
        self._front[who] = [i for i in self._front.get(who, []) if i not in done]
        self._wake()
        return ids

    @_locked
    def undo(self, annotator: str, key: str | None = None) -> Action:
        """Take back the latest thing that an annotator did and that still stands.

        Parameters
        ----------
        annotator : str
            Who.
        key : str, optional
            As for `act`.

        Returns
        -------
        Action
            What was taken back; its image is the annotator's next.

        Raises
        ------
        NothingToUndoError
            If there is nothing.
        """
        who = check_annotator(annotator)
        request = _check_key(key)
        store = self.project.store
        if request is not None and (before := store.answered(request)):
            return store.action(before[0].undoes or 0)
        latest = self.project.ledger.latest(who)
        if latest is None:
            raise NothingToUndoError("nothing to undo")
        self.project.record(
            [
                Action(
                    who,
                    "undo",
                    latest.image,
                    round=latest.round,
                    source=latest.source,
                    undoes=latest.id,
                    request=request,
                )
            ]
        )
        front = [i for i in self._front.get(who, []) if i != latest.image]
        self._front[who] = [latest.image, *front]
        self._wake()
        return latest

    @_locked
    def state(self, annotator: str) -> dict[str, Any]:
        """Return what a page shows beside the image, as JSON has it."""
        project = self.project
        queue = self.queue(annotator)
        number, size = self._round_of(queue)
        rows = self._by_round.get(number, [])
        done = sum(self._is_done(row.image) for row in rows)
        accuracy = project.accuracy
        counts = project.label_counts()
        return {
            "project": plain_text(project.name),
            "classes": [{"id": n, "name": name} for n, name in enumerate(project.classes)],
            "annotator": annotator,
            "round": number,
            "done_in_round": done,
            "round_size": size,
            "n_labeled": sum(counts.values()),
            "n_images": len(project.paths) - len(self._unreadable),
            "counts": {str(n): counts.get(n, 0) for n in range(len(project.classes))},
            "accuracy": None if accuracy is None else accuracy._asdict(),
            "curve": [
                {"n_labeled": n, "accuracy": point.value, "low": point.low, "high": point.high}
                for n, point in project.curve
            ],
            "learner": self.learner_state,
            "finished": not queue,
            "queue": [self.describe(image) for image in queue],
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

    def on_answer(self, answer: Answer) -> None:
        """Take in a computed batch."""
        with self._lock:
            self.learner_state = "idle"
            self._picks, self._kind = list(answer.picks), answer.kind
            self._unreadable.update(answer.unreadable)
            guesses = self.project.guesses = answer.guesses
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
            self._wake()

    def on_failure(self, reason: str) -> None:
        """Take in that no batch could be computed; people go on with single images."""
        with self._lock:
            if self.learner_state != f"failed: {reason}":
                _log.warning("the next images could not be computed: %s", reason)
            self.learner_state = f"failed: {reason}"

    def _take_rows(self, rows: Sequence[BatchRow]) -> None:
        self._rows.extend(rows)
        for row in rows:
            self._by_image[row.image] = row
            self._by_round.setdefault(row.round, []).append(row)
            self._unfinished.add(row.round)

    def _reopen(self, action: Action) -> None:
        """Look again at the round of an image of which something is said."""
        if action.image in self._by_image:
            self._unfinished.add(self._by_image[action.image].round)

    def _unfinished_rounds(self) -> list[list[BatchRow]]:
        """Return the batches that may have images to show, so that thousands are not searched."""
        for number in sorted(self._unfinished):
            rows = self._by_round[number]
            if number < self._last_round - 1 and all(self._is_done(r.image) for r in rows):
                self._unfinished.discard(number)
        return [self._by_round[number] for number in sorted(self._unfinished)]

    def _queue(self, annotator: str, n: int) -> list[int]:
        others = self._leases_of_others(annotator)
        found: dict[int, None] = {}  # a set in order

        def add(images: Iterator[int] | Sequence[int]) -> None:
            for image in images:
                if len(found) >= n:
                    return
                shared = image in self._by_image and self._by_image[image].shared
                taken = not shared and any(image in lease for lease in others)
                if image not in found and not taken and self._is_readable(image):
                    found[image] = None

        add([i for i in self._front.get(annotator, []) if self._is_open(i, annotator)])
        for rows in self._unfinished_rounds():
            for skips in (0, 1):
                add(r.image for r in rows if self._skips(r, annotator) == skips)
        wanted = min(LOOKAHEAD, n)
        while len(found) < wanted and (new := self._extend(wanted - len(found))):
            add(row.image for row in new)
        if not found:
            add(self._left_over(annotator))
        return list(found)

    def _leases_of_others(self, annotator: str) -> list[Lease]:
        since = self._clock() - LEASE_SECONDS
        return [
            lease for who, lease in self._leases.items() if who != annotator and lease.since > since
        ]

    def _skips(self, row: BatchRow, annotator: str) -> int | None:
        """Return how often one skipped an image of a batch that is still to be shown to him."""
        if not self._is_open(row.image, annotator):
            return None
        return self.project.ledger.skips(row.image, annotator)

    def _is_open(self, image: int, annotator: str) -> bool:
        """Tell whether an annotator may be shown an image."""
        ledger = self.project.ledger
        if not self.project.is_in_pool(image) or image in ledger.aside:
            return False
        verdicts = ledger.verdicts(image)
        row = self._by_image.get(image)
        if not verdicts or row is None or not row.shared:
            return not verdicts
        # a second opinion is asked for while the round is fresh in mind
        is_recent = row.round >= self._last_round - 1
        return is_recent and len(verdicts) == 1 and annotator not in verdicts

    def _is_readable(self, image: int) -> bool:
        if image in self._unreadable:
            return False
        if self.previews.size(image) is None:
            _log.warning("left out %s: it cannot be read", self.project.paths[image])
            self._unreadable.add(image)
            return False
        return True

    def _is_free(self, image: int) -> bool:
        """Tell whether an image may be put into a batch."""
        return (
            self.project.is_in_pool(image)
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
        taken: set[int] = set()
        for _ in range(room if picks else min(n, room)):
            place = len(self._rows) + len(rows)
            drawn = self._draw(place, picks, taken)
            if drawn is None:
                break
            image, kind = drawn
            taken.add(image)
            rows.append(BatchRow(number, rank + len(rows), image, kind, self._is_shared(place)))
        if picks or not rows:
            self._picks = []
        if rows:
            self.project.store.add_batch(rows)
            self._take_rows(rows)
        return rows

    def _is_shared(self, place: int) -> bool:
        """Tell whether two annotators see the image of a place; those of the test come first."""
        share = self.project.overlap
        return math.floor(round((place + 1) * share, 9)) > math.floor(round(place * share, 9))

    def _draw(self, place: int, picks: Sequence[int], taken: set[int]) -> tuple[int, str] | None:
        """Return the image of a place, and why it."""

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
        is_test = place % TEST_EVERY == TEST_EVERY - 1
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
        others = self._leases_of_others(annotator)
        found: list[int] = []
        for image in guesses.images[np.argsort(distance, kind="stable")].tolist():
            if len(found) == n:
                break
            if image in self._reserved or any(image in lease for lease in others):
                continue
            batched = image in self._by_image and self._is_open(image, annotator)
            if (batched or self._is_free(image)) and self._is_readable(image):
                found.append(image)
        return found

    def _source(self, image: int) -> str:
        row = self._by_image.get(image)
        return row.kind if row else "other"

    def _checked(self, who: str, answer: Mapping[str, Any], request: str | None) -> Action:
        """Check one answer and say where its image came from."""
        action, image = answer.get("action"), answer.get("image")
        if action not in ANSWERS:
            raise ParameterError(f"action: got {action!r}; expected {', '.join(ANSWERS)}")
        if not _is_whole(image) or image not in self.project.paths:
            raise ParameterError(f"image: there is no image {image!r}")
        values = {name: answer.get(name) for name in ("label", "guess")}
        n = len(self.project.classes)
        for name, value in values.items():
            if value is not None and not (_is_whole(value) and 0 <= value < n):
                raise ParameterError(f"{name}: got {value!r}; expected the id of a class")
        if (values["label"] is None) is (action == "label"):
            raise ParameterError("label: expected the id of a class for the action label alone")
        seconds = answer.get("seconds")
        if seconds is not None and (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not 0 <= seconds < math.inf
        ):
            raise ParameterError(f"seconds: got {seconds!r}; expected a number, 0 or more")
        row = self._by_image.get(image)
        lease = self._leases.get(who)
        in_grid = row is None and lease is not None and image in lease.grid
        return Action(
            who,
            str(action),
            image,
            values["label"],
            None if seconds is None else round(float(seconds), 3),
            row.round if row else max(self._last_round, 0),
            row.kind if row else "grid" if in_grid else "other",
            values["guess"],
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
        self._jobs.submit(Job(tuple(project.classes), labels, candidates, project.reserve, n))


def _check_key(key: str | None) -> str | None:
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= LONGEST_KEY):
        raise ParameterError(f"key: expected text of up to {LONGEST_KEY} characters")
    return key


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
