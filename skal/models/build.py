"""Build a network by name, load its weights, and try it before training."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ..core.errors import DataError, ParameterError, blame, one_line, pass_on_memory
from ..core.registry import Entry, import_object
from . import MODELS, Builder
from .checkpoints import read_tensors, tensors_in
from .weights import Weights, fit_of, load_matching, tell_once

if TYPE_CHECKING:
    from .network import ImageModule, Network

TRIAL_IMAGES = 2


class NetworkShape(TypedDict):
    """Keyword arguments of a `Builder`; see there."""

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
    """Build a network by its name in `MODELS`, and load weights into its backbone.

    Parameters
    ----------
    name : str
        A name that `MODELS` resolves.
    pretrained : bool, default=False
        Whether to load the weights that the model is registered with.
    weights : mapping of str to Tensor, str or Path, optional
        A state dict, or a file that `skal.models.checkpoints.read_tensors` reads, such as the
        ``model.safetensors`` of a run. Tensors are matched by name and shape, under the prefix
        that fits most of them; those of a head are ignored. The number of matches is logged.
    **shape
        See `Builder`.

    Raises
    ------
    UnknownNameError
        If there is no such model.
    ParameterError
        If the model has no pretrained weights, or cannot be built.
    DataError
        If the weights cannot be read, or fewer than half of the backbone's tensors match.
    MissingExtraError
        If the model's family needs a package that is not installed.
    """
    entry = MODELS.resolve(name)
    state: Mapping[str, Tensor] | None = None
    if isinstance(weights, Mapping):
        state = tensors_in(weights)
        if not state:
            raise DataError("the weights contain no tensor; expected a state dict")
    elif weights is not None:
        state = read_tensors(Path(weights))
    elif pretrained:
        state = _pretrained(entry)
    loads = state is not None and "weights" in inspect.signature(entry.load()).parameters
    try:
        network = entry.make(**shape, **({"weights": state} if loads else {}))
    except Exception as error:
        blame(error, f"the model {entry.spec} cannot be built", ParameterError)
    if not isinstance(network, nn.Module) or not isinstance(
        getattr(network, "backbone", None), nn.Module
    ):
        raise ParameterError(
            f"the builder of the model {entry.spec} returned {type(network).__qualname__}; "
            "expected a skal.models.Network with a backbone and a head"
        )
    built: Any = network
    if state is not None and not loads:
        load_matching(built.backbone, state)
    if state is not None and isinstance(weights, str | Path):
        tell_once(logging.INFO, f"weights {str(weights)!r}: {fit_of(built.backbone, state)}")
    return built  # type: ignore[no-any-return]


def _pretrained(entry: Entry[Builder]) -> Mapping[str, Tensor]:
    source = entry.facts.get("pretrained")
    if source is None:
        having = [e.name for e in MODELS.listed() if "pretrained" in e.facts or ":" in e.name]
        raise ParameterError(
            f"the model {entry.name!r} has no pretrained weights; models that have: "
            f"{', '.join(having)}"
        )
    load = import_object(source) if isinstance(source, str) else source
    state: Mapping[str, Tensor] = load()
    return state


def try_network(
    name: str, module: ImageModule, image_shape: tuple[int, ...], n_classes: int
) -> None:
    """Run a network on a few black images and check its outputs.

    Raises
    ------
    DataError
        If the network fails on images of this shape (channels, height, width).
    ParameterError
        If it returns anything but `n_classes` logits and embeddings.
    """
    device = module.mean.device
    images = torch.zeros(TRIAL_IMAGES, *image_shape, dtype=torch.uint8, device=device)
    try:
        with torch.inference_mode():
            found: Any = module.eval().network(module.prepare(images))
    except Exception as error:  # the layers of other libraries may raise anything
        pass_on_memory(error)
        raise DataError(
            f"the model {name!r} cannot process images of {image_shape[-1]} px "
            f"({one_line(error)}); choose another size by --image-size, or another model"
        ) from error
    is_pair = isinstance(found, tuple | list) and len(found) == 2
    logits, embeddings = found if is_pair else (found, None)
    fine = is_pair and _is(logits, n_classes) and _is(embeddings, None)
    if not fine:
        raise ParameterError(
            f"the model {name!r} ({type(module.network).__qualname__}) returned {_shown(found)} "
            f"for {TRIAL_IMAGES} images; expected (logits, embeddings), floats of the shapes "
            f"({TRIAL_IMAGES}, {n_classes}) and ({TRIAL_IMAGES}, n_features)"
        )


def _is(values: Any, width: int | None) -> bool:
    return (
        isinstance(values, Tensor)
        and values.is_floating_point()
        and values.ndim == 2
        and len(values) == TRIAL_IMAGES
        and width in (None, values.shape[1])
    )


def _shown(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    if isinstance(found, tuple | list):
        return f"({', '.join(_shown(part) for part in found)})"
    return "None" if found is None else type(found).__name__
