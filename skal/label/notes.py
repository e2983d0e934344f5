"""What other tools note of images, as cleanlab and cleanvision do: never a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..core.text import counted, plain_text
from .store import NoteRow, Store

OF_ALL = -1
"""In place of an image: what the tool noted of this fault before holds no longer; "" of any."""

OF_LABELS = ("label", "class imbalance")
"""Faults of labels, which speak of the class; by the second cleanlab marks the rarest class."""


class Note(NamedTuple):
    """A fault that a tool finds in an image or its label; of scores the lowest is the worst."""

    tool: str
    fault: str
    score: float | None = None

    def __str__(self) -> str:
        score = "" if self.score is None else f" ({self.score:.2f})"
        return plain_text(f"{self.tool}: {self.fault}{score}")


class Notes:
    """The fold over all that is noted in a store, as of the last `refresh`: of each tool what was
    imported last. `by_image` has what is noted of each image of which anything is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last_id = 0
        self.by_image: Mapping[int, Sequence[Note]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what was noted since, by this process or another."""
        last = self._store.last_note()
        if last != self._last_id:
            self._last_id, self.by_image = last, _folded(self._store.notes())

    def of(self, image: int, *, of_label: bool = True) -> str:
        """Return what is noted of an image in one line, "" for nothing; `of_label` not before it
        is answered, for that would tell what others think.
        """
        notes = self.by_image.get(image, ())
        return "; ".join(
            str(note) for note in notes if of_label or _kind(note.fault) not in OF_LABELS
        )

    def told(self) -> dict[int, str]:
        """Return what `of` does of each image of which anything is noted."""
        return {image: self.of(image) for image in self.by_image}

    def worst(self) -> dict[int, float]:
        """Return the lowest score of each image of which anything is noted, 1 where none is."""
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
    """Return the name of a fault as it is shown."""
    return fault.replace("_", " ")


def _kind(fault: str) -> str:
    """Return which fault it is, without what else is said of it."""
    return fault.partition(",")[0]


def replace_notes(
    store: Store, tool: str, faults: Collection[str], notes: Mapping[int, Sequence[Note]]
) -> str:
    """Write which images a tool finds some faults in, in place of those in which it found these
    before, and say how many, and of how many that `notes` do not name any is gone.
    """
    kinds_now = {_kind(fault) for fault in faults}
    n_lost = sum(
        image not in notes
        and any(note.tool == tool and _kind(note.fault) in kinds_now for note in own)
        for image, own in Notes(store).by_image.items()
    )
    rows = [NoteRow(tool, n, note.fault, note.score) for n, own in notes.items() for note in own]
    store.add_notes([*(NoteRow(tool, OF_ALL, fault, None) for fault in faults), *rows])
    kinds = Counter(_kind(row.fault) for row in rows)
    told = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    n_noted = sum(map(bool, notes.values()))
    lost = (
        f"; it names {counted(n_lost, 'image')} no more, whose notes of this are gone"
        if n_lost
        else ""
    )
    images = counted(len(notes), "image")
    return f"{tool} notes something of {n_noted} of {images}{told and f' ({told})'}{lost}"
