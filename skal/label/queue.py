"""Rules for the next image of each annotator: pure functions of a snapshot of the state.

The images of a batch are shown in order. A skipped image comes back after the others of its batch;
if skipped again, after all other images. If no computed batch is available, single images are shown
until there is one: those with the smallest margin, or random ones while there is no network.

Every tenth image is one held out for the test set. While somebody labels in the grid, test images
are due one by one before the grid continues.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain, islice, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.seeding import derive_seed
from .ledger import TEST, BatchIndex, Ledger
from .store import BatchRow

LOOKAHEAD = 3
"""Images to keep available; the next batch is begun early for this."""
TEST_EVERY = 10
"""Every tenth image shown is a test image."""


@dataclass(frozen=True)
class ProjectFacts:
    """The images and settings of a project.

    `there` are all existing images, `pool` those outside class folders, and `reserved` those of the
    pool held out for the test set. `n_init` and `n_query` are the sizes of the first and of later
    batches; two annotators see the share `overlap`.
    """

    there: Collection[int]
    pool: Set[int]
    reserved: frozenset[int]
    n_init: int
    n_query: int
    overlap: float = 0.0

    def size_of(self, number: int) -> int:
        return self.n_query if number else self.n_init


@dataclass(frozen=True)
class Supply:
    """Sources of the images of the next batch, the best first.

    These are the computed `picks` and their `kind` (see `ComputedBatch`), the images by smallest
    margin, and all images in random order. `tests` are the test images in the order to show them.
    """

    picks: Sequence[int] = ()
    kind: str = "start"
    by_margin: Sequence[int] = ()
    by_chance: Sequence[int] = ()
    tests: Sequence[int] = ()


class InOrder:
    """Images in an order, which remembers how many at the start are not free.

    Else thousands of labelled images would be checked for each image shown.
    """

    def __init__(self, images: Sequence[int]) -> None:
        self._images, self._n_passed = images, 0

    def left(self, is_free: Callable[[int], bool]) -> Sequence[int]:
        """Return the images from the first free one on."""
        while self._n_passed < len(self._images) and not is_free(self._images[self._n_passed]):
            self._n_passed += 1
        return self._images[self._n_passed :]

    def anew(self) -> None:
        """Check all images again, because one may have become free."""
        self._n_passed = 0


def with_new(order: NDArray[np.int64], images: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a random order, extended by the missing images in random order."""
    rng = np.random.default_rng(derive_seed(seed, "explore", len(order)))
    return np.concatenate([order, rng.permutation(np.setdiff1d(images, order))])


@dataclass(frozen=True)
class Snapshot:
    """The state at one moment, for one annotator; it does not change while rules use it.

    `held` has the number of other people who hold each image. `front` are images whose answers the
    annotator took back, and `due` test images to show before the grid continues. `added` are rows
    that rules added to those of `batches`.
    """

    annotator: str
    facts: ProjectFacts
    ledger: Ledger
    batches: BatchIndex
    supply: Supply = Supply()
    held: Mapping[int, int] = field(default_factory=dict)
    front: Sequence[int] = ()
    due: Sequence[int] = ()
    unreadable: Collection[int] = frozenset()
    can_read: Callable[[int], bool] = lambda image: True
    added: Mapping[int, BatchRow] = field(default_factory=dict)

    def row(self, image: int) -> BatchRow | None:
        return self.added.get(image) or self.batches.by_image.get(image)

    def skips(self, image: int) -> int:
        return self.ledger.skips(image, self.annotator)

    def is_open(self, image: int) -> bool:
        """Return whether the annotator may be shown an image."""
        if image not in self.facts.pool or image in self.ledger.aside:
            return False
        verdicts = self.ledger.verdicts(image)
        row = self.row(image)
        if not verdicts or row is None or not row.shared:
            return not verdicts
        return len(verdicts) == 1 and self.annotator not in verdicts

    def is_free(self, image: int) -> bool:
        """Return whether an image may be put into a batch."""
        return (
            image in self.facts.pool
            and self.row(image) is None
            and image not in self.unreadable
            and not self.ledger.is_touched(image)
        )

    def is_done(self, image: int) -> bool:
        """Return whether an image is not shown again before the end."""
        return (
            self.ledger.is_settled(image)
            or self.ledger.skips(image) > 1
            or image in self.unreadable
            or image not in self.facts.there
        )

    def is_taken(self, image: int) -> bool:
        """Return whether enough people have answered or hold an image."""
        row = self.row(image)
        n_people = self.held.get(image, 0) + len(self.ledger.verdicts(image))
        return n_people >= (2 if row and row.shared else 1)

    @property
    def n_rows(self) -> int:
        return len(self.batches.rows) + len(self.added)

    @property
    def last_round(self) -> int:
        return max((row.round for row in self.added.values()), default=self.batches.last_round)

    def rows_of(self, number: int) -> list[BatchRow]:
        added = [row for row in self.added.values() if row.round == number]
        return [*self.batches.by_round.get(number, ()), *added]

    def new_row(self, number: int, image: int, kind: str) -> BatchRow:
        """Return a row that appends an image to a batch."""
        is_shared = is_for_two(self.n_rows, self.facts.overlap)
        return BatchRow(number, len(self.rows_of(number)), image, kind, is_shared)

    def with_rows(self, rows: Iterable[BatchRow]) -> Snapshot:
        """Return the state with rows added to its batches."""
        return replace(self, added={**self.added, **{row.image: row for row in rows}})


class Plan(NamedTuple):
    """The images to show, the first one now, and the rows to write for them."""

    images: list[int]
    rows: list[BatchRow]  # added to batches
    picks: Sequence[int]  # remaining computed picks


def plan(state: Snapshot, n: int) -> Plan:
    """Return the next images for the annotator of a snapshot, at most `n`."""
    found: dict[int, None] = {}  # an ordered set
    front = [image for image in state.front if state.is_open(image)]
    _add(found, state, chain(front, due(state), _in_turn(state)), n)
    rows: list[BatchRow] = []
    wanted = min(LOOKAHEAD, n)
    while len(found) < wanted:
        new, uses_picks = _extension(state, wanted - len(found))
        if uses_picks:
            state = replace(state, supply=replace(state.supply, picks=()))
        if not new:
            break
        rows += new
        state = state.with_rows(new)
        _add(found, state, (row.image for row in new), n)
    if not found:
        skipped = [image for image in state.ledger.images() if state.is_open(image)]
        _add(found, state, sorted(skipped, key=lambda image: (state.skips(image), image)), n)
    return Plan(list(found), rows, state.supply.picks)


def _add(found: dict[int, None], state: Snapshot, images: Iterable[int], n: int) -> None:
    """Add images that can be shown now, until there are `n`."""
    for image in images:
        if len(found) >= n:
            return
        if image not in found and not state.is_taken(image) and state.can_read(image):
            found[image] = None


def _in_turn(state: Snapshot) -> Iterator[int]:
    """Yield the images of batches, every other one an image that needs a second answer."""
    waiting = state.batches.wanting
    wanting = sorted((image for image in waiting if state.is_open(image)), key=state.skips)
    new = (
        row.image
        for rows in state.batches.unfinished()
        for n_skips in (0, 1)
        for row in rows
        if row.image not in waiting
        and state.is_open(row.image)
        and state.skips(row.image) == n_skips
    )
    if not wanting:
        yield from new
        return
    if state.ledger.n_done(state.annotator) % 2:
        yield from islice(new, 1)
    for pair in zip_longest(wanting, new):
        yield from (image for image in pair if image is not None)


def _extension(state: Snapshot, n: int) -> tuple[list[BatchRow], bool]:
    """Return rows that begin the next batch or fill the last one, and whether they use the picks.

    Without picks, these are at most `n` single images.
    """
    number = max(state.last_round, 0)
    rank = len(state.rows_of(number))
    if rank >= state.facts.size_of(number):
        number, rank = number + 1, 0
    room = state.facts.size_of(number) - rank
    picks = [image for image in state.supply.picks if state.is_free(image)]
    rows: list[BatchRow] = []
    for _ in range(room if picks else min(n, room)):
        drawn = _draw(state, rows, picks)
        if drawn is None:
            break
        is_shared = is_for_two(state.n_rows + len(rows), state.facts.overlap)
        rows.append(BatchRow(number, rank + len(rows), *drawn, is_shared))
    return rows, bool(picks) or not rows


def _draw(
    state: Snapshot, rows: Sequence[BatchRow], picks: Sequence[int]
) -> tuple[int, str] | None:
    """Return the image to add after some new rows, and its kind."""
    taken = {row.image for row in rows}
    supply = state.supply
    supplies = [(picks, supply.kind), (supply.by_margin, "doubt"), (supply.by_chance, "chance")]
    added = [*state.added.values(), *rows]
    n_tests = state.batches.n_tests + sum(row.kind == TEST for row in added)
    n_others = state.n_rows + len(rows) - n_tests + len(state.batches.from_grid)
    is_test = n_others // (TEST_EVERY - 1) > n_tests
    reserve = (supply.tests, TEST)
    for images, kind in [reserve, *supplies] if is_test else [*supplies, reserve]:
        for image in images:
            is_of_kind = (image in state.facts.reserved) is (kind == TEST)
            if is_of_kind and image not in taken and state.is_free(image):
                return image, kind
    return None


def is_for_two(number: int, share: float) -> bool:
    """Return whether two annotators see the image with this number, at evenly spread numbers."""
    return math.floor(round((number + 1) * share, 9)) > math.floor(round(number * share, 9))


def due(state: Snapshot) -> list[int]:
    """Return the test images to show before the grid continues."""
    return [image for image in state.due if state.is_open(image) and not state.skips(image)]


def owed(state: Snapshot, more: Sequence[int] = ()) -> tuple[list[int], list[BatchRow]]:
    """Return the test images owed for labels given in the grid, then `more`, and new rows."""
    ledger, batches = state.ledger, state.batches
    settled = ledger.labels.keys() | ledger.aside.keys()
    n_batched = len(settled & batches.by_image.keys())
    tests = [row.image for row in batches.rows if row.kind == TEST]
    n_tests = sum(image in settled for image in tests)
    n_others = n_batched - n_tests + len(settled & batches.from_grid)
    waiting = [image for image in tests if image not in settled and state.is_open(image)]
    theirs = [image for image in waiting if state.held.get(image)]
    n_due = max(0, n_others // (TEST_EVERY - 1) - n_tests - len(theirs))
    found = [image for image in waiting if image not in theirs and state.can_read(image)][:n_due]
    rows: list[BatchRow] = []
    more_tests = (n for n in state.supply.tests if state.is_free(n) and state.can_read(n))
    for image in islice(more_tests, n_due - len(found)):
        rows.append(state.new_row(max(state.last_round, 0), image, TEST))
        state = state.with_rows(rows[-1:])
        found.append(image)
    return [*found, *(image for image in more if image not in found)], rows


def together(state: Snapshot, images: Iterable[int], n: int) -> list[int]:
    """Return the first `n` of some images that can be labelled together, without test images."""
    found = (
        image
        for image in images
        if image not in state.facts.reserved
        and not state.held.get(image)
        and (state.is_free(image) or (state.row(image) and state.is_open(image)))
        and state.can_read(image)
    )
    return list(islice(found, n))


def progress(state: Snapshot, queue: Sequence[int]) -> tuple[int, int, int]:
    """Return the number of a queue's round, its size, and how many of its images are done."""
    last = max(state.last_round, 0)
    number = next((row.round for image in queue if (row := state.row(image))), last)
    rows = state.rows_of(number)
    size = len(rows)
    if number == last and queue:  # it may still be filled
        size = max(size, state.facts.size_of(number))
    return number, size, sum(state.is_done(row.image) for row in rows)


def candidates(state: Snapshot) -> Sequence[int]:
    """Return the images from which the next batch may be picked, sorted."""
    excluded = state.facts.reserved.union(
        state.batches.by_image, state.unreadable, state.ledger.images()
    )
    return array("q", sorted(image for image in state.facts.pool if image not in excluded))
