"""What holds now: folds over what the store has written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .store import Action, BatchRow

TEST = "test"
"""Source of a label that no network is trained on while labelling continues."""
GRID = "grid"
"""Source of a label that was given in the grid to an image of no batch."""
SETTLED = "settled"
"""Source of an answer that ends a dispute."""
OTHER = "other"
"""Source of a label that was given to any other image of no batch."""


@dataclass
class Ledger:
    """The fold over all actions.

    Who gave an image a label whose class was removed says nothing of it. Where a dispute was
    settled, the last answer that did so holds. Else of several annotators' labels of an image that
    of most of them holds, of as many the one that was given last. An image that anyone calls bad is
    bad; one that somebody labels is labelled, whoever else is unsure. By image it knows the action
    whose label holds (`labels`), "unsure" or "bad" (`aside`), and the source of the first thing
    that was ever said, also if it was taken back (`first_sources`). `disputed` are images that
    people label differently, and nobody has settled; `n_answered` is by annotator the number of
    images that they say something of.
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
        elif action.action == "label" and action.label is None:  # a class that was removed
            gone = {other.id for other in stack}
            history[:] = [other for other in history if other.id not in gone]
            stack.clear()
        else:
            stack.append(action)
            if action.round is not None:  # what was imported, nobody takes back by a key
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
        """Return what each annotator says of an image now; one who skipped it says nothing."""
        stacks = self._stacks.get(image, {})
        return {who: stack[-1] for who, stack in stacks.items() if _says(stack)}

    def votes(self, image: int) -> dict[str, int]:
        """Return the label that each annotator gave an image, unasked by others' disputes."""
        found = {}
        for who, stack in self._stacks.get(image, {}).items():
            own = [action for action in stack if action.source != SETTLED]
            if _says(own) and own[-1].label is not None:
                found[who] = own[-1].label
        return found

    def skips(self, image: int, annotator: str | None = None) -> int:
        """Return how often an image was skipped, by one annotator or by all together."""
        stacks = self._stacks.get(image, {}).items()
        chosen = (action for who, s in stacks if annotator in (None, who) for action in s)
        return sum(action.action == "skip" for action in chosen)

    def is_touched(self, image: int) -> bool:
        return any(self._stacks.get(image, {}).values())

    def is_settled(self, image: int) -> bool:
        return image in self.labels or image in self.aside

    def latest(self, annotator: str) -> list[Action]:
        """Return the actions that an undo takes back: those of an annotator's last request."""
        history = self._history.get(annotator, [])
        if not history or history[-1].request is None:
            return history[-1:]
        return [action for action in history if action.request == history[-1].request]

    def standing(self, actions: Iterable[Action]) -> list[Action]:
        """Return those of some actions that nobody took back."""
        stacks = self._stacks
        return [a for a in actions if a in stacks.get(a.image, {}).get(a.annotator, ())]

    def recent(self, annotator: str, n: int) -> list[Action]:
        """Return the last answers of an annotator that stand, one an image, the latest first."""
        found: dict[int, Action] = {}
        for action in reversed(self._history.get(annotator, [])):
            if len(found) >= n:
                break
            found.setdefault(action.image, action)
        return list(found.values())

    def n_votes(self, image: int, label: int) -> int:
        """Return how often somebody gave an image a label, as far as that stands."""
        stacks = self._stacks.get(image, {}).values()
        return sum(action.label == label for stack in stacks for action in stack)

    def n_done(self, annotator: str) -> int:
        """Return how many actions of an annotator stand, without those imported."""
        return len(self._history.get(annotator, []))

    def annotators(self) -> list[str]:
        """Return the names of all who have said anything that still stands."""
        return sorted({who for stacks in self._stacks.values() for who, s in stacks.items() if s})

    def images(self) -> list[int]:
        """Return the images of which anything is said, in order."""
        return sorted(image for image in self._stacks if self.is_touched(image))


class Known(NamedTuple):
    """The labels that hold, by image: all, those of the test, and the others.

    They stay as they are: whoever keeps them may see by that what has changed since.
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
        """Return what holds after something was said of images: their labels are these, or none.

        It is what `of` would return, in its order, in the time of a copy.
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

    `wanting` are images that one annotator has answered and another one is to see, too; `from_grid`
    those of no batch with an answer that was given in the grid.
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
        """Note what follows from something that was said of an image, or taken back."""
        row = self.by_image.get(image)
        if row is None:
            is_of_grid = any(action.source == GRID for action in verdicts.values())
            (self.from_grid.add if is_of_grid else self.from_grid.discard)(image)
            return
        self._unfinished.add(row.round)  # so that its round is looked at again
        if row.shared and len(verdicts) == 1:
            self.wanting[image] = row
        else:
            self.wanting.pop(image, None)

    def round_of(self, image: int) -> int | None:
        row = self.by_image.get(image)
        return row and row.round

    @property
    def last_round(self) -> int:
        """-1 while there is no batch."""
        return self.rows[-1].round if self.rows else -1

    def unfinished(self) -> list[list[BatchRow]]:
        """Return the batches that may have images to show, so that thousands are not searched."""
        return [self.by_round[number] for number in sorted(self._unfinished)]

    def prune(self, is_done: Callable[[int], bool]) -> None:
        """Pass over batches, but the last two, whose images are all done, until one is undone."""
        old = {number for number in self._unfinished if number < self.last_round - 1}
        self._unfinished -= {n for n in old if all(is_done(r.image) for r in self.by_round[n])}
