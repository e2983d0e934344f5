"""Heads of frozen backbones: how features are scaled, and layers before the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import MODELS
from .logistic import factors

HIDDEN = 256
STAGES_SHARE = 0.01
"""Share of features of earlier stages in the squared length of an embedding, which strategies
measure distances in. Higher shares did not improve coverage, and worsened it on photographs."""
SMALLEST_SPREAD = 0.05
"""As a share of the mean standard deviation: nearly constant features must not dominate."""


class Scaling(nn.Module):
    """Standardise each feature by the mean and standard deviation of a sample."""

    center: Tensor
    scale: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def measure(self, sample: Tensor) -> None:
        """Compute mean and standard deviation of a sample, float of shape (n, n_features)."""
        if len(sample) < 2:
            return
        # on the CPU: Apple's GPUs have no float64
        spread, mean = torch.std_mean(sample.cpu().double(), dim=0, correction=0)
        spread = spread.clamp(min=SMALLEST_SPREAD * float(spread.mean()))
        self.center.copy_(mean)
        self.scale.copy_(torch.where(spread > 0, 1 / spread, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        return (features.float() - self.center) * self.scale


class UnitLength(nn.Module):
    """Scale the features of each image to length 1.

    With two `parts`, the numbers of features of the last layer and of earlier stages, each part is
    scaled to length 1, then the second to `STAGES_SHARE` of the squared length. Distances between
    embeddings therefore do not depend on the share that a solved head chooses.
    """

    def __init__(self, parts: Sequence[int] = ()) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def measure(self, sample: Tensor) -> None:
        """Do nothing: each image is scaled independently of others."""

    def forward(self, features: Tensor) -> Tensor:
        widths = list(self.parts) or [features.shape[1]]
        split = [F.normalize(part, dim=1) for part in torch.split(features.float(), widths, dim=1)]
        scale = factors(STAGES_SHARE, len(split))
        return torch.cat([part * f for part, f in zip(split, scale, strict=True)], dim=1)


class Head(NamedTuple):
    """Factories of the scaling (given width and parts) and of the neck (given the width; with its
    output width) before the last layer. A `solved` last layer is multinomial logistic regression,
    see `skal.models.logistic`; others are trained by gradients.
    """

    scaling: Callable[[int, Sequence[int]], Scaling | UnitLength]
    neck: Callable[[int], tuple[nn.Module, int]]
    solved: bool = False


def _no_neck(n: int) -> tuple[nn.Module, int]:
    return nn.Identity(), n


def _hidden(n: int) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Linear(n, HIDDEN), nn.ReLU(inplace=True)), HIDDEN


HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "logistic": Head(lambda n, parts: UnitLength(parts), _no_neck, solved=True),
        "linear": Head(lambda n, parts: Scaling(n), _no_neck),
        "mlp": Head(lambda n, parts: Scaling(n), _hidden),
    }
)


def scaling_for(head: str, model: str | None, n_features: int) -> Scaling | UnitLength:
    """Return the scaling of a model's features for a head."""
    parts = MODELS.resolve(model).facts.get("parts", ()) if model else ()
    return HEADS[head].scaling(n_features, parts if sum(parts) == n_features else ())
