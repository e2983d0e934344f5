"""What a model is, and what may be done to its input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import DataError
from ..datasets.base import one_line

_log = logging.getLogger("skal")


class Network(nn.Module):
    """A backbone that embeds images, and a head that classifies embeddings.

    All dropout belongs into the head: what comes before it is then computed once however many
    Monte-Carlo samples are wanted. (Dropout in the backbone works too, at the price of a whole
    pass per sample.)

    Parameters
    ----------
    backbone : nn.Module
        Images (n, channels, height, width) to embeddings (n, n_features).
    head : nn.Module
        Embeddings to logits (n, n_classes).
    mean, std : tuple of float
        What the pixels, scaled to [0, 1], are normalised with: one value, or one per channel.
    in_channels : int, optional
        Channels that the backbone insists on; grey images are repeated then.
    input_size : int, optional
        Height and width in pixels that the backbone insists on; images are scaled to it then.

    Notes
    -----
    ``forward`` returns ``(logits, embeddings)``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
        in_channels: int | None = None,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.mean = mean
        self.std = std
        self.in_channels = in_channels
        self.input_size = input_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.backbone(images)
        return self.classify(embeddings), embeddings

    def classify(self, embeddings: Tensor) -> Tensor:
        """Return the logits of embeddings."""
        logits: Tensor = self.head(embeddings)
        return logits


def linear_head(n_features: int, n_classes: int, dropout: float) -> nn.Sequential:
    """Return dropout and one linear layer, the head of every model of skal."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))


PREFIXES = ("module.", "model.", "backbone.", "network.backbone.")
"""What wrappers put before the names of a network's tensors."""


class Fit(NamedTuple):
    """What of a state dict fits a backbone.

    Parameters
    ----------
    tensors : dict of str to Tensor
        What fits, by the backbone's names.
    n, n_own : int
        How many those are, and how many the backbone has; batch norm's counts are left out.
    missing, others : list of str
        What the backbone lacks, and what is not of it, each with the reason.
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


def fetched(what: str, fetch: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the weights that a library downloads on first use.

    Parameters
    ----------
    what : str
        Which, for the message.
    fetch : callable
        Returns their state dict.

    Raises
    ------
    DataError
        If that is not possible.
    """
    try:
        return fetch()
    except Exception as error:  # of the hub's client, of the network, of a damaged file
        raise DataError(
            f"cannot download {what} ({one_line(error)}); download the file elsewhere and name it "
            "by --weights FILE"
        ) from error


def load_backbone(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load what fits of a state dict; warn of what the backbone lacks.

    The network that the tensors were saved from may have been wrapped, and may have had a head.

    Raises
    ------
    DataError
        If fewer than half of the backbone's tensors are there; the message has the first few.
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
    """Return weights by the names, of those without one of `PREFIXES`, that fit best.

    Parameters
    ----------
    weights : mapping of str to Tensor
        A state dict.
    own : mapping of str to Tensor
        That of the backbone it is for.
    """
    best = weights
    for prefix in PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if inner:
            best = max(
                best, without_prefix(inner, own), key=lambda w: sum(_fits(k, own, w) for k in own)
            )
    return best


def _fits(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    return name in weights and weights[name].shape == own[name].shape


def flip(images: Tensor) -> Tensor:
    """Mirror each image with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def shift(images: Tensor) -> Tensor:
    """Move each image by up to an eighth of its size in both directions; black comes in."""
    n, _, height, width = images.shape
    most = max(1, height // 8)
    padded = F.pad(images, (most,) * 4)
    down, right = torch.randint(0, 2 * most + 1, (2, n, 1), device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (right + torch.arange(width, device=images.device))[:, None, :]
    number = torch.arange(n, device=images.device)[:, None, None]
    return padded[number, :, rows, columns].permute(0, 3, 1, 2)


AUGMENTATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"flip": flip, "shift": shift}
)
"""Per-sample changes of pixels (n, channels, height, width) that keep an image's class."""
