"""Read the tensors of weight files without running code from them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..core.errors import DataError, pass_on_memory
from .tensors import tensors_of

_OF_A_MODULE = ("_parameters", "_buffers", "_modules")
_ONE_AT_A_TIME = Lock()
"""Held while the stand-ins are registered with torch, which is global."""


class _StandIn:
    """Replaces every class and function named in a file that torch would refuse.

    It accepts any arguments and does nothing, but keeps its state, where modules have tensors.
    """

    state: object = None  # on the class, since unpickling may skip __init__

    def __init__(self, *args: object) -> None:
        """Ignore the arguments."""

    def __repr__(self) -> str:
        return "<object of the file>"

    def __setstate__(self, state: object) -> None:
        self.state = state


class _DictStandIn:
    """The same for dict subclasses, since torch only sets items of known dict classes."""

    def __new__(cls, *args: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors in a file, at any depth, by their path in it, joined by dots.

    The file may be from ``torch.save`` (a state dict, a checkpoint that contains some, a whole
    module) or a ``.safetensors`` file. Raises DataError if it cannot be read or has no tensor.
    """
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = tensors_of(path.read_bytes())
        else:
            content = _unpickled(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot read the weights {str(path)!r}: {reason}") from error
    except Exception as error:  # unpickling arbitrary bytes may raise anything
        pass_on_memory(error)
        raise DataError(
            f"cannot read the weights {str(path)!r}: {_reason(error)}; expected a "
            "state dict that torch.save wrote, or a .safetensors file"
        ) from error
    found = tensors_in(content)
    if not found:
        raise DataError(f"{str(path)!r} contains no tensor; expected a state dict or a checkpoint")
    return found


def _unpickled(path: Path) -> Any:
    """Load with torch's restricted unpickler, and stand-ins for everything that it would refuse.

    Nothing named in the file is imported or called: objects of other classes (settings, paths,
    numpy scalars) become stand-ins, and only tensors are real.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not a zip file, such as those of torch < 1.6, which `load` may refuse
        foreign = []
    stand_ins: list[Any] = [
        (_DictStandIn if name.lower().endswith("dict") else _StandIn, name) for name in foreign
    ]
    with _ONE_AT_A_TIME, torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    if refused := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it refers to {refused[1]}, which skal does not run"
    message = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first = message.strip().partition("\n")[0]
    first = re.sub(r"<class '[^']*_StandIn'>", "a list or dict class of its own", first)
    return f"{type(error).__name__}: {first}"


def tensors_in(content: object) -> dict[str, Tensor]:
    """Return all tensors in nested mappings and lists, by their path joined by dots."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    waiting = [("", content)]
    while waiting:
        name, part = waiting.pop()
        if isinstance(part, Tensor):
            found.setdefault(name, part)
        elif id(part) not in seen:  # a file may contain cycles
            seen.add(id(part))
            within = [(f"{name}.{key}" if name else str(key), value) for key, value in _items(part)]
            waiting += reversed(within)
    return found


def _items(part: object) -> Iterable[tuple[object, object]]:
    if isinstance(part, _StandIn):
        state = part.state
        if isinstance(state, Mapping) and all(name in state for name in _OF_A_MODULE):
            return chain.from_iterable(_items(state[name]) for name in _OF_A_MODULE)
        return _items(state)
    if isinstance(part, Mapping):
        return part.items()
    return enumerate(part) if isinstance(part, list | tuple) else ()
