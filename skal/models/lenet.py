"""LeNet-5, the classic baseline of noise and active-learning studies."""

from __future__ import annotations

from torch import nn

from .network import Network, linear_head


def lenet(*, n_classes: int, in_channels: int, image_size: int, dropout: float = 0.25) -> Network:
    """Build LeNet-5 (LeCun et al., 1998) with ReLU, max pooling and dropout before the head.

    Images other than 28x28 px reach the fully connected layers through an adaptive pooling to the
    5x5 grid of the original.
    """
    backbone = nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(5),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
    )
    return Network(backbone, linear_head(84, n_classes, dropout))
