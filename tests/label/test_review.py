"""The review of all images: what it finds, in which order, and that looking writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_server import InProcess, write_images

from skal.label.doubts import Doubts
from skal.label.learning import Failure, Guesses
from skal.label.project import LabelProject
from skal.label.review import Review
from skal.label.service import LabelService
from skal.label.store import BatchRow
from skal.label.web.server import make_app

CLASSES = ["cat", "dog", "fox"]


@pytest.fixture
def project(tmp_path: Path) -> LabelProject:
    write_images(tmp_path / "images", np.zeros((12, 6, 9), np.uint8))
    project = LabelProject.open(tmp_path / "images", CLASSES)
    project.add_batch([BatchRow(n // 6, n % 6, n, "start", False) for n in range(8)])
    return project


@pytest.fixture
def service(project: LabelProject) -> LabelService:
    service = LabelService(project)
    for image, label in ((0, 0), (1, 1), (2, 0)):
        service.act("anna", [{"action": "label", "image": image, "label": label}])
    service.act("ben", [{"action": "label", "image": 7, "label": 2}])
    service.act("ben", [{"action": "unsure", "image": 3}])
    return service


def find(review: Review, **asked: str) -> list[int]:
    return review.find(asked)["images"]  # type: ignore[no-any-return]


def doubts(project: LabelProject) -> Doubts:
    """Image 2 is called a cat, and is a dog to the network; 7 is not surely one."""
    proba = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.05, 0.9, 0.05], [0.1, 0.5, 0.4]]
    images = np.array([0, 1, 2, 7])
    return Doubts(images, np.array([0, 1, 0, 2]), np.array(proba, np.float32))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [3, 7, 2, 1, 0, 4, 5, 6, 8, 9, 10, 11]),
        ({"class": "0"}, [2, 0]),
        ({"annotator": "ben"}, [3, 7]),
        ({"verdict": "unsure"}, [3]),
        ({"verdict": "none", "round": "1"}, [6]),
        ({"round": "0", "sort": "name"}, [0, 1, 2, 3, 4, 5]),
        ({"verdict": "label", "sort": "name"}, [0, 1, 2, 7]),
    ],
)
def test_images_are_filtered_and_ordered(
    service: LabelService, asked: dict[str, str], found: list[int]
) -> None:
    assert find(Review(service), **asked) == found


def test_names_are_searched_in_any_case(service: LabelService) -> None:
    name = service.project.paths[5]
    assert find(Review(service), name=name.upper()) == [5]


@pytest.mark.parametrize("asked", [{"class": "9"}, {"class": "x"}, {"sort": "x"}, {"round": "-1"}])
def test_what_cannot_be_asked_for_is_an_error_of_one_line(
    service: LabelService, asked: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        find(Review(service), **asked)


def test_doubtful_labels_are_a_queue_that_ends(service: LabelService) -> None:
    jobs: list[Any] = []
    review = Review(service, lambda *job: jobs.append(job))
    review.ask()
    review.ask()  # one is enough
    ((job, take, _),) = jobs
    assert job.args == (tuple(CLASSES), {0: 0, 1: 1, 2: 0, 7: 2})
    assert review.find({})["doubts"] == "computing"
    take(doubts(service.project))
    assert review.find({})["doubts"] == "ready"
    assert find(review, agreement="doubtful") == [2]
    assert find(review, agreement="differs") == [7, 2]
    assert find(review, agreement="agrees") == [1, 0]
    assert find(review, verdict="label", sort="doubt") == [2, 7, 0, 1]
    (row,) = review.rows([2])
    assert (row["guess"], row["doubtful"], row["by"]) == (1, True, ["anna"])
    service.act("anna", [{"action": "label", "image": 2, "label": 0}])  # confirmed
    assert find(review, agreement="doubtful") == []
    service.undo("anna")
    assert find(review, agreement="doubtful") == [2]
    service.act("anna", [{"action": "label", "image": 2, "label": 1}])  # mended
    assert find(review, agreement="doubtful") == []
    review.ask()
    assert len(jobs) == 2


def test_a_failure_is_told(service: LabelService) -> None:
    review = Review(service)
    review.ask()
    assert review.state == "failed: no network can be trained here"
    review = Review(service, lambda job, take, fail: fail(Failure("too few labels")))
    review.ask()
    assert review.state == "failed: too few labels"


def test_the_network_is_not_heard_of_images_without_a_label(service: LabelService) -> None:
    proba = np.tile(np.array([[0.2, 0.5, 0.3]], np.float32), (12, 1))
    service.project.guesses = Guesses(np.arange(12), proba, np.zeros((12, 2), np.float32))
    labelled, open_ = Review(service).rows([0, 9])
    assert (labelled["guess"], labelled["probability"]) == (1, 0.5)
    assert open_["guess"] is None and open_["label"] is None


def test_last_answers_are_those_that_stand_one_an_image(service: LabelService) -> None:
    review = Review(service)
    service.act("anna", [{"action": "label", "image": 0, "label": 2}])
    told = [(row["image"], row["label"]) for row in review.recent("anna")]
    assert told == [(0, 2), (2, 0), (1, 1)]
    service.undo("anna")
    assert [(row["image"], row["label"]) for row in review.recent("anna")][-1] == (0, 0)


def test_looking_writes_nothing(service: LabelService) -> None:
    app = make_app(service, token="t", port=8000)
    client = httpx.Client(
        transport=InProcess(app),
        base_url="http://127.0.0.1:8000",
        headers={"X-Skal-Project": service.project.id},
    )
    client.get("/", params={"token": "t"})
    before = [*service.project.store.actions()], service.project.store.batches()
    found = client.get("/api/review", params={"sort": "doubt", "name": "0"}).json()
    rows = client.get("/api/rows", params={"images": "0,1,400"}).json()["rows"]
    assert found["images"] and [row["image"] for row in rows] == [0, 1]
    assert client.get("/api/rows", params={"images": "x"}).status_code == 400
    assert client.post("/api/doubts", json={}).json()["doubts"].startswith("failed")
    assert ([*service.project.store.actions()], service.project.store.batches()) == before
