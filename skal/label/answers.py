"""Checks of what a page says of images, before any of it is written."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from ..core.errors import ParameterError
from .store import ANSWERS

LONGEST_KEY = 100
MOST_SECONDS = 1e9


class Said(NamedTuple):
    """A valid answer."""

    action: str
    image: int
    label: int | None
    guess: int | None
    seconds: float | None


def check_answer(answer: Mapping[str, Any], images: Container[int], n_classes: int) -> Said:
    """Check one answer, see `LabelService.act`, about one of some images; a ParameterError tells
    what is not valid.
    """
    action, image = answer.get("action"), answer.get("image")
    if action not in ANSWERS:
        raise ParameterError(f"action: got {action!r:.50}; expected {', '.join(ANSWERS)}")
    if not _is_whole(image) or image not in images:
        raise ParameterError(f"image: there is no image {image!r:.50}")
    values = {name: answer.get(name) for name in ("label", "guess")}
    for name, value in values.items():
        if value is not None and not (_is_whole(value) and 0 <= value < n_classes):
            raise ParameterError(f"{name}: got {value!r:.50}; expected the id of a class")
    if (values["label"] is None) is (action == "label"):
        raise ParameterError("label: expected the id of a class only for the action label")
    seconds = _check_seconds(answer.get("seconds"))
    return Said(str(action), image, values["label"], values["guess"], seconds)


def _check_seconds(seconds: Any) -> float | None:
    if seconds is None:
        return None
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 0 <= seconds < MOST_SECONDS):
        raise ParameterError(f"seconds: got {seconds!r:.50}; expected a number, 0 or more")
    return round(float(seconds), 3)


def check_key(key: Any) -> str | None:
    """Check the key of a request, if it has one: text that is not too long."""
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= LONGEST_KEY):
        raise ParameterError(f"key: expected text of up to {LONGEST_KEY} characters")
    return key


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
