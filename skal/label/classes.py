"""The classes of a project: their present and former names, and their keys."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import UnknownNameError, UsageError
from .names import check_classes

_log = logging.getLogger("skal")

DIGITS = "123456789"
"""Keys of the first classes, unless these have keys of their own."""
COMMANDS = frozenset(" /?")
"""Keys that cannot be a class's, because their commands have no other key."""


class Classes:
    """The classes, from the rows of the store.

    `named` are pairs of number and name, oldest first; the last name of a number counts. An empty
    name removes the class. Numbers with the same name are one class, that of the number which had
    the name first. `chosen` are custom keys by number.

    A class's id is its index in `names` and may change; its number never changes. `numbers` has the
    number of each id, `ids` the id of each number that is not removed, and `by_name` the id by all
    present and former names.
    """

    def __init__(
        self, named: Iterable[tuple[int, str]] = (), chosen: Mapping[int, str] | None = None
    ) -> None:
        self._rows = list(named)
        self._latest = dict(self._rows)
        names = set(self._latest.values()) - {""}
        first: dict[str, int] = {}
        for number, name in self._rows:
            if self._latest[number] == name and name in names:
                first.setdefault(name, number)
        self.numbers = sorted(first.values())
        self.names = [self._latest[number] for number in self.numbers]
        of_name = {name: n for n, name in enumerate(self.names)}
        self.ids = {number: of_name[name] for number, name in self._latest.items() if name}
        known = ((name, self.ids.get(number)) for number, name in self._rows if name)
        self.by_name = {name: n for name, n in known if n is not None} | of_name
        self.chosen = {
            self.ids[n]: key for n, key in (chosen or {}).items() if n in self.ids and key
        }
        self.keys = keys_of(self.names, self.chosen)

    def described(self) -> list[dict[str, Any]]:
        """Return the classes as the page shows them, identified by number."""
        listed = enumerate(zip(self.numbers, self.names, self.keys, strict=True))
        return [
            {"id": number, "name": name, "key": key, "chosen": self.chosen.get(n, "")}
            for n, (number, name, key) in listed
        ]

    def number_of(self, n: int | None) -> int | None:
        """Return the number of a class by its id; None for None."""
        return None if n is None else self.numbers[n]

    def knows(self, number: int | None) -> bool:
        """Return whether a class has or had this number."""
        return number is None or number in self._latest

    def numbered(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """Return the rows that add classes."""
        return list(enumerate(names, max(self._latest, default=-1) + 1))

    def to_add(self, names: Sequence[str]) -> list[str]:
        """Return the names that no class has or had, checked against the existing classes."""
        for name in names:
            if name not in self.names and name in self.by_name:
                now = self.names[self.by_name[name]]
                _log.warning("the class %r was renamed to %r; no class was added", name, now)
        new = [name for name in names if name not in self.by_name]
        check_classes([*self.names, *new])
        return new

    def id_of(self, name: str, *, today: bool = False) -> int:
        """Return the id of a class by its present or, unless `today`, a former name.

        Raise an UnknownNameError if there is none.
        """
        name = unicodedata.normalize("NFC", name)
        if name not in (self.names if today else self.by_name):
            raise UnknownNameError("class", name, self.names, "; --classes adds new ones")
        return self.by_name[name]

    def id_of_number(self, number: int) -> int:
        if number not in self.ids:
            raise UsageError(f"there is no class with the number {number!r:.20}, or it was removed")
        return self.ids[number]

    def renamed(self, n: int, name: str) -> list[tuple[int, str]]:
        """Return the rows that rename a class; the name must be free."""
        (name,) = check_classes([name])
        check_classes([*(c for other, c in enumerate(self.names) if other != n), name])
        return self._rows_of(n, name)

    def merged(self, number: int, other: int | None) -> list[tuple[int, str]]:
        """Return the rows that merge a class, by number, into another, or remove it for None."""
        n = self.id_of_number(number)
        into = None if other is None else self.id_of_number(other)
        if n == into:
            raise UsageError(f"cannot merge the class {self.names[n]!r} into itself")
        if len(self.names) < 3:
            raise UsageError(
                f"cannot merge or remove one of {len(self.names)} classes: two must remain; first "
                "add others with --classes"
            )
        return self._rows_of(n, "" if into is None else self.names[into])

    def _rows_of(self, n: int, name: str) -> list[tuple[int, str]]:
        """Return rows for all numbers of a class, that of its own number first."""
        others = [
            number for number, of in self.ids.items() if of == n and number != self.numbers[n]
        ]
        return [(number, name) for number in (self.numbers[n], *others)]

    def check_keys(self, chosen: Mapping[int, str]) -> dict[int, str]:
        """Check keys by id ("" for no custom key), and return them normalized."""
        checked = {n: _as_key(key) for n, key in chosen.items()}
        every = {**self.chosen, **checked}
        owners: dict[str, int] = {}
        for n, name in enumerate(self.names):
            key = every.get(n) or own_key(name)
            if key and owners.setdefault(key, n) != n:
                one = self.names[owners[key]]
                raise UsageError(f"the key {key!r} cannot belong to both {one!r} and {name!r}")
        return checked


def tell_new(before: Sequence[str], names: Sequence[str]) -> None:
    """Log the classes that were added to others, once they are stored."""
    if before and names:
        _log.info("new classes: %s", ", ".join(names))


def parse_pairs(given: Iterable[str], option: str, expected: str) -> list[tuple[str, str]]:
    """Return the pairs of an option's values such as ``OLD=NEW``."""
    pairs = []
    for text in given:
        left, _, right = text.rpartition("=")
        if not left:
            raise UsageError(f"{option}: got {text!r}; expected {expected}")
        pairs.append((left.strip(), right.strip()))
    return pairs


def own_key(name: str) -> str:
    """Return the key that a class owns by its name: the name itself if it is a key, else ""."""
    key = name.lower()
    return key if len(key) == 1 and key not in COMMANDS else ""


def _as_key(key: str) -> str:
    found = unicodedata.normalize("NFC", key).lower()
    if key and not (len(found) == 1 and found.isprintable() and found not in COMMANDS):
        raise UsageError(
            f"got the key {key[:20]!r}; expected one printable character other than space, slash "
            "or question mark"
        )
    return found


def are_many(names: Sequence[str]) -> bool:
    """Return whether there are more classes than digit keys, so that names can be typed."""
    return len(names) > len(DIGITS)


def keys_of(names: Sequence[str], chosen: Mapping[int, str]) -> list[str]:
    """Return the key of each class, "" if it has none.

    A chosen key comes first, then the class's name if it is a key. The first nine other classes
    have the digit of their position, or any free digit if it is taken. If names are typed, an
    unchosen key must not begin a name, and a taken digit is not replaced.
    """
    begun = {name[0].lower() for name in names if len(name) > 1} if are_many(names) else set()
    taken = {*chosen.values(), *map(own_key, names), *begun}
    keys = []
    for n, name in enumerate(names):
        own, digit = own_key(name), DIGITS[n : n + 1]
        key = chosen.get(n) or (own if own not in begun and own not in chosen.values() else "")
        keys.append(key or (digit if not own and digit not in taken else ""))
    if are_many(names):
        return keys
    free = iter(sorted({*DIGITS} - taken - {*keys}))
    return [key or next(free, "") for key in keys]
