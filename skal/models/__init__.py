"""Networks by name. Listing them imports no torch; building one does."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..core.errors import UnknownNameError
from ..core.registry import Entry, Registry, import_object

if TYPE_CHECKING:
    from .augmentation import AUGMENTATIONS as AUGMENTATIONS
    from .build import build_network as build_network
    from .network import Network as Network
    from .network import linear_head as linear_head

__all__ = [
    "AUGMENTATIONS",
    "FAMILIES",
    "MODELS",
    "Builder",
    "Network",
    "build_network",
    "linear_head",
]


class Builder(Protocol):
    """What is registered in `MODELS`."""

    def __call__(
        self, *, n_classes: int, in_channels: int, image_size: int, dropout: float
    ) -> Network:
        """Build an untrained network.

        Parameters
        ----------
        n_classes : int
            Number of logits.
        in_channels : int
            1 for grey images, 3 for colour.
        image_size : int
            Height and width of the images, in pixels.
        dropout : float
            Probability of the dropout before the last layer.

        Notes
        -----
        A builder that also takes ``weights`` (a state dict) loads them itself; else they go into
        the network's backbone.
        """


class Family(NamedTuple):
    """Models of another package, by its own names for them.

    Parameters
    ----------
    find : str
        Import path of a function from such a name to an entry for `MODELS`.
    summary : str
        What they are.
    """

    find: str
    summary: str


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "torchvision": Family(
            "skal.models.torchvision:find", "any classification network of torchvision"
        ),
        "timm": Family("skal.models.timm:find", "any network of timm (extra timm)"),
    }
)
"""What may stand before the colon of a model's name."""


class ModelRegistry(Registry[Builder]):
    """Names to networks: those registered, ``family:NAME``, and import paths ``module:builder``."""

    def entry(self, name: str) -> Entry[Builder]:
        """Return the entry of that name.

        Raises
        ------
        UnknownNameError
            If there is none, or no such family or module; the message has the nearest names.
        MissingExtraError
            If the family's package is not installed.
        """
        family, colon, member = name.partition(":")
        if not colon or name in self._entries:
            return super().entry(name)
        if family not in FAMILIES:
            package = family.partition(".")[0]
            if not package or importlib.util.find_spec(package) is None:
                raise UnknownNameError("family of models, or module,", family, FAMILIES)
            return Entry(name, name)
        find: Callable[[str], Entry[Builder]] = import_object(FAMILIES[family].find)
        return find(member)

    def listed(self) -> list[Entry[Builder]]:
        """Return the entries, and a row for each family."""
        rows = [
            Entry[Builder](f"{name}:NAME", family.find, {"summary": family.summary})
            for name, family in FAMILIES.items()
        ]
        return [*self, *rows]


MODELS = ModelRegistry("model")
"""Facts: `summary`; `lr`, the learning rate of AdamW that suits it; `pretrained`, a function that
returns a state dict, or its import path; `image_size`, the height and width in pixels that the
pretrained weights are made for, which folders are decoded at then."""

MODELS.add(
    "small-cnn",
    "skal.models.small_cnn:small_cnn",
    summary="four 3x3 convolutions with batch norm; the default below 64 px",
    lr=0.01,
)
MODELS.add(
    "lenet",
    "skal.models.lenet:lenet",
    summary="LeNet-5 with ReLU and max pooling",
    lr=0.003,
)
MODELS.add(
    "resnet18",
    "skal.models.torchvision:resnet18",
    summary="torchvision's ResNet-18, with a 3x3 stem below 64 px; the default from 64 px on",
    lr=0.003,
    pretrained="skal.models.torchvision:resnet18_imagenet",
)

_LAZY = {
    "AUGMENTATIONS": "augmentation",
    "Network": "network",
    "linear_head": "network",
    "build_network": "build",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def default_model(image_size: int) -> str:
    """Return the model to use when none is named: by the size of the images, in pixels."""
    return "small-cnn" if image_size < 64 else "resnet18"
