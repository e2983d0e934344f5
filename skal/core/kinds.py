"""`Setting`: the definition of one setting, and how its values are parsed and validated."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NamedTuple

from .errors import ParameterError, UnknownNameError

Count = int | str
Share = float | str
Range = float | str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The definition of a setting.

    `type` is the annotation without ``| None``; `details` are sentences after the one-line `help`.
    `option` is the flag if it differs from the name, `bare` the value of a flag given without one,
    and `names` the kinds of ``skal list`` that a value may name. Values are in `choices` or match
    `pattern`; `lowest` and `highest` are inclusive bounds, `above` and `below` exclusive ones.

    It is an error to give a setting when a condition in `needs` does not hold or one in `idle_with`
    does, or to switch it on together with a key of `excludes`, whose value says why. A condition is
    the name of a setting that is switched on (not None, False, 0, empty, "off" or "none"), or
    ``"name=value|value"``.
    """

    name: str = ""
    type: str = ""
    default: Any = None
    optional: bool = False
    help: str
    details: str = ""
    group: str
    metavar: str = ""
    option: str = ""
    bare: str = ""
    names: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    pattern: str = ""
    lowest: float | None = None
    highest: float | None = None
    above: float | None = None
    below: float | None = None
    needs: tuple[str, ...] = ()
    idle_with: tuple[str, ...] = ()
    excludes: Mapping[str, str] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + (self.option or self.name).replace("_", "-")

    @property
    def range(self) -> str:
        """The bounds in words, with a leading space, or "" without bounds."""
        words = (
            self.lowest is not None
            and f"{'of at least' if self.highest is None else 'from'} {self.lowest}",
            self.above is not None and f"above {self.above:g}",
            self.highest is not None and f"to {self.highest}",
            self.below is not None and f"and below {self.below:g}",
        )
        return "".join(f" {word}" for word in words if word)

    @property
    def expected(self) -> str:
        """A description of the valid values."""
        return KINDS[self.type].words.format(range=self.range)

    def dependencies(self) -> list[str]:
        """Return sentences on the settings that it depends on."""
        return [
            *(f"Only has an effect with `{in_words(need)}`." for need in self.needs),
            *(f"Has no effect with `{in_words(other)}`." for other in self.idle_with),
            *(f"Cannot be combined with `{in_words(other)}`." for other in self.excludes),
        ]

    def contains(self, number: float) -> bool:
        """Return whether a number is finite and within the bounds."""
        return (
            (self.lowest is None or number >= self.lowest)
            and (self.above is None or number > self.above)
            and (self.highest is None or number <= self.highest)
            and number < (math.inf if self.below is None else self.below)
        )

    def check(self, value: Any) -> Any:
        """Return a value in its plain form; raise a `UsageError` if it is not valid."""
        if value is None and self.optional:
            return None
        try:
            checked = KINDS[self.type].plain(self, value)
        except (TypeError, ValueError) as error:
            if isinstance(error, ParameterError):
                raise
            message = f"{self.name}: got {value!r}; expected {self.expected}"
            raise ParameterError(message) from None
        fits = bool(self.pattern) and re.fullmatch(self.pattern, str(checked), re.DOTALL)
        if self.choices and checked not in self.choices and not fits:
            raise UnknownNameError(self.name.replace("_", " "), str(value), self.choices)
        return checked

    def idle(self, values: Mapping[str, Any]) -> str:
        """Return why the setting has no effect among `values`, or "" if it has one."""
        missing = next((need for need in self.needs if not holds(need, values)), None)
        if missing:
            return f"without {in_words(missing)}"
        blocker = next((other for other in self.idle_with if holds(other, values)), None)
        return f"with {in_words(blocker)}" if blocker else ""


OFF: tuple[Any, ...] = (None, False, "off", "none", "0", "0%", (), {})
"""Values that switch a setting off."""


def holds(condition: str, values: Mapping[str, Any]) -> bool:
    """Return whether a condition (see `Setting`) holds among values."""
    name, _, choices = condition.partition("=")
    value = values.get(name)
    return value in choices.split("|") if choices else value not in OFF


def in_words(condition: str) -> str:
    """Return a condition as text for messages."""
    return condition.replace("=", " ").replace("|", " or ")


def resolve_count(name: str, value: Count, n_pool: int, lowest: int = 1) -> int:
    """Turn ``20``, ``"20"`` or ``"10%"`` of `n_pool` into a count; raise a `ParameterError` if it
    is neither, or less than `lowest`. A share above 0 is rounded to at least 1.
    """
    text = str(value).strip()
    try:
        if text.endswith("%"):
            share = float(text[:-1])
            if 0 < share <= 100:
                return max(1, round(share / 100 * n_pool))
            if share == lowest == 0:
                return 0
        elif int(text) >= lowest:
            return int(text)
    except ValueError:
        pass
    expected = f"expected a whole number of at least {lowest}, or a share such as 10%"
    raise ParameterError(f"{name}: got {value!r}; {expected}")


def resolve_share(name: str, value: Share, above: float | None = None) -> float:
    """Turn ``0.1``, ``"0.1"`` or ``"10%"`` into a number from 0, or above `above`, to 1; raise a
    `ParameterError` for any other value.
    """
    text, meant = str(value).strip(), ""
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if 0 <= share <= 1 and (above is None or share > above):
            return share
        if 1 < share <= 100 and not text.endswith("%"):
            meant = f"; did you mean {share:g}%?"
    except ValueError:
        pass
    least = "0%" if above is None else f"more than {above:.0%}"
    expected = f"expected a share from {least} to 100%, such as 0.1 or 10%{meant}"
    raise ParameterError(f"{name}: got {value!r}; {expected}")


class Kind(NamedTuple):
    """A type of values: its description, and its checks of Python values and of flags' texts."""

    words: str
    plain: Callable[[Setting, Any], Any]
    parse: Callable[[str], Any] = str


SCALARS: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
    "str": ((str, os.PathLike), os.fspath),
    "bool": (bool, bool),
    "int": (Integral, int),
    "float": (Real, float),
}
"""Python types that are accepted for a scalar, and the conversion to a type that TOML has."""


def _scalar(statement: Setting, value: Any) -> Any:
    given_as, plain = SCALARS[statement.type]
    # in Python, True is a number
    if not isinstance(value, given_as) or (isinstance(value, bool) and given_as is not bool):
        raise TypeError
    if isinstance(value, Real) and not statement.contains(plain(value)):
        raise ValueError
    return plain(value)


def _count(statement: Setting, value: Any) -> Count:
    resolve_count(statement.name, value, 100, lowest=int(statement.lowest or 0))
    return int(value) if isinstance(value, Integral) else str(value)


def _share(statement: Setting, value: Any) -> float:
    # a normal form, so that settings can be compared
    return resolve_share(statement.name, value, above=statement.above)


def _range(statement: Setting, value: Any) -> str:
    """Return ``HIGH`` or ``LOW:HIGH``, or two of them joined by a comma, in normalised digits; one
    of two may be ``none``.
    """
    found, parts = [], str(value).split(",")
    for part in parts:
        if part == "none" and len(set(parts)) == 2:
            found.append(part)
            continue
        low, high = map(float, part.split(":") if ":" in part else ("0", part))
        if not -math.inf < low < high < math.inf:
            raise ValueError
        found.append(f"{high:.9g}" if low == 0 else f"{low:.9g}:{high:.9g}")
    if len(found) > 2:
        raise ValueError
    return ",".join(dict.fromkeys(found))


def _table(statement: Setting, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise TypeError
    return dict(value or {})


def _names(statement: Setting, value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if not is_list or len(value) < (statement.lowest or 0):
        raise TypeError
    return tuple(dict.fromkeys(value))


def _shares(statement: Setting, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(dict.fromkeys(_share(statement, share) for share in value))


def _parse_count(text: str) -> Count:
    return int(text) if text.isdecimal() else text


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


KINDS: Mapping[str, Kind] = {
    "str": Kind("text", _scalar),
    "bool": Kind("true or false", _scalar),
    "int": Kind("a whole number{range}", _scalar, int),
    "float": Kind("a number{range}", _scalar, float),
    "Count": Kind("a whole number{range}, or a share such as 10%", _count, _parse_count),
    "Share": Kind("a share such as 0.1 or 10%", _share),
    "Range": Kind("a number above 0, or LOW:HIGH", _range),
    "Mapping[str, Any]": Kind("a table of names and values", _table),
    "Sequence[str]": Kind("a list of names", _names, _parse_list),
    "Sequence[Share]": Kind("a list of shares", _shares, _parse_list),
}
"""By annotation, without ``| None``."""
