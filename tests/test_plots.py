from __future__ import annotations

import io

import pytest
from PIL import Image

from skal.plots import learning_curve

ROUNDS = [{"n_labeled": 20 * (i + 1), "accuracy": 0.3 + 0.2 * i} for i in range(3)]


def test_a_curve_is_a_png_and_an_svg_with_its_words() -> None:
    pictures = learning_curve(ROUNDS, "digits: badge")
    assert Image.open(io.BytesIO(pictures["png"])).size == (960, 630)
    assert pictures["svg"].startswith(b"<?xml")
    for text in (b"digits: badge", b"labelled images", b"test accuracy", b"0.700"):
        assert text in pictures["svg"]


def test_equal_rounds_give_equal_files() -> None:
    assert learning_curve(ROUNDS, "a") == learning_curve(ROUNDS, "a")
    assert learning_curve(ROUNDS, "a") != learning_curve(ROUNDS[:2], "a")


def test_one_round_can_be_drawn() -> None:
    assert b"0.300" in learning_curve(ROUNDS[:1], "one round")["svg"]


@pytest.mark.parametrize("name", ["$x^", "a_b$\\frac", "写真", "caf\udce9", "<&>", ""])
def test_any_name_of_a_folder_can_stand_above(name: str) -> None:
    pictures = learning_curve(ROUNDS, name)
    assert set(pictures) == {"png", "svg"}
    pictures["svg"].decode()
