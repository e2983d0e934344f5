"""Validation of answers that people give."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from ..core.errors import ParameterError
from .ledger import OTHER, SETTLED
from .store import ANSWERS, Action

LONGEST_KEY = 100
MOST_SECONDS = 1e9


def check_answer(
    who: str, answer: Mapping[str, Any], images: Container[int], ids: Mapping[int, int]
) -> Action:
    """Validate one answer (see `LabelService.act`) and return it as an action.

    `images` are the valid images, and `ids` the ids of classes by number. The action's source says
    whether the answer `settles` a dispute.
    """
    action: Any = answer.get("action")
    image: Any = answer.get("image")
    if action not in ANSWERS:
        raise ParameterError(f"action: got {action!r:.50}; expected {', '.join(ANSWERS)}")
    if not is_whole(image) or image not in images:
        raise ParameterError(f"image: there is no image {image!r:.50}")
    label, guess, seconds = (answer.get(name) for name in ("label", "guess", "seconds"))
    for name, value in (("label", label), ("guess", guess)):
        if value is not None and not (is_whole(value) and value in ids):
            raise ParameterError(f"{name}: got {value!r:.50}; expected an existing class")
    if (label is None) is (action == "label"):
        raise ParameterError("label: expected a class if the action is label, else none")
    if seconds is not None:
        is_number = isinstance(seconds, float) or is_whole(seconds)
        if not (is_number and 0 <= seconds < MOST_SECONDS):
            raise ParameterError(f"seconds: got {seconds!r:.50}; expected a non-negative number")
        seconds = round(float(seconds), 3)
    label, guess = (None if n is None else ids[n] for n in (label, guess))
    settles = answer.get("settles", False)
    if not isinstance(settles, bool):
        raise ParameterError(f"settles: got {settles!r:.50}; expected true or false")
    source = SETTLED if settles else OTHER
    return Action(who, str(action), image, label, seconds, source=source, guess=guess)


def check_key(key: Any) -> str | None:
    """Validate the key of a request, if it has one."""
    if key is None:
        return None
    # isprintable also excludes lone surrogates
    if not (isinstance(key, str) and key.isprintable() and 0 < len(key) <= LONGEST_KEY):
        raise ParameterError(f"key: expected 1 to {LONGEST_KEY} printable characters")
    return key


def is_whole(value: Any) -> bool:
    """Return whether a JSON value is an integer (true is not, though it is an int in Python)."""
    return isinstance(value, int) and not isinstance(value, bool)
