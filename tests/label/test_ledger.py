"""What holds, from actions made by hand: no store, no clock, no page."""

from __future__ import annotations

import pytest

from skal.label.ledger import GRID, SETTLED, BatchIndex, Ledger
from skal.label.store import Action, BatchRow


def folded(*actions: Action) -> Ledger:
    """Number the actions from 1 on, and fold them."""
    ledger = Ledger()
    for number, action in enumerate(actions, start=1):
        ledger.apply(action._replace(id=number))
    return ledger


def says(who: str, action: str, image: int, label: int | None = None, **more: object) -> Action:
    return Action(who, action, image, label, round=0, **more)  # type: ignore[arg-type]


def test_the_latest_label_of_an_annotator_holds() -> None:
    ledger = folded(says("me", "label", 5, 0), says("me", "label", 5, 1))
    assert {image: a.label for image, a in ledger.labels.items()} == {5: 1}


def test_an_undo_brings_back_what_was_before() -> None:
    ledger = folded(
        says("me", "label", 5, 0), says("me", "label", 5, 1), says("me", "undo", 5, undoes=2)
    )
    assert ledger.labels[5].label == 0
    assert [action.id for action in ledger.latest("me")] == [1]


def test_undo_goes_back_to_the_first_action_and_no_further() -> None:
    ledger = folded(
        says("me", "label", 5, 0),
        says("me", "bad", 6),
        says("me", "undo", 6, undoes=2),
        says("me", "undo", 5, undoes=1),
    )
    assert ledger.labels == {}
    assert ledger.aside == {}
    assert ledger.latest("me") == []
    assert not ledger.is_touched(5)
    assert ledger.annotators() == []


def test_nobody_takes_back_what_another_did_or_what_was_imported() -> None:
    imported = Action("me", "label", 5, 0, source="import")
    ledger = folded(says("anna", "label", 4, 0), imported)
    assert ledger.latest("me") == []
    assert ledger.labels[5].label == 0


def test_the_label_of_most_annotators_holds_and_of_as_many_the_last() -> None:
    two = (says("b", "label", 1, 0), says("a", "label", 1, 2))
    assert folded(*two).labels[1].label == 2
    most = folded(says("c", "label", 1, 0), *two)
    assert most.labels[1].label == 0
    assert most.n_votes(1, 0) == 2
    assert most.n_votes(1, 2) == 1
    assert most.n_votes(7, 2) == 0


@pytest.mark.parametrize(
    ("others", "aside", "labeled"),
    [
        (("unsure",), "unsure", False),
        (("bad",), "bad", False),
        (("unsure", "label"), None, True),
        (("label", "bad"), "bad", False),
        (("skip",), None, False),
    ],
)
def test_what_several_say_of_an_image(
    others: tuple[str, ...], aside: str | None, labeled: bool
) -> None:
    actions = [
        says(f"annotator {n}", what, 3, 1 if what == "label" else None)
        for n, what in enumerate(others)
    ]
    ledger = folded(*actions)
    assert ledger.aside.get(3) == aside
    assert (3 in ledger.labels) is labeled


def test_skips_are_counted_by_annotator() -> None:
    ledger = folded(says("a", "skip", 3), says("a", "skip", 3), says("b", "skip", 3))
    assert (ledger.skips(3, "a"), ledger.skips(3, "b"), ledger.skips(3)) == (2, 1, 3)
    assert ledger.verdicts(3) == {}
    assert ledger.is_touched(3)


DIFFER = (says("a", "label", 1, 0), says("b", "label", 1, 2))


def test_an_image_that_people_label_differently_is_disputed() -> None:
    assert folded(*DIFFER).disputed == {1}
    assert folded(*DIFFER, says("b", "label", 1, 0)).disputed == set()
    assert folded(DIFFER[0]).disputed == set()


def test_a_dispute_ends_with_the_last_answer_that_settles_it() -> None:
    settled = [says(who, "label", 1, k, source=SETTLED) for who, k in (("a", 2), ("c", 3))]
    ledger = folded(*DIFFER, *settled, says("b", "label", 1, 4, source=SETTLED))
    assert ledger.disputed == set()
    assert ledger.labels[1].label == 4
    # what people said by themselves is still known
    assert ledger.votes(1) == {"a": 0, "b": 2}
    assert ledger.votes(7) == {}


def test_votes_are_the_latest_labels_alone() -> None:
    ledger = folded(says("a", "label", 1, 0), says("a", "label", 1, 2), says("b", "bad", 1))
    assert ledger.votes(1) == {"a": 2}


@pytest.mark.parametrize("what", ["unsure", "bad"])
def test_a_dispute_may_be_settled_without_a_label(what: str) -> None:
    ledger = folded(*DIFFER, says("c", what, 1, source=SETTLED))
    assert ledger.aside == {1: what}
    assert ledger.labels == {}
    assert ledger.disputed == set()


def test_an_undo_takes_back_what_was_done_at_once() -> None:
    one, *three = (says("a", "label", image, 0, request=r) for image, r in enumerate("uvvw"))
    assert [a.image for a in folded(one, *three[:2]).latest("a")] == [1, 2]
    assert [a.image for a in folded(one, *three).latest("a")] == [3]
    no_key = [says("a", "label", image, 0) for image in range(2)]
    assert [a.image for a in folded(*no_key).latest("a")] == [1]
    assert folded(*no_key).latest("nobody") == []


def test_of_each_annotator_the_images_with_an_answer_are_counted() -> None:
    again = (says("a", "label", 1, 0), says("a", "label", 1, 2), says("a", "label", 2, 0))
    ledger = folded(*again, says("b", "skip", 1), says("b", "bad", 3))
    assert ledger.n_answered == {"a": 2, "b": 1}
    ledger.apply(says("a", "undo", 2, undoes=3)._replace(id=6))
    assert ledger.n_answered == {"a": 1, "b": 1}
    assert ledger.last_id == 6


def test_the_first_source_of_an_image_is_known_also_after_an_undo() -> None:
    first = says("a", "label", 1, 0, source="strategy")
    ledger = folded(first, says("a", "undo", 1, undoes=1), says("a", "label", 1, 0, source=GRID))
    assert ledger.first_sources == {1: "strategy"}


def test_labels_of_a_class_that_was_removed_are_gone_and_no_undo_finds_them() -> None:
    other = says("a", "label", 2, 1)
    ledger = folded(other, says("a", "label", 1, 0), says("a", "label", 1, None))
    assert list(ledger.labels) == [2]
    assert not ledger.is_touched(1)
    assert [action.image for action in ledger.latest("a")] == [2]
    assert ledger.n_done("a") == 1
    assert ledger.images() == [2]


def test_what_stands_is_what_nobody_took_back() -> None:
    given = [says("a", "label", image, 0)._replace(id=image) for image in (1, 2)]
    ledger = folded(*given, says("a", "undo", 1, undoes=1))
    never = [given[0]._replace(image=7), given[1]._replace(annotator="b")]
    assert ledger.standing([*given, *never]) == [given[1]]


def test_the_latest_answers_come_first_and_each_image_once() -> None:
    ledger = folded(*(says("a", "label", image, n) for n, image in enumerate((1, 2, 1, 3))))
    recent = [(action.image, action.label) for action in ledger.recent("a", 2)]
    assert recent == [(3, 3), (1, 2)]
    assert [action.image for action in ledger.recent("a", 9)] == [3, 1, 2]
    assert ledger.recent("nobody", 9) == []


def test_a_shared_image_wants_a_second_answer_while_it_has_one() -> None:
    index = BatchIndex()
    shared, alone = BatchRow(0, 0, 5, "chance", True), BatchRow(0, 1, 6, "chance", False)
    index.take([shared, alone])
    says_a, says_b = says("a", "label", 5, 0), says("b", "label", 5, 0)
    index.follow(6, {"a": says_a})
    assert index.wanting == {}
    index.follow(5, {"a": says_a})
    assert index.wanting == {5: shared}
    index.follow(5, {"a": says_a, "b": says_b})
    assert index.wanting == {}


def test_answers_of_the_grid_are_told_from_those_of_batches() -> None:
    index = BatchIndex()
    in_grid = says("a", "label", 9, 0, source=GRID)
    index.take([BatchRow(0, 0, 5, "chance", False)])
    index.follow(9, {"a": in_grid})
    index.follow(8, {"a": says("a", "label", 8, 0)})
    index.follow(5, {"a": says("a", "label", 5, 0, source=GRID)})
    assert index.from_grid == {9}
    index.follow(9, {})
    assert index.from_grid == set()


def test_batches_that_are_done_are_passed_over_until_one_of_their_images_is_undone() -> None:
    index = BatchIndex()
    index.take([BatchRow(number, 0, 10 * number, "chance", False) for number in range(4)])

    def shown() -> list[int]:
        return [rows[0].round for rows in index.unfinished()]

    index.prune({0}.__contains__)
    assert shown() == [1, 2, 3]
    index.prune(lambda image: True)
    assert shown() == [2, 3]
    index.follow(10, {})
    assert shown() == [1, 2, 3]
