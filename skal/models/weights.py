"""State dicts: read from files or downloaded, matched to a backbone, loaded into it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import safetensors.torch
import torch
from torch import Tensor, nn

from ..core.errors import DataError
from ..datasets.base import one_line

Weights: TypeAlias = str | Path | Mapping[str, Tensor]
"""What a network may start from: a state dict, or a file that holds one."""

_STATES_WITHIN = ("state_dict", "model_state_dict", "model")
"""Where checkpoints that hold more than weights hold these."""

_log = logging.getLogger("skal")

PREFIXES = ("module.", "model.", "backbone.", "network.backbone.")
"""What wrappers put before the names of a network's tensors."""


class Fit(NamedTuple):
    """What of a state dict fits a backbone.

    The tensors that fit, by the backbone's names; how many those are, and how many the backbone
    has, without batch norm's counts; what it lacks, and what is not of it, each with the reason.
    """

    tensors: dict[str, Tensor]
    n: int
    n_own: int
    missing: list[str]
    others: list[str]

    def __str__(self) -> str:
        told = [*self.missing, *self.others]
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        listed = f"; {'; '.join(told[:3])}{more}" if told else ""
        return f"{self.n} of the backbone's {self.n_own} tensors fit{listed}"


def fit_of(backbone: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Find what of a state dict fits a backbone, by the names that fit best."""
    own: dict[str, Tensor] = dict(backbone.state_dict())
    weights = without_prefix(weights, own)
    fitting = {name: weights[name] for name in own if _fits(name, own, weights)}
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        if name in weights
        else f"{name} is missing"
        for name in needed
        if name not in fitting
    ]
    others = [f"{name} is not of the backbone" for name in weights if name not in own]
    n = sum(name in fitting for name in needed)
    return Fit(fitting, n, len(needed), missing, others)


def downloaded(what: str, fetch: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the weights that a library's `fetch` downloads on first use; `what` names them.

    It raises DataError if that is not possible.
    """
    try:
        return fetch()
    except Exception as error:  # of the hub's client, of the network, of a damaged file
        raise DataError(
            f"cannot download {what} ({one_line(error)}); download the file elsewhere and name it "
            "by --weights FILE"
        ) from error


def load_matching(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load what fits of a state dict; warn of what the backbone lacks.

    The network that the tensors were saved from may have been wrapped, and may have had a head. It
    raises DataError, with the first few, if fewer than half of the backbone's tensors are there.
    """
    fit = fit_of(backbone, weights)
    if 2 * fit.n < fit.n_own:
        raise DataError(f"the weights do not fit the model: {fit}")
    if fit.missing:
        tell_once(logging.WARNING, f"the weights fit the model in part: {fit}")
    backbone.load_state_dict(fit.tensors, strict=False)


@lru_cache(maxsize=256)
def tell_once(level: int, message: str) -> None:
    """Log what every round's new network would say again."""
    _log.log(level, message)


def without_prefix(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return weights by the names, with or without one of `PREFIXES`, that fit `own` best."""
    best = weights
    for prefix in PREFIXES:
        if inner := _within(prefix, weights):
            best = max(
                best, without_prefix(inner, own), key=lambda w: sum(_fits(k, own, w) for k in own)
            )
    return best


def _fits(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    return name in weights and weights[name].shape == own[name].shape


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict without running any code from the file.

    Of skal's own ``model.safetensors`` it is the backbone's only: the head belongs to the classes
    of that run. A checkpoint may hold it as ``state_dict``, ``model_state_dict`` or ``model``. It
    raises DataError if the file cannot be read or is not a state dict.
    """
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load(path.read_bytes())
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot read the weights {str(path)!r}: {reason}") from error
    except Exception as error:  # torch unpickles, and bytes of any kind raise errors of any kind
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"cannot read the weights {str(path)!r}: {type(error).__name__}: {reason}; expected a "
            "state dict that torch.save wrote, or a .safetensors file"
        ) from error
    for name in _STATES_WITHIN:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{str(path)!r} is not a state dict (names to tensors)")
    return backbone_of(state) or state


def backbone_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return what a state dict of skal's own has of the backbone, by the backbone's names."""
    return _within(PREFIXES[-1], state)


def _within(prefix: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
