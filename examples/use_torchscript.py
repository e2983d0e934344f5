"""Classify images with an exported network, using only torch and torchvision.

skal export-model RUN_DIR --format torchscript --out network.pt; python use_torchscript.py ...
"""

import json
import sys

import torch
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.v2 import CenterCrop, InterpolationMode, Resize

about = {"skal": ""}
model = torch.jit.load(sys.argv[1], _extra_files=about).eval()
network = json.loads(about["skal"])
channels, height, width = network["image_shape"]
names = network.get("class_names") or network["params"]["classes"]
for path in sys.argv[2:]:
    mode = ("GRAY" if channels == 1 else "RGB") + "_ALPHA" * path.lower().endswith(".png")
    pixels = read_image(path, ImageReadMode[mode])
    if mode.endswith("ALPHA"):  # skal lays what is transparent on white
        pixels = 255 - ((255.0 - pixels[:-1]) * pixels[-1:] / 255).round().byte()
    pixels = CenterCrop((height, width))(Resize(height, InterpolationMode.BICUBIC)(pixels))
    with torch.inference_mode():
        probabilities, _ = model(pixels[None])
    best = probabilities[0].argmax()
    print(f"{path}: {names[best]} ({probabilities[0, best]:.2f})")
