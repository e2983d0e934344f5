"""A network whose backbone stays as it is, so that its output can take the place of the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from .network import Network, linear_head

HIDDEN = 256
SMALLEST_SPREAD = 0.05
"""Of the mean one: a feature that hardly ever differs must not count for many that do."""


def _no_neck(n_features: int) -> tuple[nn.Module, int]:
    return nn.Identity(), n_features


def _perceptron(n_features: int) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Linear(n_features, HIDDEN), nn.ReLU(inplace=True)), HIDDEN


HEADS: Mapping[str, Callable[[int], tuple[nn.Module, int]]] = MappingProxyType(
    {"linear": _no_neck, "mlp": _perceptron}
)
"""What stands between features of some width and the last layer, and what that layer is given."""


class Scaling(nn.Module):
    """Brings each feature to mean 0 and standard deviation 1, as measured on a sample."""

    center: Tensor
    scale: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def measure(self, sample: Tensor) -> None:
        """Take mean and standard deviation of a sample, float of shape (n, n_features)."""
        if len(sample) < 2:
            return
        # in float64, which Apple's GPUs do not have
        spread, mean = torch.std_mean(sample.cpu().double(), dim=0, correction=0)
        spread = spread.clamp(min=SMALLEST_SPREAD * float(spread.mean()))
        self.center.copy_(mean)
        self.scale.copy_(torch.where(spread > 0, 1 / spread, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        return (features.float() - self.center) * self.scale


class FrozenNetwork(Network):
    """Scaling, neck and head on the features of a backbone that is not trained.

    ``forward`` takes features (n, n_features), or, once it has a backbone, images. All but the
    backbone is computed in float32. The head is one of `HEADS`.
    """

    def __init__(self, n_features: int, n_classes: int, dropout: float, head: str) -> None:
        neck, width = HEADS[head](n_features)
        super().__init__(nn.Identity(), linear_head(width, n_classes, dropout))
        self.scaling = Scaling(n_features)
        self.neck = neck

    @property
    def has_backbone(self) -> bool:
        """Whether it takes images."""
        return not isinstance(self.backbone, nn.Identity)

    def take_backbone(self, network: Network) -> None:
        """Put the backbone of another network, and how its input is prepared, into this one."""
        self.backbone = freeze(network.backbone)
        for name in ("mean", "std", "in_channels", "input_size"):
            setattr(self, name, getattr(network, name))

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Set the mode of all but the backbone, whose batch norm must not go on learning."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = images if images.ndim == 2 else self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            embeddings = self.neck(self.scaling(features))
        return self.classify(embeddings), embeddings

    def classify(self, embeddings: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return super().classify(embeddings.float())


def freeze(backbone: nn.Module) -> nn.Module:
    """Keep a backbone as it is: in evaluation mode, without gradients and without dropout."""
    for module in backbone.modules():
        if "Dropout" in type(module).__name__:
            setattr(module, "p", 0.0)  # noqa: B010 (mypy takes attributes for tensors)
    return backbone.requires_grad_(False).eval()
