"""Names of classes, annotators and files: which are valid, and how they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ..core.errors import ParameterError, UsageError
from ..core.text import plain_text
from ..datasets.layout import is_unlabeled

_FORMULA = re.compile(r"'*[=+\-@]")
LONGEST_CLASS = 100
LONGEST_NAME = 64


def check_classes(names: Iterable[str]) -> list[str]:
    """Return names of classes without surrounding space.

    Raise a UsageError if one is empty, too long, repeated, or cannot be a folder's name.
    """
    result: list[str] = []
    for given in names:
        name = unicodedata.normalize("NFC", given.strip())
        problem = None
        if not name or len(name) > LONGEST_CLASS:
            problem = f"has {len(name)} characters; expected 1 to {LONGEST_CLASS}"
        elif name[0] == "." or any(c in "/\\" or not c.isprintable() for c in name):
            problem = "cannot be a folder's name; expected no slash and no leading dot"
        elif is_unlabeled(name):
            problem = "is the name of the folder for unlabelled images; choose another name"
        elif alike := [other for other in result if other.casefold() == name.casefold()]:
            differs = f"differs from {alike[0]!r} only in case"
            problem = "is named twice" if name in alike else differs
        if problem:
            raise UsageError(f"the class {name!r} {problem}")
        result.append(name)
    return result


def check_annotator(name: str) -> str:
    """Check that the name of an annotator is not empty, not too long, and printable."""
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ParameterError(
            f"as: got {name[:LONGEST_NAME]!r}; expected 1 to {LONGEST_NAME} printable characters"
        )
    return name


def told_apart(paths: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return paths by their `plain_text`, and the paths that share one."""
    by_text: dict[str, str] = {}
    alike: dict[str, list[str]] = {}
    for path in paths:
        text = plain_text(path)
        if by_text.setdefault(text, path) != path:
            alike.setdefault(text, [by_text[text]]).append(path)
    return by_text, alike


def guarded(text: str) -> str:
    """Return a cell of a table that spreadsheets do not execute as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Return a cell as it was before `guarded`."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text[1:]) else text
