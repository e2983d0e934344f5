"""What a model is: a backbone and a head."""

from __future__ import annotations

from torch import Tensor, nn


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
