"""From a name to a network, with weights if asked for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..core.errors import DataError, ParameterError
from ..core.registry import import_object
from . import MODELS
from .base import Network, fit_of, load_backbone, tell_once

_BACKBONE = "network.backbone."
_STATES_WITHIN = ("state_dict", "model_state_dict", "model")
"""Where checkpoints that hold more than weights hold these."""


def build_network(
    name: str,
    *,
    n_classes: int,
    in_channels: int,
    image_size: int,
    dropout: float,
    pretrained: bool = False,
    weights: str | Path | Mapping[str, Tensor] | None = None,
) -> Network:
    """Build a registered network, with weights if asked for.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    n_classes, in_channels, image_size, dropout
        See `skal.models.Builder`.
    pretrained : bool, default=False
        Start from the weights that the model is registered with.
    weights : str, Path or mapping, optional
        The state dict of the model, or a file with it: as ``torch.save`` wrote it, which is loaded
        with ``weights_only=True``, or ``.safetensors``, such as the ``model.safetensors`` of a
        run. Names may begin with one of `skal.models.base.PREFIXES`; a head is passed over. How
        many tensors of a file fit is logged.

    Raises
    ------
    UnknownNameError, ParameterError, DataError
        For an unknown model, one without pretrained weights, or weights of which less than half
        fit.
    MissingExtraError
        If the model's family needs a package that is not installed.
    """
    entry = MODELS.entry(name)
    builder: Callable[..., Network] = entry.load()
    options: dict[str, Any] = {
        "n_classes": n_classes,
        "in_channels": in_channels,
        "image_size": image_size,
        "dropout": dropout,
    }
    state = _state_dict(name, entry.facts.get("pretrained"), pretrained, weights)
    if state is None:
        return builder(**options)
    if "weights" in inspect.signature(builder).parameters:
        network = builder(**options, weights=state)
    else:
        network = builder(**options)
        load_backbone(network.backbone, state)
    if isinstance(weights, str | Path):
        tell_once(logging.INFO, f"weights {str(weights)!r}: {fit_of(network.backbone, state)}")
    return network


def _state_dict(
    name: str,
    source: str | Callable[[], Mapping[str, Tensor]] | None,
    pretrained: bool,
    weights: str | Path | Mapping[str, Tensor] | None,
) -> Mapping[str, Tensor] | None:
    if isinstance(weights, Mapping):
        return weights
    if weights is not None:
        return read_state_dict(Path(weights))
    if not pretrained:
        return None
    if source is None:
        having = [e.name for e in MODELS.listed() if "pretrained" in e.facts or ":" in e.name]
        raise ParameterError(
            f"the model {name!r} has no pretrained weights; these have: {', '.join(having)}"
        )
    load = import_object(source) if isinstance(source, str) else source
    state: Mapping[str, Tensor] = load()
    return state


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict without running any code from the file.

    Of skal's own ``model.safetensors`` it is the backbone's alone: the head belongs to the classes
    of that run. A checkpoint may hold it as ``state_dict``, ``model_state_dict`` or ``model``.

    Raises
    ------
    DataError
        If the file cannot be read or is not a state dict.
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
    return {
        name.removeprefix(_BACKBONE): tensor
        for name, tensor in state.items()
        if name.startswith(_BACKBONE)
    }
