"""Kinds of values that settings have: what is valid, its plain form, and how texts are read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ParameterError

if TYPE_CHECKING:
    from .settings import Setting

Count = int | str
Share = float | str
Range = float | str


def resolve_count(name: str, value: Count, n_pool: int, lowest: int = 1) -> int:
    """Turn ``20``, ``"20"`` or ``"10%"`` of `n_pool` into a count; a share above 0 is rounded to at
    least 1. A `ParameterError` is raised if it is neither, or less than `lowest`.
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
    raise ParameterError(
        f"{name}: got {value!r}; expected a number from {lowest} on, or a share such as 10%"
    )


def resolve_share(name: str, value: Share, above: float | None = None) -> float:
    """Turn ``0.1``, ``"0.1"`` or ``"10%"`` into a number of at most 1, more than `above` if that is
    given; a `ParameterError` is raised otherwise.
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
    expected = f"expected a share from {least} to 100%, or 0.1{meant}"
    raise ParameterError(f"{name}: got {value!r}; {expected}")


class Kind(NamedTuple):
    """What values of a type are: in words, as Python has them, and as the command line has them."""

    words: str
    plain: Callable[[Setting, Any], Any]
    parse: Callable[[str], Any] = str


def _text(statement: Setting, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError
    return os.fspath(value)


def _flag(statement: Setting, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(statement: Setting, value: Any) -> int:
    # numpy's integers become plain ones, which TOML can hold
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError
    if not statement.contains(int(value)):
        raise ValueError
    return int(value)


def _number(statement: Setting, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    if not statement.contains(float(value)):
        raise ValueError
    return float(value)


def _count(statement: Setting, value: Any) -> Count:
    resolve_count(statement.name, value, 100, lowest=int(statement.lowest or 0))
    return int(value) if isinstance(value, Integral) else str(value)


def _share(statement: Setting, value: Any) -> float:
    # one way to write them, so that settings can be compared
    return resolve_share(statement.name, value, above=statement.above)


def _range(statement: Setting, value: Any) -> str:
    """Return ``HIGH`` or ``LOW:HIGH``, one or two of them with a comma between, in plain digits;
    of two one may be ``none``.
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
    "str": Kind("text", _text),
    "bool": Kind("true or false", _flag),
    "int": Kind("a whole number{range}", _whole, int),
    "float": Kind("a number{range}", _number, float),
    "Count": Kind("a number{range}, or a share such as 10%", _count, _parse_count),
    "Share": Kind("a share such as 10%, or 0.1", _share),
    "Range": Kind("a number above 0, or LOW:HIGH", _range),
    "Mapping[str, Any]": Kind("a table of names and values", _table),
    "Sequence[str]": Kind("a list of names", _names, _parse_list),
    "Sequence[Share]": Kind("a list of shares", _shares, _parse_list),
}
"""By the annotation of a field, without ``| None``."""
