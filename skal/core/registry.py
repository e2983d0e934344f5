"""Registries: every extension point is a `Registry`, and every name is resolved by it.

A spec is ``NAME`` or ``package.module:Name``, optionally with ``?key=value&key=value``. A value is
parsed as a Python literal if it is one, else taken as text; in it ``%26`` stands for ``&``, and
``%25`` for ``%`` where that is needed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .errors import MissingExtraError, ParameterError, SkalError, UnknownNameError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "skal"

T = TypeVar("T")
U = TypeVar("U")
_log = logging.getLogger("skal")


def parse_params(pairs: Iterable[str], what: str = "argument") -> dict[str, Any]:
    """Parse ``key=value`` pairs; raise a `ParameterError` if one lacks a name or ``=``."""
    params = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ParameterError(f"{what}: got {pair!r}; expected NAME=VALUE")
        try:
            params[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            params[name] = text
    return params


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Return the name and arguments of ``NAME?key=value&key=value``; see `parse_params`."""
    name, _, rest = spec.partition("?")
    if not rest:
        return name, {}
    pairs = (pair.replace("%26", "&").replace("%25", "%") for pair in rest.split("&") if pair)
    return name, parse_params(pairs, f"argument of {name}")


def write_spec(name: str, params: Mapping[str, Any]) -> str:
    """Return the spec of a name and arguments, as `parse_spec` reads it."""
    pairs = (f"{key}={_written(value)}" for key, value in params.items())
    return "?".join(filter(None, (name, "&".join(pairs))))


def _written(value: Any) -> str:
    is_plain = isinstance(value, str) and parse_params([f"_={value}"]) == {"_": value}
    text = value if is_plain else repr(value)
    for sign, code in (("%25", "%2525"), ("%26", "%2526"), ("&", "%26")):
        text = text.replace(sign, code)
    return text


def import_object(path: str) -> Any:
    """Import ``"package.module:Name"``; raise a `UsageError` if that fails, unless with an error of
    skal's own, such as a missing extra.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except SkalError:
        raise
    except Exception as error:  # a third-party module may raise anything
        reason = f"{type(error).__name__}: {error}"
        is_ours = module_name.partition(".")[0] == __name__.partition(".")[0]
        advice = "; `skal doctor` checks the installation" if is_ours else ""
        raise ParameterError(f"cannot import {path!r} ({reason}){advice}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        public = [name for name in dir(module) if not name.startswith("_")]
        raise UnknownNameError(f"name in {module_name}", attribute, public) from error


def parameters(function: Any) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters that can be given by keyword, or None if any keyword can."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return None
    kinds = {parameter.kind for parameter in found.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return {name: value for name, value in found.items() if value.kind not in positional}


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A named object or its import path, facts about it, and the arguments given with its name."""

    name: str
    target: T | str
    facts: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """Name and arguments as text, which resolves to the same entry."""
        return write_spec(self.name, self.params)

    def load(self) -> T:
        """Return the object, imported if necessary."""
        return import_object(self.target) if isinstance(self.target, str) else self.target

    def make(self, **context: Any) -> Any:
        """Call the object with its arguments and with those of `context` that it takes; raise an
        `UnknownNameError` if it does not take one of its arguments.
        """
        function: Any = self.load()
        known = parameters(function)
        for name in self.params:
            if name in context or (known is not None and name not in known):
                theirs = () if known is None else known.keys() - context.keys()
                raise UnknownNameError(f"argument of {self.name}:", name, theirs)
        taken = {name: value for name, value in context.items() if known is None or name in known}
        return function(**self.params, **taken)


class Family(NamedTuple):
    """The names of another package, as ``FAMILY:NAME``. `find` is the import path of a function
    that returns the `Entry` of a name, `names` that of one that returns all names.
    """

    find: str
    names: str
    summary: str


class Registry(Generic[T]):
    """A mapping of names to objects, with facts about each.

    Parameters
    ----------
    kind : str
        What the entries are, in the singular: "dataset", "model", ...
    families : mapping of str to Family, optional
        What may stand before the colon of a name, in addition to modules.
    plural : str, optional
        By default `kind` and an s.

    Notes
    -----
    Other packages add entries through the entry-point group ``skal``: each entry point names a
    module that registers something when imported.

    Examples
    --------
    >>> import skal
    >>> "digits" in skal.DATASETS and "small-cnn" in skal.MODELS and "true" in skal.ORACLES
    True
    >>> sorted(skal.TRACKERS.names())
    ['mlflow', 'tensorboard', 'wandb']
    >>> skal.STRATEGIES.resolve("margin").facts["needs"]
    'scores'
    """

    def __init__(
        self, kind: str, families: Mapping[str, Family] | None = None, plural: str = ""
    ) -> None:
        self.kind = kind
        self.plural = plural or f"{kind}s"
        self.families = dict(families or {})
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
            raise ParameterError(f"the {self.kind} {name!r} is already registered")
        self._entries[name] = Entry(name, target, facts)

    def remove(self, name: str) -> None:
        """Remove an entry (for tests and notebooks that redefine a plugin)."""
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        del self._entries[name]

    def resolve(self, spec: str, params: Mapping[str, Any] | None = None) -> Entry[T]:
        """Return the entry that a spec names, with its arguments; only families are imported.

        Parameters
        ----------
        spec : str
            ``NAME``, ``module:Name`` or ``FAMILY:NAME``, optionally with ``?key=value&key=value``.
        params : mapping, optional
            Further arguments; they override those of the spec.

        Raises
        ------
        UnknownNameError, ParameterError, MissingExtraError
            If the name is unknown (the message lists the nearest ones), an argument is malformed,
            or the family's package is not installed.
        """
        name, given = parse_spec(spec)
        if name not in self._entries:
            load_plugins()
        found: Entry[T] = self._entries.get(name) or self._outside(name)
        return replace(found, params={**given, **(params or {})})

    def _outside(self, name: str) -> Entry[T]:
        """Return the entry of a family's member, or of an import path."""
        prefix, colon, member = name.partition(":")
        if not colon:
            raise UnknownNameError(self.kind, name, self._entries)
        if prefix in self.families:
            found: Entry[T] = import_object(self.families[prefix].find)(member)
            return found
        package = prefix.partition(".")[0]
        if self.families and not (package and find_spec(package)):
            raise UnknownNameError(f"family of {self.plural}, or module,", prefix, self.families)
        return Entry(name, name)

    def get(self, spec: str) -> T:
        """Return the object that a spec names, imported if necessary."""
        return self.resolve(spec).load()

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        load_plugins()
        return iter(list(self._entries.values()))

    def names(self) -> list[str]:
        """Return the registered names, in the order of registration."""
        return [entry.name for entry in self]

    def listed(self, pattern: str | None = None) -> list[Entry[T]]:
        """Return the entries and a row for each family, or all entries whose names match a pattern.

        Parameters
        ----------
        pattern : str, optional
            A shell pattern, such as ``"*resnet*"`` or ``"timm:*dinov2*"``.

        Raises
        ------
        MissingExtraError
            If the pattern names a family whose package is not installed.
        """
        if pattern is None:
            families = self.families.items()
            rows = [Entry[T](f"{n}:NAME", f.find, {"summary": f.summary}) for n, f in families]
            return [*self, *rows]
        found = [entry for entry in self if fnmatchcase(entry.name, pattern)]
        prefix, colon, _ = pattern.partition(":")
        for name, family in self.families.items():
            if not fnmatchcase(name, prefix) and (colon or not pattern.startswith("*")):
                continue
            try:
                members = import_object(family.names)()
            except MissingExtraError:
                if colon:
                    raise
                continue
            find = import_object(family.find)
            found += [find(m) for m in members if fnmatchcase(f"{name}:{m}", pattern)]
        return found


@cache
def load_plugins() -> None:
    """Import the plugins of other packages, once per process."""
    from importlib.metadata import entry_points  # here: it doubles the time of `skal --help`

    import_plugins(entry_points(group=ENTRY_POINT_GROUP))


def import_plugins(points: Iterable[EntryPoint]) -> None:
    """Import entry points, and skip those that fail with a warning."""
    for plugin in points:
        try:
            plugin.load()
        except (Exception, SystemExit) as error:  # a third-party module may raise anything
            _log.warning("plugin %s (%s) is skipped: %s", plugin.name, plugin.value, error)
