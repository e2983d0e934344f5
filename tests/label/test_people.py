"""Several people: how far they agree, which label holds, and how a dispute is settled."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from label_server import write_images

from skal.label import status
from skal.label.agreement import alpha, disputed, krippendorff, report
from skal.label.exporting import export_csv
from skal.label.formats import Source
from skal.label.importing import import_into
from skal.label.project import LabelProject
from skal.label.review import Review
from skal.label.service import LabelService

CLASSES = ["cat", "dog", "fox"]
# four people, twelve units: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, C
PUBLISHED = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def by_pairs(units: Sequence[Sequence[str]]) -> float:
    """Alpha as its author defines it: by the matrix of coincidences, each pair counted."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for unit in units:
        for pair in permutations(unit, 2):
            coincidences[pair] += 1 / (len(unit) - 1)  # type: ignore[assignment]
    totals: Counter[str] = Counter()
    for (one, _), weight in coincidences.items():
        totals[one] += weight  # type: ignore[assignment]
    n = sum(totals.values())
    observed = sum(weight for (a, b), weight in coincidences.items() if a != b) / n
    expected = sum(totals[a] * totals[b] for a, b in permutations(totals, 2)) / (n * (n - 1))
    return 1 - observed / expected


def units_of(people: Sequence[str]) -> list[list[str]]:
    return [[c for c in unit if c != "."] for unit in zip(*people, strict=True)]


def test_alpha_is_that_of_the_published_example() -> None:
    units = units_of(PUBLISHED)
    assert krippendorff([Counter(map(int, unit)) for unit in units]) == pytest.approx(
        0.743, abs=5e-4
    )


@pytest.mark.parametrize("seed", range(20))
def test_alpha_is_that_of_counting_each_pair(seed: int) -> None:
    rng = random.Random(seed)
    n_people, n_units = rng.randint(3, 6), rng.randint(5, 30)
    people = ["".join(rng.choice("0012.") for _ in range(n_units)) for _ in range(n_people)]
    units = units_of(people)
    counted = [unit for unit in units if len(unit) > 1]
    assert krippendorff([Counter(map(int, u)) for u in units]) == pytest.approx(by_pairs(counted))


def test_alpha_of_one_class_alone_is_not_defined_and_of_equals_is_one() -> None:
    assert math.isnan(krippendorff([Counter({0: 3})] * 5))
    assert krippendorff([Counter({0: 3}), Counter({1: 2})]) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", np.zeros((20, 6, 9), np.uint8))
    return tmp_path / "photos"


@pytest.fixture
def service(folder: Path) -> LabelService:
    return LabelService(LabelProject.open(folder, CLASSES))


def say(
    service: LabelService, who: str, image: int, said: int | str, *, settles: bool = False
) -> None:
    answer = {"action": said} if isinstance(said, str) else {"action": "label", "label": said}
    service.act(who, [{**answer, "image": image, "settles": settles}])


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ("anna 0, ben 1, cem 1", 1),  # that of most
        ("anna 0, ben 1", 1),  # of as many that given last
        ("ben 1, anna 0", 0),
        ("anna 0, ben unsure", 0),  # a label, whoever else is unsure
        ("anna 0, cem 0, ben bad", "bad"),  # whom one calls bad
        ("anna unsure, ben unsure", "unsure"),
        ("anna 0, ben 1, cem 1, anna 0!", 0),  # what settles, whatever others say
        ("anna 0, ben 1, cem 2!, ben 1, anna 1", 2),  # also later
        ("anna 0, ben 1, cem 2!, anna 1!", 1),  # the last that did so
        ("anna 0, ben bad, cem 0!", 0),
        ("anna 0, ben 1, cem unsure!", "unsure"),
        ("anna 0, ben 1, cem 2!, cem 1", 1),  # until who settled says otherwise
    ],
)
def test_which_of_several_answers_holds(service: LabelService, said: str, holds: int | str) -> None:
    for part in said.split(", "):
        who, what = part.split()
        word = what.rstrip("!")
        say(service, who, 3, int(word) if word.isdecimal() else word, settles=what.endswith("!"))
    project = service.project
    assert project.labels.get(3, project.ledger.aside.get(3)) == holds


def three_people(service: LabelService) -> None:
    for image in range(10):
        say(service, "anna", image, image % 2)
        say(service, "ben", image, 1 if image < 2 else image % 2)
        if image < 5:
            say(service, "cem", image, 2 if image == 4 else image % 2)


def test_disputes_are_a_queue_that_ends_and_an_undo_opens_one_again(service: LabelService) -> None:
    three_people(service)
    review = Review(service)
    assert review.find({"people": "disputed", "sort": "name"})["images"] == [0, 4]
    (row,) = review.rows([4])
    assert row["said"] == [
        {"by": "anna", "label": 0},
        {"by": "ben", "label": 0},
        {"by": "cem", "label": 2},
    ]
    assert service.state("anna")["n_disputed"] == 2

    say(service, "cem", 4, 2, settles=True)
    assert review.find({"people": "disputed"})["images"] == [0]
    assert service.project.labels[4] == 2
    say(service, "anna", 0, 0, settles=True)
    assert review.find({})["n_disputed"] == 0
    assert disputed(service.project) == []
    service.undo("anna")
    assert review.find({"people": "disputed"})["images"] == [0]


def test_to_settle_disputes_makes_people_agree_no_more_than_they_did(service: LabelService) -> None:
    three_people(service)
    before = alpha(service.project)
    assert before is not None
    assert (before.n_people, before.n) == (3, 10)
    lines = report(service.project)
    assert f"all 3: 10 images, Krippendorff's alpha {before.value:.3f}" in lines
    say(service, "anna", 0, 1, settles=True)
    say(service, "cem", 4, 0, settles=True)
    assert alpha(service.project) == before
    assert report(service.project)[:4] == lines[:4]


def test_two_people_have_kappa_alone(service: LabelService) -> None:
    say(service, "anna", 0, 0)
    say(service, "ben", 0, 1)
    assert alpha(service.project) is None


def test_how_far_each_person_is(service: LabelService) -> None:
    three_people(service)
    say(service, "cem", 9, "skip")  # says nothing
    say(service, "cem", 0, 1)  # another answer to the same image
    assert service.state("cem")["people"] == [
        {"name": "anna", "n": 10},
        {"name": "ben", "n": 10},
        {"name": "cem", "n": 5},
    ]
    service.undo("ben")
    assert "answers: anna 10, ben 9, cem 5" in status.report(service.project)
    assert any("settle them in the review" in line for line in status.report(service.project))


def test_a_settled_dispute_is_exported_and_imported_as_such(
    service: LabelService, tmp_path: Path
) -> None:
    three_people(service)
    say(service, "anna", 4, 2, settles=True)
    table = tmp_path / "labels.csv"
    table.write_text(export_csv(service.project))
    write_images(tmp_path / "again", np.zeros((20, 6, 9), np.uint8))
    import_into(tmp_path / "again", Source(table), CLASSES, "me", None)
    again = LabelProject.open(tmp_path / "again")
    assert again.labels == service.project.labels
    assert again.disputed == service.project.disputed == {0}


def test_what_settles_is_true_or_false(service: LabelService) -> None:
    with pytest.raises(ValueError, match="settles: got 1; expected true or false"):
        service.act("anna", [{"action": "unsure", "image": 0, "settles": 1}])
