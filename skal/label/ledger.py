"""The current state of labels and batches: folds over the rows of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .store import Action, BatchRow

TEST = "test"
"""Source of labels of the test set, which train no network while labelling continues."""
GRID = "grid"
"""Source of labels given in the grid to images outside batches."""
SETTLED = "settled"
"""Source of answers that settle a dispute."""
OTHER = "other"
"""Source of labels given elsewhere to images outside batches."""


@dataclass
class Ledger:
    """The fold over all actions.

    Labels of removed classes are ignored. The answer for an image is the last one that settled a
    dispute; else "bad" if anyone said so; else the majority label, in a tie the latest; else
    "unsure".

    By image, `labels` has the action whose label counts, `aside` has "unsure" or "bad", and
    `first_sources` has the source of the first action ever, even if undone. `disputed` are images
    with different labels that nobody has settled. `n_answered` has the number of images answered by
    each annotator.
    """

    labels: dict[int, Action] = field(default_factory=dict)
    aside: dict[int, str] = field(default_factory=dict)
    first_sources: dict[int, str] = field(default_factory=dict)
    last_id: int = 0
    disputed: set[int] = field(default_factory=set)
    n_answered: Counter[str] = field(default_factory=Counter)
    _stacks: dict[int, dict[str, list[Action]]] = field(default_factory=dict)
    _history: dict[str, list[Action]] = field(default_factory=dict)

    def apply(self, action: Action) -> None:
        self.last_id = action.id
        self.first_sources.setdefault(action.image, action.source)
        stack = self._stacks.setdefault(action.image, {}).setdefault(action.annotator, [])
        history = self._history.setdefault(action.annotator, [])
        did_say = _says(stack)
        if action.action == "undo":
            stack[:] = [other for other in stack if other.id != action.undoes]
            history[:] = [other for other in history if other.id != action.undoes]
        elif action.action == "label" and action.label is None:  # its class was removed
            gone = {other.id for other in stack}
            history[:] = [other for other in history if other.id not in gone]
            stack.clear()
        else:
            stack.append(action)
            if action.round is not None:  # imported labels cannot be undone
                history.append(action)
        self.n_answered[action.annotator] += _says(stack) - did_say
        self._settle(action.image)

    def _settle(self, image: int) -> None:
        said = self.verdicts(image).values()
        given = [action for action in said if action.action == "label"]
        kinds = {action.action for action in said}
        self.labels.pop(image, None)
        self.aside.pop(image, None)
        self.disputed.discard(image)
        settled = [action for action in said if action.source == SETTLED]
        if settled:
            last = max(settled, key=lambda action: action.id)
            given, kinds = [last] if last.action == "label" else [], {last.action}
        elif len({action.label for action in given}) > 1:
            self.disputed.add(image)
        if "bad" in kinds:
            self.aside[image] = "bad"
        elif given:
            votes = Counter(a.label for a in given)
            self.labels[image] = max(given, key=lambda a: (votes[a.label], a.id))
        elif "unsure" in kinds:
            self.aside[image] = "unsure"

    def verdicts(self, image: int) -> Mapping[str, Action]:
        """Return each annotator's current answer for an image, without skips."""
        stacks = self._stacks.get(image, {})
        return {who: stack[-1] for who, stack in stacks.items() if _says(stack)}

    def votes(self, image: int) -> dict[str, int]:
        """Return each annotator's own label of an image, without labels that settle disputes."""
        found = {}
        for who, stack in self._stacks.get(image, {}).items():
            own = [action for action in stack if action.source != SETTLED]
            if _says(own) and own[-1].label is not None:
                found[who] = own[-1].label
        return found

    def skips(self, image: int, annotator: str | None = None) -> int:
        """Return how often an image was skipped, by one annotator or by all."""
        stacks = self._stacks.get(image, {}).items()
        chosen = (action for who, s in stacks if annotator in (None, who) for action in s)
        return sum(action.action == "skip" for action in chosen)

    def is_touched(self, image: int) -> bool:
        return any(self._stacks.get(image, {}).values())

    def is_settled(self, image: int) -> bool:
        return image in self.labels or image in self.aside

    def settled(self) -> dict[int, Action]:
        """Return the answer of each settled image: its label, or the latest that set it aside."""
        aside = {n: max(self.verdicts(n).values(), key=lambda a: a.id) for n in self.aside}
        return {**self.labels, **aside}

    def latest(self, annotator: str) -> list[Action]:
        """Return the actions of an annotator's last request, which an undo takes back."""
        history = self._history.get(annotator, [])
        if not history or history[-1].request is None:
            return history[-1:]
        return [action for action in history if action.request == history[-1].request]

    def standing(self, actions: Iterable[Action]) -> list[Action]:
        """Return those of some actions that were not undone."""
        stacks = self._stacks
        return [a for a in actions if a in stacks.get(a.image, {}).get(a.annotator, ())]

    def recent(self, annotator: str, n: int) -> list[Action]:
        """Return an annotator's last answers that were not undone, one per image, latest first."""
        found: dict[int, Action] = {}
        for action in reversed(self._history.get(annotator, [])):
            if len(found) >= n:
                break
            found.setdefault(action.image, action)
        return list(found.values())

    def n_votes(self, image: int, label: int) -> int:
        """Return how often an image was given a label, without undone actions."""
        stacks = self._stacks.get(image, {}).values()
        return sum(action.label == label for stack in stacks for action in stack)

    def n_done(self, annotator: str) -> int:
        """Return the number of an annotator's actions, without undone and imported ones."""
        return len(self._history.get(annotator, []))

    def annotators(self) -> list[str]:
        """Return the names of all annotators with an action that was not undone."""
        return sorted({who for stacks in self._stacks.values() for who, s in stacks.items() if s})

    def images(self) -> list[int]:
        """Return the images with any action that was not undone, sorted."""
        return sorted(image for image in self._stacks if self.is_touched(image))


class Known(NamedTuple):
    """The current labels by image: all, those of the test set, and the others.

    They are never modified, so that an earlier object shows what has changed since.
    """

    labels: Mapping[int, int]
    test: Mapping[int, int]
    training: Mapping[int, int]

    @classmethod
    def of(cls, labels: Mapping[int, int], is_test: Callable[[int], bool]) -> Known:
        test = {image: label for image, label in labels.items() if is_test(image)}
        training = {image: label for image, label in labels.items() if image not in test}
        return cls(labels, test, training)

    def after(
        self, news: Iterable[tuple[int, int | None]], is_test: Callable[[int], bool]
    ) -> Known:
        """Return the labels after an update of some images to new labels, or None for no label.

        The result equals that of `of`, including the order, in the time of a copy.
        """
        parts = labels, test, training = dict(self.labels), dict(self.test), dict(self.training)
        for image, label in news:
            for part in parts:
                part.pop(image, None)
            if label is not None:
                labels[image] = label
                (test if is_test(image) else training)[image] = label
        return Known(*parts)


def _says(stack: Sequence[Action]) -> bool:
    return bool(stack) and stack[-1].action != "skip"


class BatchIndex:
    """The fold over the images of all batches, in the order in which they are shown.

    `wanting` are images that one annotator has answered and a second one should see; `from_grid`
    are images outside batches with an answer given in the grid.
    """

    def __init__(self) -> None:
        self.rows: list[BatchRow] = []
        self.by_image: dict[int, BatchRow] = {}
        self.by_round: dict[int, list[BatchRow]] = {}
        self.n_tests = 0
        self.wanting: dict[int, BatchRow] = {}
        self.from_grid: set[int] = set()
        self._unfinished: set[int] = set()

    def take(self, rows: Sequence[BatchRow]) -> None:
        self.rows.extend(rows)
        self.n_tests += sum(row.kind == TEST for row in rows)
        for row in rows:
            self.by_image[row.image] = row
            self.by_round.setdefault(row.round, []).append(row)
            self._unfinished.add(row.round)

    def follow(self, image: int, verdicts: Mapping[str, Action]) -> None:
        """Update the index after an answer for an image, or its undo."""
        row = self.by_image.get(image)
        if row is None:
            is_of_grid = any(action.source == GRID for action in verdicts.values())
            (self.from_grid.add if is_of_grid else self.from_grid.discard)(image)
            return
        self._unfinished.add(row.round)  # so that its round is searched again
        if row.shared and len(verdicts) == 1:
            self.wanting[image] = row
        else:
            self.wanting.pop(image, None)

    def round_of(self, image: int) -> int | None:
        row = self.by_image.get(image)
        return row and row.round

    @property
    def last_round(self) -> int:
        """The number of the last round; -1 while there is no batch."""
        return self.rows[-1].round if self.rows else -1

    def unfinished(self) -> list[list[BatchRow]]:
        """Return the batches that may have images to show, to avoid searching thousands."""
        return [self.by_round[number] for number in sorted(self._unfinished)]

    def prune(self, is_done: Callable[[int], bool]) -> None:
        """Skip batches whose images are all done, except the last two, until one is undone."""
        old = {number for number in self._unfinished if number < self.last_round - 1}
        self._unfinished -= {n for n in old if all(is_done(r.image) for r in self.by_round[n])}
