from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_server import disk_full, write_images

from skal.core.errors import UsageError
from skal.label.learning import BatchRequest, ComputedBatch, Failure, Guesses
from skal.label.leases import LEASE_SECONDS
from skal.label.project import LabelProject
from skal.label.queue import LOOKAHEAD, Snapshot, is_for_two
from skal.label.service import LabelService, NothingToUndoError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """Takes requests and answers them when told to, with the highest numbers first."""

    def __init__(self) -> None:
        self.requests: list[BatchRequest] = []

    def ask(self, request: BatchRequest, *_: Any) -> None:
        self.requests.append(request)

    def answer(self, service: LabelService, **changes: Any) -> ComputedBatch:
        request = self.requests[-1]
        everything = np.array(sorted(service.project.paths))
        enough = len(set(request.labels.values())) > 1
        proba = np.zeros((len(everything), 3 if enough else 0), np.float32)
        if enough:  # the lower the number, the less sure
            proba[:, 0] = np.linspace(0.5, 1, len(everything))
            proba[:, 1] = 1 - proba[:, 0]
        guesses = Guesses(everything, proba, everything[:, None].astype(np.float32), 0, "x")
        picks = sorted(request.candidates)[::-1][: request.n]
        facts = {"picks": picks, "kind": "strategy", "guesses": guesses, **changes}
        answer = ComputedBatch(unreadable=[], seconds=0.1, **facts)
        service.take_batch(answer)
        return answer


class Table:
    """A project of 120 images with everything around it."""

    def __init__(self, root: Path, n: int = 120, **options: Any) -> None:
        if not root.exists():
            write_images(root, np.zeros((n, 4, 4), np.uint8))
        settings = {"n_init": 10, "n_query": 20, **options.pop("settings", {})}
        self.project = LabelProject.open(root, ["a", "b", "c"], settings, **options)
        self.clock = Clock()
        self.service = LabelService(self.project, clock=self.clock)
        self.desk = Desk()

    def start(self) -> Table:
        self.service.start(self.desk.ask)
        return self

    def look(self, who: str = "me", **options: Any) -> dict[str, Any]:
        """Ask as a page does: for the next images, and for what is beside them."""
        self.service.next(who, **options)
        return self.service.state(who, window=options.get("window"))

    def first(self, who: str = "me") -> int:
        return self.service.next(who)[0]

    def say(self, action: str, image: int, label: int | None = None, who: str = "me") -> int:
        (number,) = self.service.act(who, [{"action": action, "image": image, "label": label}])
        return number

    def label(self, image: int, label: int | None = None, who: str = "me") -> int:
        return self.say("label", image, image % 3 if label is None else label, who)

    def label_next(self, n: int, who: str = "me") -> list[int]:
        seen = []
        for _ in range(n):
            seen.append(self.first(who))
            self.label(seen[-1], who=who)
        return seen

    def source(self, image: int) -> str:
        return self.project.ledger.labels[image].source


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "images").start()


def test_images_are_there_before_anything_is_computed(table: Table) -> None:
    queue = table.service.next("me")
    assert len(queue) == LOOKAHEAD
    assert len(table.desk.requests) == 1
    assert table.label_next(5)
    assert {row.kind for row in table.project.store.batches()} == {"chance"}


def test_the_computed_batch_follows_as_soon_as_it_is_there(table: Table) -> None:
    before = [*table.label_next(2), *table.service.next("me")]
    picks = table.desk.answer(table.service, kind="start").picks
    seen = table.label_next(8)
    assert seen[:3] == before[2:]
    rest = [image for image in seen[3:] if table.source(image) != "test"]
    assert rest == [image for image in picks if image not in before][: len(rest)]
    assert {table.source(image) for image in rest} == {"start"}


def test_the_same_images_are_told_until_they_are_answered(table: Table) -> None:
    first = table.service.next("me")
    assert table.service.next("me") == first
    table.label(first[0])
    assert table.service.next("me")[: len(first) - 1] == first[1:]


def test_every_tenth_image_is_of_the_test_and_in_its_order(table: Table) -> None:
    table.desk.answer(table.service)
    seen: list[int] = []
    for _ in range(6):
        seen += table.label_next(10)
        if table.service.learner_state == "training":
            table.desk.answer(table.service)
    places = [n for n, image in enumerate(seen) if table.source(image) == "test"]
    assert places == [9, 19, 29, 39, 49, 59]
    assert [seen[n] for n in places] == table.project.reserve[:6]
    kept = set(table.project.reserve)
    assert all((image in kept) == (n in places) for n, image in enumerate(seen))


def test_the_strategy_never_sees_what_is_kept_for_the_test(table: Table) -> None:
    table.desk.answer(table.service)
    table.label_next(30)
    for request in table.desk.requests:
        assert not set(request.candidates) & set(table.project.reserve)
        assert not request.labels.keys() & set(table.project.reserve)


def test_a_batch_is_computed_while_the_one_before_is_labelled(table: Table) -> None:
    table.desk.answer(table.service)
    table.first()  # the first batch begins
    assert len(table.desk.requests) == 2
    table.desk.answer(table.service)
    table.label_next(10)
    assert table.service.state("me")["round"] == 1
    assert {row.kind for row in table.project.store.batches()} <= {"strategy", "test"}


def test_how_many_batches_were_handed_out_is_told_also_after_a_restart(tmp_path: Path) -> None:
    table = Table(tmp_path / "images").start()
    table.desk.answer(table.service)
    table.label_next(10)
    table.desk.answer(table.service)
    table.label_next(1)
    assert [request.n_batches for request in table.desk.requests] == [0, 1, 2]
    table.project.close()
    again = Table(tmp_path / "images").start()
    assert [request.n_batches for request in again.desk.requests] == [2]


def test_a_batch_that_nobody_has_come_to_is_computed_anew_from_further_labels(
    table: Table,
) -> None:
    table.desk.answer(table.service)
    table.first()
    old = table.desk.answer(table.service).picks
    n_requests = len(table.desk.requests)
    table.label_next(3)
    assert len(table.desk.requests) == n_requests
    table.label_next(2)  # a fifth of twenty labels is new, and the network can be trained
    assert len(table.desk.requests) == n_requests + 1
    new = table.desk.answer(table.service, picks=sorted(table.desk.requests[-1].candidates)).picks
    assert new != old
    table.label_next(5)
    third = table.first()
    assert third == new[0]


def test_a_batch_is_not_begun_before_it_is_needed(table: Table) -> None:
    table.desk.answer(table.service)
    table.first()
    table.desk.answer(table.service)
    table.label_next(10 - LOOKAHEAD)
    assert max(row.round for row in table.project.store.batches()) == 0
    table.label_next(1)
    table.first()
    assert max(row.round for row in table.project.store.batches()) == 1


def test_between_batches_come_the_images_the_network_is_least_sure_of(table: Table) -> None:
    table.desk.answer(table.service)
    table.first()
    table.desk.answer(table.service)
    table.label_next(10)
    table.desk.answer(table.service)  # now there is a network
    table.label_next(40)
    left = table.project.pool - set(table.project.reserve) - table.project.ledger.labels.keys()
    seen = [image for image in table.label_next(5) if table.source(image) != "test"]
    assert {table.source(image) for image in seen} == {"doubt"}
    assert seen == sorted(left)[: len(seen)]


def test_nothing_is_shown_twice_and_nothing_is_left_out(table: Table) -> None:
    seen: list[int] = []
    while queue := table.service.next("me"):
        seen.append(queue[0])
        table.label(queue[0])
        if table.service.learner_state == "training" and len(seen) % 7 == 0:
            table.desk.answer(table.service)
    assert sorted(seen) == sorted(table.project.paths)
    assert table.service.state("me")["finished"]


def test_what_was_labelled_out_of_turn_and_taken_back_comes_again(table: Table) -> None:
    for image in range(0, 120, 2):
        table.label(image, who="anna")
    seen = table.label_next(20)
    taken_back = {table.service.undo("anna")[0].image for _ in range(40)}
    table.service.leave("anna", None)
    while queue := table.service.next("me"):
        seen.append(queue[0])
        table.label(queue[0])
    assert set(seen) == taken_back | set(range(1, 120, 2))
    assert table.service.state("me")["finished"]


def test_what_is_labelled_is_not_looked_at_for_each_image_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, looked = Table(tmp_path / "images", n=300), Counter[int]()
    is_free = Snapshot.is_free

    def counted(state: Snapshot, image: int) -> bool:
        looked[image] += 1
        return is_free(state, image)

    monkeypatch.setattr(Snapshot, "is_free", counted)
    answers = [{"action": "label", "image": n, "label": 0} for n in range(300) if n % 3]
    table.service.act("anna", answers)
    table.first()
    looked.clear()
    table.label_next(40)
    assert looked.total() < 10 * 40


def test_a_skipped_image_comes_back_behind_its_batch(table: Table) -> None:
    table.desk.answer(table.service)
    first = table.first()
    table.say("skip", first)
    seen = table.label_next(9)
    assert first not in seen
    assert table.first() == first


def test_an_image_skipped_twice_comes_back_behind_all_others(table: Table) -> None:
    table.desk.answer(table.service)
    first = table.first()
    table.say("skip", first)
    table.label_next(9)
    table.say("skip", first)
    seen = table.label_next(len(table.project.paths) - 10)
    assert first not in seen
    assert table.service.next("me") == [first]
    assert not table.service.state("me")["finished"]
    table.say("skip", first)
    assert table.service.next("me") == [first]
    table.label(first)
    assert table.service.state("me")["finished"]


@pytest.mark.parametrize("action", ["bad", "unsure"])
def test_what_is_set_aside_never_comes_again(table: Table, action: str) -> None:
    image = table.first()
    table.say(action, image)
    everybody = []
    for who in ("me", "anna"):
        while queue := table.service.next(who):
            everybody.append(queue[0])
            table.label(queue[0], who=who)
    assert image not in everybody
    assert image not in table.project.labels
    assert all(image not in request.candidates for request in table.desk.requests[1:])


def test_an_undone_image_is_first_again(table: Table) -> None:
    table.desk.answer(table.service)
    seen = table.label_next(3)
    assert table.service.undo("me")[0].image == seen[2]
    assert table.service.undo("me")[0].image == seen[1]
    assert table.service.next("me")[:2] == [seen[1], seen[2]]
    assert table.project.labels.keys() == {seen[0]}


def test_undo_goes_back_over_batches(table: Table) -> None:
    table.desk.answer(table.service)
    table.first()
    table.desk.answer(table.service)
    seen = table.label_next(25)
    for image in reversed(seen):
        assert table.service.undo("me")[0].image == image
        assert table.first() == image
    with pytest.raises(NothingToUndoError):
        table.service.undo("me")
    assert table.label_next(25) == seen


def test_two_annotators_get_different_images(table: Table) -> None:
    table.desk.answer(table.service)
    assert not set(table.service.next("a")) & set(table.service.next("b"))
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for turn in range(40):
        who = "ab"[turn % 2]
        seen[who] += table.label_next(1, who)
        if table.service.learner_state == "training":
            table.desk.answer(table.service)
    assert not set(seen["a"]) & set(seen["b"])


def test_who_went_away_does_not_keep_images_for_ever(table: Table) -> None:
    table.desk.answer(table.service)
    theirs = table.service.next("a")
    assert not set(theirs) & set(table.service.next("b"))
    table.clock.now = LEASE_SECONDS + 1
    assert table.service.next("b")[0] == theirs[0]


def test_some_images_are_shown_to_two_and_those_of_the_test_first(tmp_path: Path) -> None:
    table = Table(tmp_path / "images", overlap="10%").start()
    table.desk.answer(table.service)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for turn in range(60):
        who = "ab"[turn % 2]
        seen[who] += table.label_next(1, who)
        if table.service.learner_state == "training":
            table.desk.answer(table.service)
    both = set(seen["a"]) & set(seen["b"])
    assert len(both) in (5, 6)
    assert {table.source(image) for image in both} == {"test"}
    # a third is not asked
    assert not both & set(table.service.next("c"))


@pytest.mark.parametrize(("share", "n"), [("5%", 2), ("20%", 8), ("50%", 20), ("100%", 40)])
def test_the_overlap_is_of_the_share_asked_for(share: str, n: int) -> None:
    assert sum(is_for_two(number, float(share[:-1]) / 100) for number in range(40)) == n


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path) -> None:
    table = Table(tmp_path / "images").start()
    table.desk.answer(table.service)
    seen = table.label_next(4)
    queue = table.service.next("me")
    table.project.close()
    again = Table(tmp_path / "images").start()
    assert again.service.next("me") == queue
    assert again.service.undo("me")[0].image == seen[-1]
    state = again.service.state("me")
    assert (state["round"], state["done_in_round"], state["round_size"]) == (0, 3, 10)


def test_images_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, np.zeros((30, 4, 4), np.uint8))
    (root / "00003.png").write_bytes(b"no image")
    table = Table(root).start()
    table.service.take_batch(
        ComputedBatch([], "start", Guesses(*(np.empty((0, 0)),) * 3), unreadable=[5], seconds=0)  # type: ignore[arg-type]
    )
    seen = table.label_next(28)
    assert table.service.next("me") == []
    assert set(table.project.paths) - set(seen) == {3, 5}
    assert table.service.state("me")["n_images"] == 28


def test_a_failure_is_told_and_people_go_on(table: Table) -> None:
    table.service.take_failure(Failure("out of memory"))
    assert table.service.state("me")["learner"] == "failed: out of memory"
    assert len(table.desk.requests) == 1
    table.label_next(20)
    assert len(table.desk.requests) > 1  # tried again after new labels


def test_a_failure_is_not_tried_again_at_every_label(table: Table) -> None:
    for _ in range(20):
        table.label_next(1)
        if table.service.learner_state == "training":
            table.service.take_failure(Failure("no memory"))
    assert len(table.desk.requests) <= 6


def test_the_grid_shows_what_is_alike_and_nothing_of_the_test(table: Table) -> None:
    table.desk.answer(table.service)
    table.label_next(2)
    first = table.first()
    grid = table.service.grid("me", 12)
    kept = set(table.project.reserve)
    open_images = [n for n in table.project.paths if n not in table.project.ledger.labels]
    nearest = sorted((n for n in open_images if n not in kept), key=lambda n: (abs(n - first), n))
    assert grid == nearest[:12]
    table.service.act("me", [{"action": "label", "image": n, "label": 1} for n in grid], grid=True)
    sources = Counter(table.source(n) for n in grid)
    assert set(sources) == {"strategy", "grid"}
    assert not set(grid) & set(table.service.next("me"))


def test_two_annotators_grids_are_different(table: Table) -> None:
    table.desk.answer(table.service)
    assert not set(table.service.grid("a", 20)) & set(table.service.grid("b", 20))


def test_without_embeddings_the_grid_shows_the_queue(table: Table) -> None:
    queue = table.service.next("me")
    assert table.service.grid("me", 48) == queue


def test_a_request_that_is_sent_again_changes_nothing(table: Table) -> None:
    image = table.first()
    answer = [{"action": "label", "image": image, "label": 1}]
    first = table.service.act("me", answer, "key-1")
    assert table.service.act("me", answer, "key-1") == first
    assert table.service.undo("me", "key-2") == table.service.undo("me", "key-2")
    assert [a.action for a in table.project.store.actions()] == ["label", "undo"]


def test_what_is_known_of_an_action_is_kept(table: Table) -> None:
    image = table.first()
    answer = {"action": "label", "image": image, "label": 2, "seconds": 1.23456, "guess": 1}
    table.service.act("anna", [answer])
    (action,) = table.project.store.actions()
    assert (action.annotator, action.image, action.label) == ("anna", image, 2)
    assert (action.seconds, action.guess, action.round) == (1.235, 1, 0)
    assert action.source == "chance"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"action": "delete", "image": 1}, "action: got 'delete'; expected label"),
        ({"action": "bad", "image": 1000}, "there is no image 1000"),
        ({"action": "bad", "image": "1"}, "there is no image '1'"),
        ({"action": "bad", "image": True}, "there is no image True"),
        ({"action": "bad", "image": None}, "there is no image None"),
        ({"action": "label", "image": 1}, "label: expected a class if"),
        ({"action": "label", "image": 1, "label": 3}, "label: got 3"),
        ({"action": "label", "image": 1, "label": -1}, "label: got -1"),
        ({"action": "bad", "image": 1, "label": 0}, "expected a class if the action is label"),
        ({"action": "bad", "image": 1, "seconds": -1}, "seconds: got -1"),
        ({"action": "bad", "image": 1, "seconds": float("nan")}, "seconds: got nan"),
        ({"action": "bad", "image": 1, "guess": 9}, "guess: got 9"),
        ({"action": "bad", "image": 1, "seconds": 10**400}, "seconds: got 1000"),
    ],
)
def test_answers_that_are_not_valid_are_refused_whole(
    table: Table, answer: dict[str, Any], message: str
) -> None:
    good = {"action": "label", "image": 0, "label": 0}
    with pytest.raises(UsageError, match=message):
        table.service.act("me", [good, answer])
    assert table.project.store.actions() == []


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb"])
def test_names_of_annotators_are_checked(table: Table, name: str) -> None:
    with pytest.raises(UsageError, match="as: got"):
        table.service.next(name)


def test_the_state_counts_what_there_is(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, np.zeros((50, 4, 4), np.uint8))
    write_images(root / "b", np.zeros((2, 4, 4), np.uint8))
    table = Table(root).start()
    table.desk.answer(table.service)
    image = table.first()
    table.label(image, 0)
    table.say("unsure", table.first())
    table.say("skip", table.first())
    state = table.service.state("me")
    assert state["counts"] == {"0": 1, "1": 2, "2": 0}
    assert (state["n_labeled"], state["n_images"]) == (3, 52)
    assert (state["done_in_round"], state["round_size"]) == (2, 10)
    assert state["queue"][0]["width"] == 4
    assert state["classes"][2] == {"id": 2, "name": "c", "key": "c", "chosen": ""}


def test_what_the_network_says_of_the_test_is_kept(table: Table) -> None:
    table.desk.answer(table.service)
    table.first()
    table.desk.answer(table.service)
    table.label_next(10)
    table.desk.answer(table.service)
    state = table.service.state("me")
    (image,) = table.project.test_labels
    assert state["accuracy"]["value"] == float(table.project.test_labels[image] == 0)
    assert state["accuracy"]["n"] == 1
    assert [point["n_labeled"] for point in state["curve"]] == [0]


def alone_then(table: Table, first: str, second: str, n_first: int, n_second: int) -> list[int]:
    """Let one label after the other has gone; return the second's images."""
    for _ in range(n_first):
        table.label_next(1, first)
        if table.service.learner_state == "training":
            table.desk.answer(table.service)
    table.clock.now += 2 * LEASE_SECONDS
    return table.label_next(n_second, second)


def test_who_comes_later_still_gives_second_opinions(tmp_path: Path) -> None:
    table = Table(tmp_path / "images", 200, overlap="20%").start()
    theirs = alone_then(table, "anna", "ben", 80, 30)
    shared = {row.image for row in table.project.store.batches() if row.shared}
    both = {i for i in theirs if len(table.project.ledger.verdicts(i)) == 2}
    assert both <= shared
    assert len(both) >= 15  # every other of his, until all of hers are seen


def test_second_opinions_do_not_change_under_ones_eyes(tmp_path: Path) -> None:
    table = Table(tmp_path / "images", 200, overlap="20%").start()
    alone_then(table, "anna", "ben", 80, 5)
    for _ in range(8):
        queue = table.service.next("ben")
        assert table.service.next("ben") == queue
        table.label(queue[0], who="ben")
        assert table.first("ben") == queue[1]
    assert table.first("ben") not in table.service.next("anna")


def test_the_grid_goes_on_only_when_the_images_of_the_test_are_answered(table: Table) -> None:
    table.desk.answer(table.service)
    table.label_next(2)
    kept = set(table.project.reserve)
    n_grid = 0
    for _ in range(40):
        table.service.grid("me", 12)
        for _ in range(table.look(grid=True)["due"]):
            image = table.first()
            assert image in kept
            table.label(image)
        assert table.look(grid=True)["due"] == 0
        images = table.service.grid("me", 12)
        assert not kept & set(images)
        if not images:
            break
        answers = [{"action": "label", "image": n, "label": n % 3} for n in images]
        table.service.act("me", answers, grid=True)
        n_grid += len(images)
        if table.service.learner_state == "training":
            table.desk.answer(table.service)
    drawn = [i for i in table.project.reserve if i in table.project.test_labels]
    assert n_grid > 60
    assert len(drawn) >= n_grid // 9 - 1
    assert drawn == table.project.reserve[: len(drawn)]  # in the order in which they were drawn


def test_without_embeddings_there_is_nothing_of_the_test_in_the_grid_either(
    tmp_path: Path,
) -> None:
    table = Table(tmp_path / "images")
    for _ in range(30):
        assert not set(table.service.grid("me", 48)) & set(table.project.reserve)
        table.label_next(1)


def test_a_closed_grid_keeps_its_images_from_nobody(table: Table) -> None:
    table.desk.answer(table.service)
    grid = table.service.grid("anna", 48)
    table.service.next("anna", grid=True)
    assert not set(grid) & set(table.service.next("ben"))
    table.service.next("anna")
    theirs = table.service.next("anna")
    seen = table.label_next(20, "ben")
    assert set(seen) & set(grid)
    assert not set(seen) & set(theirs)


def test_what_is_left_with_others_is_not_called_the_end(tmp_path: Path) -> None:
    table = Table(tmp_path / "images", 12)
    held = table.service.next("anna")
    while queue := table.service.next("ben"):
        table.label(queue[0], who="ben")
    state = table.look("ben")
    assert not state["finished"]
    assert state["waiting_for"] == ["anna"]
    for image in held:
        table.label(image, who="anna")
    state = table.look("ben")
    assert state["finished"]
    assert state["waiting_for"] == []
    assert len(table.project.labels) == 12


def grid_answer(images: list[int]) -> list[dict[str, Any]]:
    return [{"action": "label", "image": n, "label": 1} for n in images]


def test_an_undo_takes_back_a_whole_request(table: Table) -> None:
    table.desk.answer(table.service)
    table.label_next(1)
    images = table.service.grid("me", 4)
    table.service.act("me", grid_answer(images), "key-1")
    assert [action.image for action in table.service.undo("me")] == images
    assert len(table.project.labels) == 1
    assert table.service.next("me")[:4] == images


def test_an_undo_takes_back_what_it_names_and_nothing_else(table: Table) -> None:
    """Two windows under one name: Backspace in the one is not for the other's answer."""
    table.desk.answer(table.service)
    for key in ("a-1", "b-1", "a-2"):
        table.service.act("me", grid_answer([table.first()]), key)
    first, theirs, second = (a.image for a in table.project.store.actions())
    assert [a.image for a in table.service.undo("me", "u-1", of="b-1")] == [theirs]
    assert set(table.project.labels) == {first, second}
    for of in ("b-1", "never-sent", "u-1"):
        with pytest.raises(NothingToUndoError):
            table.service.undo("me", of=of)
    with pytest.raises(NothingToUndoError):
        table.service.undo("anna", of="a-1")
    assert set(table.project.labels) == {first, second}


def test_with_two_windows_under_one_name_an_undo_must_name_what_it_takes_back(
    table: Table,
) -> None:
    table.service.act("me", grid_answer([table.first()]), "a-1")
    assert not table.look(window="a")["elsewhere"]
    assert table.look(window="b")["elsewhere"]
    with pytest.raises(NothingToUndoError, match="another window"):
        table.service.undo("me", window="b")
    table.clock.now += 60
    assert not table.service.state("me", window="b")["elsewhere"]
    assert table.service.undo("me", window="b")


def test_a_key_is_of_one_kind_of_request(table: Table) -> None:
    table.service.act("me", grid_answer([table.first()]), "key")
    with pytest.raises(UsageError, match="another kind"):
        table.service.undo("me", "key")
    table.service.undo("me", "other")
    with pytest.raises(UsageError, match="another kind"):
        table.service.act("me", grid_answer([table.first()]), "other")


def test_a_batch_that_cannot_be_kept_leaves_the_one_before(table: Table) -> None:
    table.desk.answer(table.service)
    table.first()
    table.desk.answer(table.service)
    table.label_next(10)
    guesses = table.project.guesses
    with disk_full(table.project.root, "models"), pytest.raises(OSError, match="disk is full"):
        table.desk.answer(table.service)
    assert table.project.guesses is guesses
    table.service.take_failure(Failure("no space"))
    table.label_next(5)
    table.desk.answer(table.service)  # asked for again, and taken in
    assert not table.service.learner_state.startswith("failed")
    assert table.project.history.last is not None


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, np.zeros((6, 4, 4), np.uint8))
    (root / "00003.png").write_bytes(b"no image")
    table = Table(root)
    table.label_next(5)
    table.service.next("me")
    state = table.service.state("me")
    assert (state["n_unreadable"], state["unreadable"]) == (1, ["00003.png"])
