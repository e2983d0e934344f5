"""What stands between the features of a frozen backbone and their last layer."""

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
"""What features of earlier stages have of the squared length of an embedding, by which images are
alike: more of them does not cover images better, and photographs worse."""
SMALLEST_SPREAD = 0.05
"""Of the mean one: a feature that hardly ever differs must not count for many that do."""


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


class UnitLength(nn.Module):
    """Brings the features of each image to length 1.

    Of two `parts`, the numbers of features of a last layer and of earlier stages, each is brought
    to length 1, and then the second to `STAGES_SHARE` of the squared length: whatever share a
    solved head gives to it, images stay as alike as they are.
    """

    def __init__(self, parts: Sequence[int] = ()) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def measure(self, sample: Tensor) -> None:
        """Take nothing from a sample: each image is scaled by itself."""

    def forward(self, features: Tensor) -> Tensor:
        widths = list(self.parts) or [features.shape[1]]
        split = [F.normalize(part, dim=1) for part in torch.split(features.float(), widths, dim=1)]
        scale = factors(STAGES_SHARE, len(split))
        return torch.cat([part * f for part, f in zip(split, scale, strict=True)], dim=1)


class Head(NamedTuple):
    """What stands before the last layer, made for features of some width: their scaling, which may
    look at the parts that they have, and a neck with the width of what it returns. A `solved` last
    layer is multinomial logistic regression, solved to its optimum (`skal.models.logistic`); others
    are trained by gradients.
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
    """Return how a head scales the features of a model's backbone."""
    parts = MODELS.resolve(model).facts.get("parts", ()) if model else ()
    return HEADS[head].scaling(n_features, parts if sum(parts) == n_features else ())
