"""Constraints on the parameters of strategies."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

from ..core.errors import ParameterError, UnknownNameError


@dataclass(frozen=True)
class Number:
    """A number between `least` and `most`, neither NaN nor a bool.

    The bounds are valid if `ends`, infinity if `infinite` and `most` is infinite, None if
    `optional`.
    """

    least: float
    most: float = math.inf
    whole: bool = False
    ends: bool = True
    infinite: bool = False
    optional: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        least, most = f"{self.least:g}", f"{self.most:g}"
        if self.ends:
            text = f", {least} or more" if math.isinf(self.most) else f" from {least} to {most}"
        else:
            text = f" above {least}" + ("" if math.isinf(self.most) else f" and below {most}")
        return f"{kind}{text}" + (", or None" if self.optional else "")

    def check(self, name: str, owner: str, value: Any) -> None:
        if value is None and self.optional:
            return
        kind = Integral if self.whole else Real
        if isinstance(value, bool) or not isinstance(value, kind) or not self._holds(value):
            raise ParameterError(f"{name}={value!r} of {owner}; expected {self}")

    def _holds(self, value: Any) -> bool:
        if value in (self.least, self.most):
            return self.infinite if value == math.inf else self.ends
        return bool(self.least < value < self.most)


@dataclass(frozen=True)
class OneOf:
    """One of several names."""

    names: Collection[str]

    def check(self, name: str, owner: str, value: Any) -> None:
        if not isinstance(value, str) or value not in self.names:
            raise UnknownNameError(f"{name} of {owner}", str(value), self.names)


Constraints = Mapping[str, Number | OneOf]


def allowed(**parameters: Number | OneOf) -> Constraints:
    return MappingProxyType(parameters)


def check_parameters(strategy: Any, constraints: Constraints) -> None:
    """Raise a ParameterError or UnknownNameError for the first attribute that is not allowed."""
    for name, constraint in constraints.items():
        constraint.check(name, type(strategy).__name__, getattr(strategy, name))
