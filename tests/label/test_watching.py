"""Images that come while people label."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skal.datasets.index import ImageFile
from skal.label.learning import BatchRequest, ComputedBatch, Guesses
from skal.label.project import LabelProject
from skal.label.service import LabelService
from skal.label.store import Action
from skal.label.watching import SETTLED_SECONDS, Watch

LONG_AGO = 10**9


def write(path: Path, at: int = LONG_AGO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), zlib.crc32(path.name.encode()) % 256).save(path)
    os.utime(path, (at, at))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(30):
        write(tmp_path / "images" / f"{i:02}.png")
    return tmp_path / "images"


class Told:
    """Notes what a watch tells."""

    def __init__(self) -> None:
        self.paths: list[list[str]] = []

    def __call__(self, files: Sequence[ImageFile]) -> None:
        self.paths.append([file.path for file in files])


def watch(folder: Path, told: Told, now: float = LONG_AGO + 100) -> Watch:
    project = LabelProject.open(folder, ["a", "b"])
    project.close()
    watch = Watch(folder, project.files, told, clock=lambda: now)
    watch.look()
    return watch


def test_new_images_are_told_once_wherever_they_lie(folder: Path) -> None:
    told = Told()
    eye = watch(folder, told)
    assert not eye.look()
    for place in ("30.png", "deep/er/31.png"):
        write(folder / place)
        assert eye.look()
        assert place in told.paths[-1]
    write(folder / "deep/er/32.png")
    assert eye.look()
    assert not eye.look()
    assert len(told.paths) == 3
    assert len(told.paths[-1]) == 33


def test_pages_of_a_new_file_are_images_of_their_own(folder: Path) -> None:
    told, project = Told(), LabelProject.open(folder, ["a", "b"], {"pages": "all"})
    project.close()
    eye = Watch(folder, project.files, told, pages="all", clock=lambda: LONG_AGO + 100)
    eye.look()
    sheets = [Image.new("L", (8, 8), 9 * i) for i in range(3)]
    sheets[0].save(folder / "stack.tif", save_all=True, append_images=sheets[1:])
    os.utime(folder / "stack.tif", (LONG_AGO, LONG_AGO))
    assert eye.look()
    assert sum("stack.tif#" in path for path in told.paths[0]) == 3


def test_a_file_that_is_being_written_is_waited_for(folder: Path) -> None:
    told, now = Told(), LONG_AGO + 100
    project = LabelProject.open(folder, ["a", "b"])
    project.close()
    eye = Watch(folder, project.files, told, clock=lambda: now)
    eye.look()
    write(folder / "30.png", at=now - 1)
    assert not eye.look()
    now += int(SETTLED_SECONDS) + 1
    assert eye.look()
    assert "30.png" in told.paths[0]


def test_images_that_go_are_told_but_not_that_all_are_gone(folder: Path) -> None:
    told = Told()
    eye = watch(folder, told)
    (folder / "07.png").unlink()
    assert eye.look()
    assert "07.png" not in told.paths[0]
    folder.rename(folder.with_name("elsewhere"))
    assert not eye.look()
    folder.with_name("elsewhere").rename(folder)
    assert not eye.look()


def test_new_images_are_shown_at_once_and_learned_of_with_the_next_batch(folder: Path) -> None:
    project = LabelProject.open(folder, ["a", "b"])
    service, setups = LabelService(project), []
    requests: list[BatchRequest] = []
    eye = Watch(folder, project.files, service.take_files, clock=lambda: LONG_AGO + 100)
    eye.look()
    service.start(lambda request, *_: requests.append(request), setups.append)
    answered = service.next("me")[0]
    service.act("me", [{"action": "label", "image": answered, "label": 0}])
    before = dict(project.paths)
    reserve = list(project.reserve)
    write(folder / "40.png")  # one of thirty is no tenth
    assert eye.look()
    assert not setups
    for i in range(41, 80):
        write(folder / f"{i}.png")

    assert eye.look()

    assert project.labels == {answered: 0}
    assert before.items() <= project.paths.items()
    assert set(reserve) < set(project.reserve)
    assert service.state("me")["n_images"] == 70
    (setup,) = setups
    assert len(setup.files) == len(setup.paths) == 70
    nothing = np.empty((70, 0), np.float32)
    guesses = Guesses(np.array(sorted(project.paths)), nothing, nothing)
    service.take_batch(ComputedBatch([], "start", guesses, [], 0.1))
    asked = requests[-1].candidates
    assert len(requests) == 2
    assert set(asked) - set(before)
    seen = set()
    while images := service.next("me"):
        seen.add(images[0])
        service.act("me", [{"action": "bad", "image": images[0]}])
    assert seen == set(project.paths) - {answered}


def test_an_image_that_is_gone_comes_no_more_and_its_label_counts_when_it_is_back(
    folder: Path,
) -> None:
    project = LabelProject.open(folder, ["a", "b"])
    service = LabelService(project)
    eye = Watch(folder, project.files, service.take_files, clock=lambda: LONG_AGO + 100)
    first, second = service.next("me")[:2]
    service.act("me", [{"action": "label", "image": first, "label": 1}])
    aside = folder.with_name("aside")
    aside.mkdir()
    gone = [folder / project.paths[image] for image in (first, second)]
    for path in gone:
        path.rename(aside / path.name)
    assert eye.look()
    assert project.labels == {}
    assert second not in service.next("me", 40)
    for path in gone:
        (aside / path.name).rename(path)
    assert eye.look()
    assert project.labels == {first: 1}
    assert second in service.next("me", 40)


def test_a_new_folder_is_watched_before_there_is_an_image_in_it(folder: Path) -> None:
    told = Told()
    eye = watch(folder, told)
    (folder / "new/deeper").mkdir(parents=True)
    assert not eye.look()
    write(folder / "new/deeper/30.png")
    assert eye.look()
    assert "new/deeper/30.png" in told.paths[-1]


def test_a_file_that_is_not_whole_holds_up_no_other(folder: Path) -> None:
    told = Told()
    eye = watch(folder, told)
    (folder / "dangling.png").symlink_to("nowhere.png")
    write(folder / "ahead.png", at=LONG_AGO + 10**6)  # a camera's clock
    write(folder / "30.png")
    assert eye.look()
    assert "30.png" in told.paths[-1] and "ahead.png" not in told.paths[-1]
    assert eye.look()
    assert "ahead.png" in told.paths[-1]
    assert not eye.look()


def test_what_a_folder_has_to_say_is_not_said_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "a").mkdir()
    write(folder / "b/1.png")
    eye = watch(folder, Told())
    caplog.clear()
    write(folder / "31.png")
    assert eye.look()
    assert not caplog.messages


def test_two_equal_images_that_move_together_keep_both_labels(folder: Path) -> None:
    (folder / "01.png").write_bytes((folder / "00.png").read_bytes())
    project = LabelProject.open(folder, ["a", "b"])
    numbers = {path: n for n, path in project.paths.items()}
    facts = {"annotator": "me", "action": "label", "round": 0, "source": "strategy"}
    said = {"00.png": 0, "01.png": 1}
    project.record([Action(image=numbers[p], label=y, **facts) for p, y in said.items()])
    project.close()
    (folder / "moved").mkdir()
    for name in said:
        (folder / name).rename(folder / "moved" / name)
    project = LabelProject.open(folder)
    found = {project.paths[n]: label for n, label in project.labels.items()}
    project.close()
    assert found == {"moved/00.png": 0, "moved/01.png": 1}


def test_the_learner_is_told_where_as_many_images_go_as_come(folder: Path) -> None:
    project = LabelProject.open(folder, ["a", "b"])
    service, setups = LabelService(project), []
    service.start(lambda *job: None, setups.append)
    for number in range(5):
        (folder / f"{number:02}.png").unlink()
        write(folder / f"new-{number}.png")
    Watch(folder, project.files, service.take_files, clock=lambda: LONG_AGO + 100).look()
    assert len(setups) == 1
