"""Networks for small images."""

from __future__ import annotations

from torch import nn

from .network import Network, linear_head

WIDTHS = (32, 64, 64, 128)
SMALL_WIDTHS = (32, 64)
GRID = 2


def small_cnn(
    *, n_classes: int, in_channels: int, image_size: int, dropout: float = 0.25
) -> Network:
    """Build a plain network of 3x3 convolutions, batch norm and ReLU.

    From 16 px on it has convolutions of 32, 64, 64 and 128 channels, with max pooling where the
    width changes; below, one of 32 and one of 64. It ends in a 2x2 grid, which keeps some of the
    spatial layout.
    """
    widths = SMALL_WIDTHS if image_size < 16 else WIDTHS
    layers: list[nn.Module] = []
    channels = in_channels
    for width, following in zip(widths, (*widths[1:], widths[-1]), strict=True):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        if following != width:
            layers.append(nn.MaxPool2d(2))  # before ReLU: same result, a quarter of the work
        layers.append(nn.ReLU(inplace=True))
        channels = width
    backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten())
    return Network(backbone, linear_head(channels * GRID**2, n_classes, dropout))


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
