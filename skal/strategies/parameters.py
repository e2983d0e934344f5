"""What the parameters of strategies may be: stated beside each class, checked here."""

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
    """A number of an interval, neither NaN nor a bool.

    Parameters
    ----------
    least, most : float
        The ends of the interval.
    whole : bool, default=False
        Whether it must be an integer.
    ends : bool, default=True
        Whether the ends belong to the interval.
    infinite : bool, default=False
        Whether infinity does, where `most` is infinite.
    optional : bool, default=False
        Whether None may stand instead.
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
        """Raise a ParameterError if a value is not such a number."""
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
    """One of some names."""

    names: Collection[str]

    def check(self, name: str, owner: str, value: Any) -> None:
        """Raise an UnknownNameError if a value is none of the names."""
        if not isinstance(value, str) or value not in self.names:
            raise UnknownNameError(f"{name} of {owner}", str(value), self.names)


Constraints = Mapping[str, Number | OneOf]


def allowed(**parameters: Number | OneOf) -> Constraints:
    """State what the parameters of a class may be, by name."""
    return MappingProxyType(parameters)


def check_parameters(strategy: Any, constraints: Constraints) -> None:
    """Check the attributes of an object.

    Raises
    ------
    ParameterError or UnknownNameError
        Of the first that is not what it may be: class, parameter, what was got and expected.
    """
    for name, constraint in constraints.items():
        constraint.check(name, type(strategy).__name__, getattr(strategy, name))
