"""Why an image is shown, told from what is recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from skal.label.learning import Guesses
from skal.label.store import BatchRow
from skal.label.telling import NEIGHBOURS, evidence, why
from skal.runs.config import RunConfig

CONFIG = RunConfig(strategy="margin", init_strategy="herding")
SAID = "; the model is undecided between two classes"
NAMES = ("daisy", "rose", "tulip")


def guesses(*proba: float) -> Guesses:
    """Of forty images on a line; the network says the same of all."""
    images = np.arange(100, 140)
    columns = np.tile(np.array(proba, np.float32), (40, 1))
    return Guesses(images, columns, images[:, None].astype(np.float32), 10, "x")


def row(kind: str) -> BatchRow:
    return BatchRow(3, 0, 120, kind, False)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("start", "Picked before there is a model (herding)."),
        ("strategy", f"Picked by the strategy (margin){SAID}."),
        ("doubt", f"Shown while the next batch is computed{SAID}."),
        ("chance", "Drawn at random while the next batch is computed."),
        ("test", "Drawn at random to measure accuracy."),
    ],
)
def test_each_kind_of_image_says_why_it_is_shown(kind: str, told: str) -> None:
    project: Any = SimpleNamespace(config=CONFIG, guesses=guesses(0.1, 0.5, 0.4), labels={121: 0})
    assert why(project, row(kind)) == told


def test_classes_are_named_only_where_that_is_asked_for() -> None:
    unsure = guesses(0.1, 0.41, 0.49)
    assert evidence(unsure, 120, {120 + 1}) == ["the model is undecided between two classes"]
    asked = evidence(unsure, 120, {120 + 1}, NAMES)
    assert asked == ["the model is undecided between tulip and rose"]


def test_a_sure_network_is_not_called_undecided() -> None:
    assert evidence(guesses(0.1, 0.3, 0.6), 120, {121}, NAMES) == []


def test_a_region_is_without_labels_if_none_of_the_most_similar_images_has_one() -> None:
    sure, half = guesses(0.0, 1.0, 0.0), NEIGHBOURS // 2
    assert evidence(sure, 120, {120 + half, 139}) == []
    assert evidence(sure, 120, {120, 139, 100}) == ["no similar image has a label yet"]


def test_while_there_is_no_network_only_likeness_is_told() -> None:
    assert evidence(guesses(), 120, {139}) == ["no similar image has a label yet"]
    assert evidence(guesses(), 7, {139}) == []  # unknown to it
