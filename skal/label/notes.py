"""Notes of other tools on images, such as cleanlab and cleanvision; these are not labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..core.text import counted, plain_text
from .store import NoteRow, Store

OF_ALL = -1
"""Instead of an image: drops the tool's earlier notes of this fault, or of all for ""."""

OF_LABELS = ("label", "class imbalance")
"""Faults that reveal the class; by the second, cleanlab marks the rarest class."""


class Note(NamedTuple):
    """A fault that a tool finds in an image or its label; low scores are bad."""

    tool: str
    fault: str
    score: float | None = None

    def __str__(self) -> str:
        score = "" if self.score is None else f" ({self.score:.2f})"
        return plain_text(f"{self.tool}: {self.fault}{score}")


class Notes:
    """The fold over the notes in a store: those that were last imported of each tool and fault.

    `by_image` has the notes of each image with any, as of the last `refresh`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last_id = 0
        self.by_image: Mapping[int, Sequence[Note]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read notes written since, by this process or another."""
        last = self._store.last_note()
        if last != self._last_id:
            self._last_id, self.by_image = last, _folded(self._store.notes())

    def of(self, image: int, *, of_label: bool = True) -> str:
        """Return the notes on an image in one line, "" for none.

        Use `of_label` only for answered images, because notes on labels reveal others' answers.
        """
        notes = self.by_image.get(image, ())
        return "; ".join(
            str(note) for note in notes if of_label or _kind(note.fault) not in OF_LABELS
        )

    def told(self) -> dict[int, str]:
        """Return the notes on each image with any, as from `of`."""
        return {image: self.of(image) for image in self.by_image}

    def worst(self) -> dict[int, float]:
        """Return the lowest score of each image with notes; 1 without a score."""
        return {
            image: min(1.0 if note.score is None else note.score for note in notes)
            for image, notes in self.by_image.items()
        }


def _folded(rows: Sequence[NoteRow]) -> dict[int, list[Note]]:
    begun = {(row.tool, row.fault): n for n, row in enumerate(rows) if row.image == OF_ALL}
    found: dict[int, list[Note]] = {}
    for n, row in enumerate(rows):
        starts = (begun.get((row.tool, kind), -1) for kind in ("", _kind(row.fault)))
        if n > max(starts):
            found.setdefault(row.image, []).append(Note(row.tool, row.fault, row.score))
    return found


def in_words(fault: str) -> str:
    """Return the name of a fault as shown to people."""
    return fault.replace("_", " ")


def _kind(fault: str) -> str:
    """Return the kind of a fault, without details after the comma."""
    return fault.partition(",")[0]


def replace_notes(
    store: Store, tool: str, faults: Collection[str], notes: Mapping[int, Sequence[Note]]
) -> str:
    """Replace a tool's notes of some faults, and return a message with the counts."""
    kinds_now = {_kind(fault) for fault in faults}
    n_lost = sum(
        image not in notes
        and any(note.tool == tool and _kind(note.fault) in kinds_now for note in own)
        for image, own in Notes(store).by_image.items()
    )
    rows = [NoteRow(tool, n, note.fault, note.score) for n, own in notes.items() for note in own]
    store.add_notes([*(NoteRow(tool, OF_ALL, fault, None) for fault in faults), *rows])
    kinds = Counter(_kind(row.fault) for row in rows)
    counts = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    n_noted = sum(map(bool, notes.values()))
    lost = (
        f"; the notes of {counted(n_lost, 'image')} not in the file were removed" if n_lost else ""
    )
    images = counted(len(notes), "image")
    return f"{tool}: {n_noted} of {images} with notes{counts and f' ({counts})'}{lost}"
