"""`KeptClasses`: the classes of a project in its store, and changes to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from ..core.errors import UsageError
from .classes import Classes, parse_pairs, tell_new
from .names import check_classes
from .store import Store


class ClassEdits(NamedTuple):
    """Changes to classes, by number, applied all or none.

    `keys` ("" for the default) and `names` are new ones, `new` are classes to add, and `into` has
    the class to merge each class into, or None to remove it with its labels.
    """

    keys: Mapping[int, str]
    into: Mapping[int, int | None] = MappingProxyType({})
    names: Mapping[int, str] = MappingProxyType({})
    new: Sequence[str] = ()


class KeptClasses:
    """The classes in a store; `now` has the current ones and `new` ones that are not written."""

    def __init__(self, store: Store, new: Sequence[str] = ()) -> None:
        self._store, self._new = store, new
        self.refresh()

    def refresh(self) -> None:
        """Read them again."""
        rows = self._store.class_names()
        new = Classes(rows).numbered(self._new)
        self.now = Classes([*rows, *new], self._store.class_keys())

    def _write(self, rows: Sequence[tuple[int, str]]) -> None:
        self._store.name_classes(rows)
        self.refresh()

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Apply all changes, or none of them."""
        try:
            with self._store.transaction():
                yield
        finally:
            self.refresh()

    def add(self, names: Sequence[str]) -> None:
        """Add those of some classes that do not exist yet."""
        self._write(self.now.numbered([name for name in names if name not in self.now.by_name]))

    def change(
        self, renamings: Sequence[str], mergers: Sequence[str], removals: Sequence[str]
    ) -> None:
        """Apply changes given as text; see `LabelProject.change_classes`."""
        with self._all_or_none():
            for old, new in parse_pairs(renamings, "--rename-class", "OLD=NEW"):
                self._write(self.now.renamed(self.now.id_of(old, today=True), new))
            into: dict[int, int | None] = {}
            for old, other in parse_pairs(mergers, "--merge-class", "OLD=OTHER"):
                into[self._number(old)] = self._number(other)
            self._merge({**into, **{self._number(name): None for name in removals}})

    def _number(self, name: str) -> int:
        return self.now.numbers[self.now.id_of(name, today=True)]

    def edit(self, edits: ClassEdits) -> None:
        """Apply the edits of the page."""
        before = self.now.names
        with self._all_or_none():
            for number, name in edits.names.items():
                self._write(self.now.renamed(self.now.id_of_number(number), name))
            added = check_classes(edits.new)
            if taken := [name for name in added if name in self.now.by_name]:
                raise UsageError(f"{taken[0]!r} is already the name of a class, or was")
            self._write(self.now.numbered(self.now.to_add(added)))
            self._merge(edits.into)
            chosen = {self.now.id_of_number(number): key for number, key in edits.keys.items()}
            checked = self.now.check_keys(chosen).items()
            self._store.choose_keys({self.now.numbers[n]: key for n, key in checked})
        tell_new(before, added)

    def _merge(self, into: Mapping[int, int | None]) -> None:
        for number, other in into.items():
            self._write(self.now.merged(number, other))
