"""A network of one's own: a backbone that embeds, and a head with dropout.

python examples/custom_model.py
"""

from torch import nn

import skal
from skal.models import Network, linear_head


@skal.MODELS.register("patches", summary="one convolution over patches of 4x4 px", lr=0.01)
def patches(*, n_classes, in_channels, image_size, dropout):
    """Build it."""
    backbone = nn.Sequential(
        nn.Conv2d(in_channels, 64, 4, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    return Network(backbone, linear_head(256, n_classes, dropout))


if __name__ == "__main__":
    print(skal.run("digits", "bald", model="patches", n_rounds=2).table())
