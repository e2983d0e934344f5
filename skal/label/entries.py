"""What is read from a file of labels, before any of it is written."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..core.errors import DataError, UnknownNameError
from .names import LONGEST_NAME, plain_text
from .project import LabelProject

IMPORT = "import"


@dataclass(frozen=True)
class Entry:
    """One verdict, and where it stands in its file."""

    where: str
    image: int
    action: str
    label: int | None
    annotator: str
    source: str = IMPORT
    seconds: float | None = None


class Reading:
    """A file that is read: finds the images that it means, and remembers which there are not.

    It is called `name` in errors; labels are of `annotator` where it does not say whose.
    """

    def __init__(self, project: LabelProject, name: str, annotator: str) -> None:
        self.project, self.name, self.annotator = project, name, annotator
        self._by_path = {plain_text(path): n for n, path in project.paths.items()}
        self._unknown: list[str] = []

    def image_at(self, where: str, path: str) -> int | None:
        number = self._by_path.get(self._relative(path))
        if number is None:
            self._unknown.append(f"{where}: {path!r}")
        return number

    def image_named(self, where: str, name: str) -> int | None:
        """Return the number of the only image of a file's name."""
        names = {n: PurePosixPath(path).name for path, n in self._by_path.items()}
        found = [n for n, own in names.items() if own == name]
        found = found or [n for n, own in names.items() if _as_uploaded(own) == name]
        if len(found) != 1:
            self._unknown.append(f"{where}: {name!r}{' (there are several)' if found else ''}")
            return None
        return found[0]

    def _relative(self, text: str) -> str:
        path = PurePosixPath(plain_text(text))
        root = self.project.root.resolve().as_posix()
        if path.is_absolute() and path.is_relative_to(root):
            path = path.relative_to(root)
        text = str(path)
        return text if text in self._by_path else unicodedata.normalize("NFC", text)

    def class_id(self, where: str, name: str) -> int:
        try:
            return self.project.class_id(name)
        except UnknownNameError as error:
            raise DataError(f"{where}: {error}") from error

    def check(self) -> None:
        """Raise a DataError if an image was not found."""
        if self._unknown:
            rest = len(self._unknown) - 1
            more = f", and {rest} more that are not there" if rest else ""
            raise DataError(
                f"{self.name}, {self._unknown[0]} is no image of {str(self.project.root)!r}{more}"
            )


def _as_uploaded(name: str) -> str:
    """Return what Label Studio, or Django beneath it, makes of the name of a file."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def short_name(name: str) -> str:
    """Return a name of an annotator that is not too long, another for another."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"
