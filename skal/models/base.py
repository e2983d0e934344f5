"""What a model is, and what may be done to its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError


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
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.mean = mean
        self.std = std
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.backbone(images)
        return self.head(embeddings), embeddings


def linear_head(n_features: int, n_classes: int, dropout: float) -> nn.Sequential:
    """Return dropout and one linear layer, the head of every model of skal."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))


def load_backbone(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict that must fit.

    Raises
    ------
    DataError
        If a name or a shape differs; the message has the first few.
    """
    own = backbone.state_dict()
    wrong = sorted(
        [f"{k} is missing" for k in own.keys() - weights.keys() if "num_batches" not in k]
        + [f"{k} is not of this model" for k in weights.keys() - own.keys()]
        + [
            f"{k} has shape {tuple(weights[k].shape)}, expected {tuple(own[k].shape)}"
            for k in own.keys() & weights.keys()
            if own[k].shape != weights[k].shape
        ]
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(f"the weights do not fit the model: {'; '.join(wrong[:3])}{more}")
    backbone.load_state_dict(dict(weights), strict=False)


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
