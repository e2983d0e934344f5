from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_server import write_images
from PIL import Image

from skal.core.errors import UsageError
from skal.label.learning import ComputedBatch, Guesses
from skal.label.project import LabelProject
from skal.label.service import LabelService
from skal.label.terminal import TerminalSession, colours_of, half_blocks

CLASSES = ["daisy", "rose", "rose hip"]


@pytest.fixture
def project(tmp_path: Path) -> LabelProject:
    write_images(tmp_path / "images", np.zeros((12, 6, 9), np.uint8))
    return LabelProject.open(tmp_path / "images", CLASSES, {"n_init": 10})


def press(
    project: LabelProject,
    keys: list[str],
    service: LabelService | None = None,
    typed: Sequence[str] = (),
    **options: Any,
) -> None:
    """Label by keys; the input ends behind the last."""
    left = iter(keys)

    def read_key() -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    answers = iter(typed)
    TerminalSession(
        service or LabelService(project),
        "me",
        read_key=read_key,
        prompt=lambda *_, **__: next(answers),
        **options,
    ).run()


def said(project: LabelProject) -> list[tuple[str, int | None]]:
    return [(action.action, action.label) for action in project.store.actions()]


def test_each_key_is_in_the_store(
    project: LabelProject, capsys: pytest.CaptureFixture[str]
) -> None:
    press(project, ["1", "3", " ", "u", "x", "\x7f", "2", "q", "1"])
    assert said(project) == [
        ("label", 0),
        ("label", 2),
        ("skip", None),
        ("unsure", None),
        ("bad", None),
        ("undo", None),
        ("label", 1),
    ]
    undone, again = project.store.actions()[4], project.store.actions()[6]
    assert undone.image == again.image
    out = capsys.readouterr().out
    assert "1 daisy   2 rose   3 rose hip" in out
    assert f"undone: {project.paths[undone.image]}" in out
    assert "(1 of 10, starting round; 0 labelled)" in out
    assert "\x1b" not in out


def test_keys_that_mean_nothing_change_nothing(
    project: LabelProject, capsys: pytest.CaptureFixture[str]
) -> None:
    press(project, ["0", "4", "9", "y", "?", "\x7f", "g"])
    assert said(project) == []
    out = capsys.readouterr().out
    assert "nothing to undo" in out
    assert "unknown key" in out


def test_a_class_can_be_typed(project: LabelProject, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["dai", "rose", "HIP", "ros", "tulip", ""]
    press(project, ["/"] * 6, typed=typed)
    assert said(project) == [("label", 0), ("label", 1), ("label", 2)]
    out = capsys.readouterr().out
    assert "classes that contain 'ros': rose, rose hip" in out
    assert "classes that contain 'tulip': none" in out


def project_of(place: Path, classes: Sequence[str], keys: Sequence[str] = ()) -> LabelProject:
    write_images(place / "images", np.zeros((20, 6, 9), np.uint8))
    project = LabelProject.open(place / "images", classes, {"n_init": 15})
    project.choose_keys(keys)
    return project


def test_classes_that_are_digits_own_their_keys(tmp_path: Path) -> None:
    project = project_of(tmp_path, [str(n) for n in range(10)])
    press(project, ["5", "0", "9", "q"])
    assert [project.classes[label or 0] for _, label in said(project)] == ["5", "0", "9"]


def test_no_class_is_without_a_key_while_there_are_digits(tmp_path: Path) -> None:
    project = project_of(tmp_path, ["cat", "one", "3", "4", "cow"], ["cat=2"])
    assert project.class_list.keys == ["2", "1", "3", "4", "5"]
    project.change_classes([], [], ["4"])
    assert project.class_list.keys == ["2", "1", "3", "4"]
    press(project, ["1", "4", "q"])
    assert said(project) == [("label", 1), ("label", 4)]  # by numbers, which stay


def test_a_name_that_begins_with_a_digit_is_typed(tmp_path: Path) -> None:
    project = project_of(tmp_path, ["1st", "2nd", "2", *"abcdefgh"])
    press(project, ["2", "2", "c", "q"], typed=["nd", ""])
    assert [project.classes[label or 0] for _, label in said(project)] == ["2nd", "2", "c"]


def test_a_command_whose_letter_is_a_class_s_takes_shift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = project_of(tmp_path, ["q", "daisy"], ["daisy=u"])
    press(project, ["q", "u", "U", "Q", "q"])
    assert said(project) == [("label", 0), ("label", 1), ("unsure", None)]
    out = capsys.readouterr().out
    assert "q q   u daisy\n" in out
    assert "U unsure   x bad image" in out and "Q quit" in out


def test_it_ends_when_nothing_is_left(
    project: LabelProject, capsys: pytest.CaptureFixture[str]
) -> None:
    press(project, [*"1" * 12, "\x7f", "2", "q"])  # the last one can be taken back
    assert len(project.labels) == 12
    assert said(project)[-3:] == [("label", 0), ("undo", None), ("label", 1)]
    told = "no images left to label; Backspace undoes the last answer\n"
    assert capsys.readouterr().out.endswith(told)


def test_a_guess_is_shown_on_demand_and_kept_with_the_answer(
    project: LabelProject, capsys: pytest.CaptureFixture[str]
) -> None:
    service = LabelService(project)
    images = np.array(sorted(project.paths))
    proba = np.tile(np.array([0.1, 0.8, 0.1], np.float32), (12, 1))
    service.take_batch(ComputedBatch([], "strategy", Guesses(images, proba, proba), [], 0.1))
    press(project, ["1", "g", "1", "q"], service, suggest=True)
    assert [action.guess for action in project.store.actions()] == [None, 1]
    out = capsys.readouterr().out
    assert out.count("prediction: rose (80%)") == 1
    press(project, ["g"], service)
    out = capsys.readouterr().out
    assert "80%" not in out
    assert "g prediction" not in out  # what is not there is not offered


def test_seconds_are_those_between_image_and_key(project: LabelProject) -> None:
    ticks = iter([10.0, 12.5, 20.0, 20.25, 30.0])
    press(project, ["1", "u"], clock=lambda: next(ticks))
    assert [action.seconds for action in project.store.actions()] == [2.5, 0.25]


def colours(text: str) -> list[list[tuple[int, ...]]]:
    """Read the pixels back from the characters, two rows of pixels a line."""
    rows = []
    for line in text.splitlines():
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line)
        assert line.endswith("\x1b[0m")
        rows.append([tuple(map(int, cell[:3])) for cell in cells])
        rows.append([tuple(map(int, cell[3:])) for cell in cells])
    return rows


def test_a_picture_has_two_pixels_a_character(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shown = colours(half_blocks(tmp_path / "a.png", (6, 4)))
    np.testing.assert_array_equal(shown, pixels)


@pytest.mark.parametrize(("size", "shape"), [((40, 20), (10, 20)), ((20, 40), (20, 10))])
def test_a_picture_fits_and_keeps_its_shape(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
    shown = np.array(colours(half_blocks(tmp_path / "a.png", (20, 10))))
    assert shown.shape == (*shape, 3)
    assert (shown == [1, 2, 3]).all()


def test_few_colours_are_taken_from_the_cube(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "a.png")
    assert "38;5;196;48;5;196" in half_blocks(tmp_path / "a.png", (2, 2), "256")


def test_the_picture_is_in_the_output_of_a_terminal_with_colour(
    project: LabelProject, capsys: pytest.CaptureFixture[str]
) -> None:
    press(project, ["q"], colour="full")
    assert "▀" in capsys.readouterr().out


def test_a_picture_that_cannot_be_drawn_is_told_and_can_be_answered(
    project: LabelProject, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in project.paths.values():
        Image.new("RGB", (64, 64)).save(project.root / path, "BMP")
        damaged = (project.root / path).read_bytes()[:300]
        (project.root / path).write_bytes(damaged)  # the size can be read, the pixels cannot
    press(project, ["x", " ", "q"], colour="full")
    assert said(project) == [("bad", None), ("skip", None)]
    assert "cannot draw the image: " in capsys.readouterr().out


def test_without_a_terminal_it_says_so(project: LabelProject) -> None:
    def missing() -> str:
        raise OSError(6, "No such device or address", "/dev/tty")

    session = TerminalSession(LabelService(project), "me", read_key=missing)
    with pytest.raises(UsageError, match="--terminal needs a terminal"):
        session.run()


def test_names_of_files_do_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "x", np.zeros((1, 4, 4), np.uint8), ["a\x1b[31mRED\x07.png"])
    press(LabelProject.open(tmp_path / "x", CLASSES), ["1", "\x7f", "q"])
    out = capsys.readouterr().out
    assert r"a\x1b[31mRED\x07.png" in out
    assert "\x1b" not in out


class Terminal:
    def __init__(self, is_one: bool) -> None:
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


@pytest.mark.parametrize(
    ("is_one", "environment", "expected"),
    [
        (True, {"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "full"),
        (True, {"TERM": "xterm-256color"}, "256"),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, ""),
        (True, {"TERM": "dumb"}, ""),
        (True, {}, ""),
        (False, {"TERM": "xterm", "COLORTERM": "truecolor"}, ""),
    ],
)
def test_colours_are_those_of_the_terminal(
    is_one: bool, environment: dict[str, str], expected: str
) -> None:
    assert colours_of(Terminal(is_one), environment) == expected
