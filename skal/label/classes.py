"""The classes of a project: what they are called, were called, and which key is whose."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import UnknownNameError, UsageError
from .names import check_classes

_log = logging.getLogger("skal")

DIGITS = "123456789"
"""Keys of the first classes, as far as these have none of their own."""
COMMANDS = frozenset(" /?")
"""Keys that are never a class's: what they do, no other key does."""


class Classes:
    """The classes, made of the rows of the store.

    `named` are the numbers and names that were given, oldest first; the last name of a number
    holds. An empty one removes the class; numbers of the same name are one class, that of the
    number which had the name first. `chosen` are keys that were chosen, by number.

    A class's id is its index in `names`; a number stays what it is for ever. `numbers` has the
    number of each id, `ids` the id of each number that is not removed, and `by_name` the id by
    every name that a class has or had.
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
        """Return what a page shows of the classes, which it knows by their numbers."""
        listed = enumerate(zip(self.numbers, self.names, self.keys, strict=True))
        return [
            {"id": number, "name": name, "key": key, "chosen": self.chosen.get(n, "")}
            for n, (number, name, key) in listed
        ]

    def number_of(self, n: int | None) -> int | None:
        """Return the number of a class by its id, of none None."""
        return None if n is None else self.numbers[n]

    def knows(self, number: int | None) -> bool:
        """Tell whether a class has or had this number."""
        return number is None or number in self._latest

    def numbered(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """Return the rows that add classes."""
        return list(enumerate(names, max(self._latest, default=-1) + 1))

    def to_add(self, names: Sequence[str]) -> list[str]:
        """Return those of some names that no class has or had; they must fit to the others."""
        for name in names:
            if name not in self.names and name in self.by_name:
                now = self.names[self.by_name[name]]
                _log.warning("the class %r is called %r now; no new one is made", name, now)
        new = [name for name in names if name not in self.by_name]
        check_classes([*self.names, *new])
        return new

    def id_of(self, name: str, *, today: bool = False) -> int:
        """Return the id of a class by a name that it has or, unless it is to be that of `today`,
        had; else an UnknownNameError.
        """
        name = unicodedata.normalize("NFC", name)
        if name not in (self.names if today else self.by_name):
            raise UnknownNameError("class", name, self.names, "; new ones are added by --classes")
        return self.by_name[name]

    def id_of_number(self, number: int) -> int:
        if number not in self.ids:
            raise UsageError(f"there is no class of the number {number!r:.20}, or it was removed")
        return self.ids[number]

    def renamed(self, n: int, name: str) -> list[tuple[int, str]]:
        """Return the rows that give a class another name, which is not another's."""
        (name,) = check_classes([name])
        check_classes([*(c for other, c in enumerate(self.names) if other != n), name])
        return self._rows_of(n, name)

    def merged(self, number: int, other: int | None) -> list[tuple[int, str]]:
        """Return the rows that make a class, by number, a part of another, or remove it."""
        n = self.id_of_number(number)
        into = None if other is None else self.id_of_number(other)
        if n == into:
            raise UsageError(f"the class {self.names[n]!r} cannot become a part of itself")
        if len(self.names) < 3:
            raise UsageError(
                f"of {len(self.names)} classes none can be merged or removed: two must stay; add "
                "others before, by --classes"
            )
        return self._rows_of(n, "" if into is None else self.names[into])

    def _rows_of(self, n: int, name: str) -> list[tuple[int, str]]:
        """Return new rows, that of the class's own number first."""
        others = [
            number for number, of in self.ids.items() if of == n and number != self.numbers[n]
        ]
        return [(number, name) for number in (self.numbers[n], *others)]

    def check_keys(self, chosen: Mapping[int, str]) -> dict[int, str]:
        """Check keys by id, "" for none of its own, and return them as they are kept."""
        checked = {n: _as_key(key) for n, key in chosen.items()}
        every = {**self.chosen, **checked}
        owners: dict[str, int] = {}
        for n, name in enumerate(self.names):
            key = every.get(n) or own_key(name)
            if key and owners.setdefault(key, n) != n:
                one = self.names[owners[key]]
                raise UsageError(f"the key {key!r} cannot be that of both {one!r} and {name!r}")
        return checked


def tell_new(before: Sequence[str], names: Sequence[str]) -> None:
    """Say which classes were added to others, once they are kept."""
    if before and names:
        _log.info("new classes: %s", ", ".join(names))


def parse_pairs(given: Iterable[str], option: str, expected: str) -> list[tuple[str, str]]:
    """Return both sides of what an option was given, such as ``OLD=NEW``."""
    pairs = []
    for text in given:
        left, _, right = text.rpartition("=")
        if not left:
            raise UsageError(f"{option}: got {text!r}; expected {expected}")
        pairs.append((left.strip(), right.strip()))
    return pairs


def own_key(name: str) -> str:
    """Return the key that a class of this name owns: the name itself, if it is a key, else ""."""
    key = name.lower()
    return key if len(key) == 1 and key not in COMMANDS else ""


def _as_key(key: str) -> str:
    found = unicodedata.normalize("NFC", key).lower()
    if key and not (len(found) == 1 and found.isprintable() and found not in COMMANDS):
        raise UsageError(
            f"the key {key[:20]!r} cannot be chosen; expected one letter, digit or sign, but no "
            "space, slash or question mark"
        )
    return found


def are_many(names: Sequence[str]) -> bool:
    """Tell whether there are more classes than keys: then names are typed."""
    return len(names) > len(DIGITS)


def keys_of(names: Sequence[str], chosen: Mapping[int, str]) -> list[str]:
    """Return the key of each class, "" if it has none.

    A key that was chosen comes first, then one that is the class's name; the first nine others
    have the digit of their place, if it is free, else any that is. Where names are typed, nothing
    is answered by a key that begins one, unless it was chosen, and no other digit is looked for.
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
