"""Files of weights: the tensors in them, read without running any code from the file."""

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
"""Held while torch knows the stand-ins, which it does for the whole process."""


class _StandIn:
    """What any class or function that a file names becomes, but for those that torch lets pass.

    It takes everything and does nothing. Its state is kept: a whole module has its tensors there.
    """

    state: object = None  # of the class, since unpickling need not call __init__

    def __init__(self, *args: object) -> None:
        """Take whatever the file gives."""

    def __repr__(self) -> str:
        return "<something that the file names>"

    def __setstate__(self, state: object) -> None:
        self.state = state


class _DictStandIn:
    """The same for kinds of dict, into which torch puts items only if they are its own."""

    def __new__(cls, *args: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors in a file, wherever they are in it, by their path in it, joined by dots.

    It may be what ``torch.save`` wrote (a state dict, a checkpoint that holds several and more, a
    whole module) or a ``.safetensors`` file. It raises DataError if it cannot be read, or holds no
    tensor.
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
    except Exception as error:  # torch unpickles, and bytes of any kind raise errors of any kind
        pass_on_memory(error)
        raise DataError(
            f"cannot read the weights {str(path)!r}: {_reason(error)}; expected a "
            "state dict that torch.save wrote, or a .safetensors file"
        ) from error
    found = tensors_in(content)
    if not found:
        raise DataError(f"{str(path)!r} is not a state dict (names to tensors), nor holds one")
    return found


def _unpickled(path: Path) -> Any:
    """Load by torch's restricted unpickler, with a stand-in for whatever it would refuse.

    So nothing that the file names is imported, let alone called: its author's classes (of settings,
    paths, numpy's numbers) come out empty, and only the tensors are real.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not a zip file, as torch wrote none before 1.6: it may refuse those itself
        foreign = []
    stand_ins: list[Any] = [
        (_DictStandIn if name.lower().endswith("dict") else _StandIn, name) for name in foreign
    ]
    with _ONE_AT_A_TIME, torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    if refused := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it names {refused[1]}, which is not run"
    told = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first = told.strip().partition("\n")[0]
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
        elif id(part) not in seen:  # a file may hold a part in itself
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
