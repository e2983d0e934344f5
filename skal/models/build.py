"""From a name to a network, with weights if asked for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

from ..core.errors import ParameterError, failing
from ..core.registry import Entry, import_object
from . import MODELS, Builder
from .network import Network
from .weights import Weights, fit_of, load_matching, read_state_dict, tell_once


class NetworkShape(TypedDict):
    """What a `Builder` is given: see there."""

    n_classes: int
    in_channels: int
    image_size: int
    dropout: float


def build_network(
    name: str,
    *,
    pretrained: bool = False,
    weights: Weights | None = None,
    **shape: Unpack[NetworkShape],
) -> Network:
    """Build a registered network, with weights if asked for.

    Parameters
    ----------
    name : str
        What `MODELS` resolves.
    pretrained : bool, default=False
        Start from the weights that the model is registered with.
    weights : str, Path or mapping, optional
        The state dict of the model, or a file with it: as ``torch.save`` wrote it, which is loaded
        with ``weights_only=True``, or ``.safetensors``, such as the ``model.safetensors`` of a
        run. Names may begin with one of `skal.models.weights.PREFIXES`; a head is passed over. How
        many tensors of a file fit is logged.
    n_classes, in_channels, image_size, dropout
        See `skal.models.Builder`.

    Raises
    ------
    UnknownNameError, ParameterError, DataError
        For an unknown model, one without pretrained weights, or weights of which less than half
        fit.
    MissingExtraError
        If the model's family needs a package that is not installed.
    """
    entry = MODELS.resolve(name)
    builder = partial(_build, entry, shape)
    state: Mapping[str, Tensor]
    if isinstance(weights, Mapping):
        state = weights
    elif weights is not None:
        state = read_state_dict(Path(weights))
    elif pretrained:
        state = _pretrained(entry)
    else:
        return builder()
    if "weights" in inspect.signature(entry.load()).parameters:
        network = builder(weights=state)
    else:
        network = builder()
        load_matching(network.backbone, state)
    if isinstance(weights, str | Path):
        tell_once(logging.INFO, f"weights {str(weights)!r}: {fit_of(network.backbone, state)}")
    return network


def _build(entry: Entry[Builder], shape: NetworkShape, **weights: Any) -> Network:
    """Call a builder with its arguments and what it takes of the shape, and look at the network."""
    with failing(f"the model {entry.spec} cannot be built", ParameterError):
        built = entry.make(**shape, **weights)
    if isinstance(built, nn.Module) and isinstance(getattr(built, "backbone", None), nn.Module):
        network: Any = built
        return network  # type: ignore[no-any-return]
    raise ParameterError(
        f"the model {entry.spec} is built as {type(built).__qualname__}; expected a "
        "skal.models.Network of a backbone and a head"
    )


def _pretrained(entry: Entry[Builder]) -> Mapping[str, Tensor]:
    source = entry.facts.get("pretrained")
    if source is None:
        having = [e.name for e in MODELS.listed() if "pretrained" in e.facts or ":" in e.name]
        raise ParameterError(
            f"the model {entry.name!r} has no pretrained weights; these have: {', '.join(having)}"
        )
    load = import_object(source) if isinstance(source, str) else source
    state: Mapping[str, Tensor] = load()
    return state
