"""One `Registry` class, used by every extension point."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .errors import ParameterError, SkalError, UnknownNameError

ENTRY_POINT_GROUP = "skal"

T = TypeVar("T")
U = TypeVar("U")
_log = logging.getLogger("skal")
_plugins_loaded = False


def import_object(path: str) -> Any:
    """Import ``"package.module:Name"``.

    Raises
    ------
    ParameterError, UnknownNameError
        If the module cannot be imported, or has no such name. An error of skal's own, as of a
        missing extra, is passed on.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except SkalError:
        raise
    except Exception as error:  # whatever a foreign module raises when imported
        reason = f"{type(error).__name__}: {error}"
        raise ParameterError(f"cannot import {path!r} ({reason})") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        public = [name for name in dir(module) if not name.startswith("_")]
        raise UnknownNameError(f"name in {module_name}", attribute, public) from error


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered object, or the import path of one, and what is known about it."""

    name: str
    target: T | str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> T:
        """Return the object, importing it if need be."""
        return import_object(self.target) if isinstance(self.target, str) else self.target


class Registry(Generic[T]):
    """Names to objects, with facts about each.

    Parameters
    ----------
    kind : str
        What the entries are, in the singular: "dataset", "model", ...

    Notes
    -----
    Outside packages add entries through the entry-point group ``skal``: each entry point names a
    module that registers something when imported.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, **facts: Any) -> Callable[[U], U]:
        """Return a decorator that adds an object under `name`.

        Raises
        ------
        ParameterError
            If the name is taken.
        """

        def decorate(target: U) -> U:
            self.add(name, target, **facts)  # type: ignore[arg-type]
            return target

        return decorate

    def add(self, name: str, target: T | str, **facts: Any) -> None:
        """Add an object, or its import path ``"module:Name"``, which is imported when used."""
        if name in self._entries:
            raise ParameterError(f"the {self.kind} {name!r} is registered already")
        self._entries[name] = Entry(name, target, facts)

    def remove(self, name: str) -> None:
        """Take an entry out again (for tests and notebooks that redefine a plugin)."""
        self.entry(name)
        del self._entries[name]

    def entry(self, name: str) -> Entry[T]:
        """Return the entry of that name.

        Raises
        ------
        UnknownNameError
            If there is none; the message has the nearest names.
        """
        if name not in self._entries:
            load_plugins()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str) -> T:
        """Return the object of that name, imported if need be."""
        return self.entry(name).load()

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        load_plugins()
        return iter(list(self._entries.values()))

    def names(self) -> list[str]:
        """Return the registered names, in the order of registration."""
        return [entry.name for entry in self]

    def listed(self) -> list[Entry[T]]:
        """Return what a list of all that can be named shows: here the entries."""
        return list(self)


def load_plugins() -> None:
    """Import what other packages registered under the entry-point group, once a process.

    A plugin that cannot be imported is named in a warning and left out: somebody else's broken
    package must not end a run that does not use it.
    """
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    for plugin in entry_points(group=ENTRY_POINT_GROUP):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:  # whatever a foreign module does when imported
            _log.warning("plugin %s (%s) left out: %s", plugin.name, plugin.value, error)
