"""`Settings`: dataclasses of settings, each defined once with its type, default, range and help.

Their fields are made by `setting`. Flags, TOML files, checks, ``--help``, signatures, docstrings
and the reference pages are all derived from `settings_of`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

from .errors import ParameterError, UnknownNameError
from .kinds import Setting, holds, in_words

GROUPS = ("comparison", "data", "labels", "query", "network", "training", "noise", "output")


def setting(default: Any, help: str, group: str, **facts: Any) -> Any:
    """Return the dataclass field of a setting; for `facts` see `Setting`."""
    metadata = {"setting": Setting(help=help, group=group, **facts)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _statements(of: type[Any]) -> Mapping[str, Setting]:
    found = []
    for each in fields(of):
        factory = each.default_factory
        default = each.default if factory is dataclasses.MISSING else factory()
        plain = str(each.type).removesuffix(" | None")
        facts = {"name": each.name, "type": plain, "optional": plain != each.type}
        found.append(dataclasses.replace(each.metadata["setting"], default=default, **facts))
    found.sort(key=lambda statement: GROUPS.index(statement.group))
    by_name = {statement.name: statement for statement in found}
    for one in found:  # exclusion is mutual
        for name in one.excludes.keys() & by_name.keys():
            excludes = {**by_name[name].excludes, one.name: one.excludes[name]}
            by_name[name] = dataclasses.replace(by_name[name], excludes=excludes)
    return by_name


settings_of = cast("Callable[[type[Any]], Mapping[str, Setting]]", cache(_statements))
"""Return the settings of a class by name, in the order of their groups."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A validated set of settings that knows which of them were given. A `UsageError` is raised if
    one is unknown, invalid, contradicts others or has no effect.
    """

    def __new__(cls, **given: Any) -> Self:
        known = settings_of(cls)
        for name in given:
            if name not in known:
                raise UnknownNameError("setting", name, known)
        self = super().__new__(cls)
        named = frozenset(name for name, value in given.items() if value is not None)
        object.__setattr__(self, "_given", named)
        return self

    def __post_init__(self) -> None:
        self.__dict__.update(check_values(settings_of(type(self)), vars(self), self.given))

    @property
    def given(self) -> frozenset[str]:
        """The names of the settings that were given, and not None."""
        named: frozenset[str] = self.__dict__["_given"]
        return named

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that are set and have an effect, by name."""
        settings = settings_of(type(self))
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in ((name, vars(self)[name]) for name in settings)
            if value not in (None, {}, ()) and not settings[name].idle(vars(self))
        }

    def to_toml(self) -> str:
        """Return the same settings as TOML, from which an equal object can be made."""
        import tomli_w  # imported here, as tomllib: most commands need neither

        return tomli_w.dumps(self.as_dict())

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, without those that then have no effect."""
        values = {name: getattr(self, name) for name in self.given} | changes
        return type(self)(**_acting(settings_of(type(self)), values))


def check_values(
    settings: Mapping[str, Setting],
    values: Mapping[str, Any],
    given: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Return values in their plain form; `given` are those that the user chose, by default those
    that differ from their defaults. Raise a `UsageError` if a value is invalid, contradicts others,
    or was given but has no effect.
    """
    checked = {name: one.check(values[name]) for name, one in settings.items()}
    if given is None:
        given = [name for name, value in checked.items() if value != settings[name].default]
    for one, other, reason in _clashes(settings, checked):
        reason = f": {reason}" if reason else ""
        raise ParameterError(f"give {one} or {in_words(other)}, not both{reason}")
    for name in sorted(given):
        if reason := settings[name].idle(checked):
            missing = reason.removeprefix("without ")
            advice = "" if missing == reason else f"add {missing}, or "
            raise ParameterError(
                f"{name}: got {checked[name]!r}, which has no effect {reason}; {advice}leave it out"
            )
    return checked


def override(
    settings: Mapping[str, Setting], before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `now` and those settings of `before` that it neither overrides nor contradicts."""
    kept = {name: value for name, value in before.items() if name not in now}
    plain = {name: settings[name].check(value) for name, value in {**kept, **now}.items()}
    earlier = _completed(settings, {**before, **{name: plain[name] for name in kept}})
    for one, other, _ in list(_clashes(settings, _completed(settings, plain))):
        pair = {one, other.partition("=")[0]}
        if pair & now.keys():
            for name in pair - now.keys():
                kept.pop(name, None)
                plain.pop(name, None)
    both = _completed(settings, plain)
    for name in list(kept):
        if settings[name].idle(both) and not settings[name].idle(earlier):
            del kept[name]
    return {**kept, **now}


def _completed(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: statement.default for name, statement in settings.items()} | dict(values)


def _acting(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that have an effect given each other and the other settings' defaults."""
    plain = {n: settings[n].check(v) if n in settings else v for n, v in values.items()}
    every = _completed(settings, plain)
    return {n: v for n, v in plain.items() if n not in settings or not settings[n].idle(every)}


def _clashes(
    settings: Mapping[str, Setting], values: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    for name, statement in settings.items():
        for other, reason in statement.excludes.items():
            if holds(name, values) and holds(other, values):
                yield name, other, reason


def read_settings(path: Path, known: Collection[str], **tables: Collection[str]) -> dict[str, Any]:
    """Read settings, and `tables` of settings, from a TOML file, which may have only some. Raise a
    `UsageError` if it is not TOML or has an unknown key.
    """
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError as error:
        raise ParameterError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ParameterError(f"{str(path)!r} is not TOML: {error}") from error
    _check_keys(f"setting in {path}:", values.keys() - tables, known)
    for name, of_table in tables.items():
        table = values.get(name, {})
        if not isinstance(table, dict):
            raise ParameterError(f"{path}: {name} is {table!r}; expected a table, [{name}]")
        _check_keys(f"setting in [{name}] in {path}:", table, of_table)
    return values


def _check_keys(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in sorted(names):
        if name not in known:
            raise UnknownNameError(what, name, known)
