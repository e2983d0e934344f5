"""Networks of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.error import URLError

import torchvision
from torch import Tensor, nn

from ..errors import DataError
from .base import Network, linear_head, load_backbone

SMALL_IMAGE = 64
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resnet18_imagenet() -> Mapping[str, Tensor]:
    """Return torchvision's ImageNet weights of ResNet-18, downloaded on first use."""
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise DataError(
            f"cannot download the weights {weights.url} ({error}); download the file elsewhere and "
            "name it by --weights FILE"
        ) from error
    return state


def resnet18(
    *,
    n_classes: int,
    in_channels: int,
    image_size: int,
    dropout: float = 0.25,
    weights: Mapping[str, Tensor] | None = None,
) -> Network:
    """Build torchvision's ResNet-18 (He et al., 2016).

    Below 64 px the 7x7 stem with stride 2 and the max pooling give way to a 3x3 convolution, as
    usual for CIFAR; but weights decide by the size of their own first convolution.

    Parameters
    ----------
    weights : mapping of str to Tensor, optional
        A state dict of torchvision's ResNet-18; its last layer is not used.
    """
    net = torchvision.models.resnet18(weights=None)
    first = None if weights is None else weights.get("conv1.weight")
    small_stem = image_size < SMALL_IMAGE if first is None else first.shape[-1] == 3
    if small_stem:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    n_features = net.fc.in_features
    net.fc = nn.Identity()
    head = linear_head(n_features, n_classes, dropout)
    if weights is None:
        return Network(net, head, in_channels=3)
    load_backbone(net, {k: v for k, v in weights.items() if not k.startswith("fc.")})
    return Network(net, head, IMAGENET_MEAN, IMAGENET_STD, in_channels=3)
