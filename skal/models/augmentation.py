"""What may be done to a training image without changing its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor


def flip(images: Tensor) -> Tensor:
    """Mirror each image with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def shift(images: Tensor) -> Tensor:
    """Move each image by up to an eighth of its size in both directions; black comes in."""
    n, _, height, width = images.shape
    most = max(1, height // 8)
    padded = F.pad(images, (most,) * 4)
    down, right = torch.randint(0, 2 * most + 1, (2, n, 1), device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (right + torch.arange(width, device=images.device))[:, None, :]
    number = torch.arange(n, device=images.device)[:, None, None]
    return padded[number, :, rows, columns].permute(0, 3, 1, 2)


AUGMENTATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"flip": flip, "shift": shift}
)
"""Per-sample changes of pixels (n, channels, height, width) that keep an image's class."""
