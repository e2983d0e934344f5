"""A network is run once before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.errors import DataError, ParameterError
from ..datasets.base import one_line
from .module import ImageModule

TRIAL_IMAGES = 2


def try_network(
    name: str, module: ImageModule, image_shape: tuple[int, ...], n_classes: int
) -> None:
    """Run a network on a few black images, and look at what it returns.

    Parameters
    ----------
    name : str
        The model's.
    module : ImageModule
        What was built.
    image_shape : tuple of int
        Channels, height and width.
    n_classes : int
        How many logits are expected.

    Raises
    ------
    DataError
        If it takes no images of this size.
    ParameterError
        If it returns anything but logits and embeddings.
    """
    images = torch.zeros(TRIAL_IMAGES, *image_shape, dtype=torch.uint8)
    try:
        with torch.inference_mode():
            found: Any = module.eval().network(module.prepare(images))
    except Exception as error:  # whatever the layers of foreign networks raise
        raise DataError(
            f"the model {name!r} does not take images of {image_shape[-1]} px "
            f"({one_line(error)}); choose another size by --image-size, or another model"
        ) from error
    is_pair = isinstance(found, tuple | list) and len(found) == 2
    logits, embeddings = found if is_pair else (found, None)
    fine = is_pair and _is(logits, n_classes) and _is(embeddings, None)
    if not fine:
        raise ParameterError(
            f"the model {name!r} ({type(module.network).__qualname__}) returned {_told(found)} for "
            f"{TRIAL_IMAGES} images; expected (logits, embeddings), floats of the shapes "
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


def _told(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    if isinstance(found, tuple | list):
        return f"({', '.join(_told(part) for part in found)})"
    return "None" if found is None else type(found).__name__
