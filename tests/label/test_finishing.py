"""What is made at the end, begun on the page: nothing is overwritten, and no label waits for it."""

from __future__ import annotations

import csv
import json
import os
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_server import InProcess, write_images

from skal.core.errors import RunExistsError, SkalError, UsageError
from skal.label import images
from skal.label.finishing import NETWORK, Finish, make, places
from skal.label.learning import Failure, Learner, Pickers
from skal.label.project import LabelProject
from skal.label.service import LabelService
from skal.label.web.server import make_app


@pytest.fixture
def service(tmp_path: Path) -> LabelService:
    pixels = np.full((40, 8, 8), 20, np.uint8)
    pixels[::2] = 220
    write_images(tmp_path / "photos", pixels)
    settings = {"model": "lenet", "steps": 5, "image_size": 8, "data_dir": str(tmp_path)}
    project = LabelProject.open(tmp_path / "photos", ["cat", "dog"], settings)
    service = LabelService(project)
    for image in range(20):
        service.act("me", [{"action": "label", "image": image, "label": image % 2}])
    return service


def place_of(finish: Finish, what: str) -> str:
    return next(thing["where"] for thing in finish.look()["things"] if thing["what"] == what)


def test_what_is_told_before_is_what_happens(service: LabelService, tmp_path: Path) -> None:
    jobs: list[tuple[Any, ...]] = []
    finish = Finish(service, lambda *job: jobs.append(job))
    place = place_of(finish, "csv")
    assert place == str(tmp_path / "photos-labels.csv")
    assert finish.look()["n_labeled"] == 20

    finish.ask("csv", place)
    assert finish.look()["doing"] == "csv"
    with pytest.raises(SkalError, match="csv is in progress; wait"):
        finish.ask("folder", place_of(finish, "folder"))
    # people go on meanwhile, and what they say is not waited for
    service.act("me", [{"action": "label", "image": 30, "label": 1}])

    job, take, _ = jobs[0]
    take(job(Pickers(service.project.learner_setup())))
    assert finish.look()["told"] == f"{place}: 21 labelled images"
    assert finish.look()["doing"] == ""
    with Path(place).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 21
    assert place_of(finish, "csv") == str(tmp_path / "photos-labels-2.csv")


def test_images_that_came_or_moved_since_the_learner_looked_are_in_it(
    service: LabelService, tmp_path: Path
) -> None:
    project = service.project
    setup = project.learner_setup()
    write_images(project.root, np.full((1, 8, 8), 99, np.uint8), ["new.png"])
    (project.root / "moved").mkdir()
    old = project.root / project.paths[0]
    old.rename(project.root / "moved" / old.name)
    service.take_files(images.find(project.root, "first"))
    number = project.numbers["new.png"]
    service.act("me", [{"action": "label", "image": number, "label": 1}])
    place = tmp_path / "labels.csv"
    told = make("csv", place, Pickers(setup))
    assert told == f"{place}: 21 labelled images"
    named = {row["path"] for row in csv.DictReader(place.read_text().splitlines())}
    assert {"new.png", f"moved/{old.name}"} < named


@pytest.mark.parametrize("what", ["csv", "folder", NETWORK])
def test_nothing_is_overwritten(service: LabelService, what: str) -> None:
    finish = Finish(service)
    place = Path(place_of(finish, what))
    place.mkdir()
    (place / "mine").touch()
    with pytest.raises(SkalError, match="which is not free; expected"):
        finish.ask(what, str(place))
    with pytest.raises(RunExistsError, match="exists"):
        make(what, place, Pickers(service.project.learner_setup()))
    assert [path.name for path in place.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("what", "where"),
    [("made_up:make", "x"), (["csv"], "x"), ("csv", "/etc/passwd"), ("csv", None)],
)
def test_only_what_was_offered_is_made(service: LabelService, what: Any, where: Any) -> None:
    finish = Finish(service, lambda *job: pytest.fail("it was begun"))
    with pytest.raises(SkalError, match=r"expected|is not free"):
        finish.ask(what, where)


def test_a_failure_is_one_line_and_another_try_is_possible(service: LabelService) -> None:
    failing = [True]
    finish = Finish(
        service,
        lambda job, take, fail: fail(Failure("the disk is full")) if failing.pop() else None,
    )
    finish.ask("csv", place_of(finish, "csv"))
    seen = finish.look()
    assert (seen["told"], seen["failed"], seen["doing"]) == ("the disk is full", True, "")
    failing.append(False)
    finish.ask("csv", place_of(finish, "csv"))
    assert finish.look()["doing"] == "csv"


def test_the_final_network_is_trained_in_another_process_while_labels_come(
    service: LabelService, tmp_path: Path
) -> None:
    done = threading.Event()
    learner = Learner(service.project.learner_setup())
    try:

        def ask(job: Any, take: Any, fail: Any) -> None:
            learner.ask(job, lambda told: (take(told), done.set()), lambda f: (fail(f), done.set()))

        finish = Finish(service, ask)
        finish.ask(NETWORK, place_of(finish, NETWORK))
        assert not done.is_set()
        service.act("me", [{"action": "label", "image": 30, "label": 0}])
        assert done.wait(120)
    finally:
        learner.stop()
    seen = finish.look()
    assert not seen["failed"], seen["told"]
    assert "lenet trained on" in seen["told"]
    assert "accuracy" in seen["told"]
    summary = json.loads((tmp_path / "photos-model" / "summary.json").read_text())
    assert summary["n_labeled"] in (20, 21)


def test_a_training_that_is_interrupted_leaves_no_folder(
    service: LabelService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    place = Path(place_of(Finish(service), NETWORK))

    def interrupt(descriptor: int) -> None:
        if any(tmp_path.glob("*-model*")) or any(tmp_path.glob(".*-model*")):
            raise KeyboardInterrupt
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(NETWORK, place, Pickers(service.project.learner_setup()))
    assert not [path.name for path in tmp_path.iterdir() if "model" in path.name]


def test_a_file_system_as_the_folder_is_one_line() -> None:
    with pytest.raises(UsageError, match="'/' has no parent folder"):
        places(Path("/"))


def test_who_has_no_token_or_comes_from_elsewhere_begins_nothing(service: LabelService) -> None:
    begun: list[Any] = []
    app = make_app(service, token="a-token", port=8000, beside=lambda *job: begun.append(job))
    asked = {"what": "csv", "where": place_of(Finish(service), "csv")}
    project = {"x-skal-project": service.project.id}
    with httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1:8000") as client:
        client.headers.update(project)
        assert client.post("/api/make", json=asked).status_code == 403
        assert client.get("/api/finish").status_code == 403
        client.get("/", params={"token": "a-token"})
        elsewhere = {"origin": "http://evil.example"}
        assert client.post("/api/make", json=asked, headers=elsewhere).status_code == 403
        assert client.get("/api/make").status_code == 405
        assert not begun
        refused = client.post("/api/make", json={"what": "csv", "where": "/etc/passwd"})
        assert refused.status_code == 400
        assert "which is not free" in refused.json()["error"]
        assert client.post("/api/make", json=asked).json()["doing"] == "csv"
        assert len(begun) == 1
