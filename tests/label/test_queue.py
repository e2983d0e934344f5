"""The rules on snapshots made by hand: no store, no clock, no page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from skal.label.learning import Guesses
from skal.label.ledger import BatchIndex, Ledger
from skal.label.queue import (
    LOOKAHEAD,
    InOrder,
    ProjectFacts,
    Snapshot,
    Supply,
    owed,
    plan,
    progress,
    together,
)
from skal.label.store import Action, BatchRow


def snapshot(n: int = 40, who: str = "me", **changes: Any) -> Snapshot:
    """Images 0 to n, the last four of which are held out for the test; batches of eight."""
    images = range(n)
    reserve = changes.pop("reserve", list(images[-4:]))
    facts = {"there": images, "pool": frozenset(images), "reserved": frozenset(reserve)}
    for name in ("there", "pool", "overlap"):
        if name in changes:
            facts[name] = changes.pop(name)
    pool = ProjectFacts(n_init=8, n_query=8, **facts)  # type: ignore[arg-type]
    supply = Supply(by_chance=list(images), tests=reserve)
    parts = {"ledger": Ledger(), "batches": BatchIndex(), "supply": supply, **changes}
    return Snapshot(who, pool, **parts)


def say(state: Snapshot, action: str, image: int, who: str | None = None, **facts: Any) -> None:
    number = state.ledger.last_id + 1
    label = 0 if action == "label" else None
    facts = {"round": 0, "id": number, **facts}
    state.ledger.apply(Action(who or state.annotator, action, image, label, **facts))
    state.batches.follow(image, state.ledger.verdicts(image))


def carried_out(state: Snapshot, n: int = 12) -> list[int]:
    """Plan, write it into the index as the service does, and return the images."""
    found = plan(state, n)
    state.batches.take(found.rows)
    return found.images


def test_planning_changes_nothing() -> None:
    state = snapshot()
    first = plan(state, 12)
    assert first == plan(state, 12)
    assert state.batches.rows == []
    assert first.images == [row.image for row in first.rows] == [0, 1, 2]


def test_without_picks_a_batch_is_filled_up_as_it_is_needed_and_with_picks_at_once() -> None:
    assert len(plan(snapshot(), 12).rows) == LOOKAHEAD
    found = plan(snapshot(supply=Supply(picks=range(20, 36), kind="strategy")), 12)
    assert [row.kind for row in found.rows] == ["strategy"] * 8
    assert found.images == [row.image for row in found.rows]
    assert found.picks == ()


@pytest.mark.parametrize(("held", "expected"), [({0: 1}, [1, 2, 3]), ({}, [0, 1, 2])])
def test_what_others_hold_is_not_shown(held: dict[int, int], expected: list[int]) -> None:
    assert plan(snapshot(held=held), 12).images == expected


def test_what_cannot_be_read_is_passed_over() -> None:
    assert plan(snapshot(can_read=lambda image: image > 4), 12).images == [5, 6, 7]


def test_every_tenth_image_is_of_the_test() -> None:
    state = snapshot()
    seen = []
    while images := carried_out(state):
        seen.append(images[0])
        say(state, "label", images[0])
    assert sorted(seen) == list(range(40))
    assert [n for n, image in enumerate(seen) if image >= 36] == [9, 19, 29, 39]


def test_what_was_skipped_comes_behind_its_batch_and_then_behind_all() -> None:
    state = snapshot(n=20)
    say(state, "skip", carried_out(state)[0])
    seen = []
    for _ in range(8):
        seen.append(carried_out(state)[0])
        say(state, "skip" if seen[-1] == 0 else "label", seen[-1])
    assert seen == [1, 2, 3, 4, 5, 6, 7, 0]
    while (image := carried_out(state)[0]) != 0:
        say(state, "label", image)
    assert len(state.ledger.labels) == 19


def test_an_answer_taken_back_is_first() -> None:
    state = snapshot()
    for image in carried_out(state):
        say(state, "label", image)
    say(state, "undo", 1, undoes=2)
    assert plan(replace(state, front=[1, 2]), 12).images[:2] == [1, 3]


def test_a_shared_image_is_shown_to_one_more_and_to_no_third() -> None:
    state = snapshot(overlap=1.0)
    for image in carried_out(state):
        say(state, "label", image)
    ben = replace(state, annotator="ben")
    assert plan(ben, 12).images[0] == 0
    assert plan(replace(ben, held={0: 1}), 12).images[0] != 0
    say(state, "label", 0, "ben")
    assert 0 not in plan(replace(state, annotator="eve"), 12).images


def test_nine_labels_of_the_grid_call_for_one_of_the_test() -> None:
    state = snapshot()
    for n in range(18):
        say(state, "label", n, source="grid")
    images, rows = owed(state)
    assert images == [row.image for row in rows] == [36, 37]
    assert state.batches.rows == []
    assert owed(replace(state, can_read=lambda image: image != 36))[0] == [37, 38]
    state.batches.take(rows)
    assert owed(replace(state, held={36: 1})) == ([37], [])


def test_the_grid_has_what_is_alike_and_nothing_of_the_test() -> None:
    embeddings = np.arange(40, dtype=np.float32)[:, None]
    guesses = Guesses(np.arange(40), np.empty((40, 0), np.float32), embeddings)
    state = snapshot(held={34: 1})
    assert together(state, guesses.nearest_to(35), 3) == [35, 33, 32]


def test_progress_is_that_of_the_round_that_is_shown() -> None:
    state = snapshot()
    batches = [
        BatchRow(r, rank, 8 * r + rank, "chance", False) for r in (0, 1) for rank in range(8)
    ]
    state.batches.take(batches)
    for image in range(10):
        say(state, "label", image)
    assert progress(state, [10]) == (1, 8, 2)
    assert progress(state, [7]) == (0, 8, 8)


def test_images_in_front_that_are_not_free_are_looked_at_once() -> None:
    looked_at, order, first_free = [], InOrder(range(100)), 60

    def is_free(image: int) -> bool:
        looked_at.append(image)
        return image >= first_free

    assert order.left(is_free)[0] == 60
    assert order.left(is_free)[0] == 60
    assert looked_at == [*range(61), 60]
    first_free = 20
    order.anew()
    assert order.left(is_free)[0] == 20
