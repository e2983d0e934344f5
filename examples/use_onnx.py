"""Classify images with an exported network, using only onnxruntime, numpy and Pillow.

skal export-model RUN_DIR --out network.onnx; python use_onnx.py network.onnx PHOTO...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
network = json.loads(session.get_modelmeta().custom_metadata_map["skal"])
channels, height, width = network["image_shape"]
names = network.get("class_names") or network["params"]["classes"]
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:  # skal lays it on white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).reshape(1, height, width, channels).transpose(0, 3, 1, 2)
    probabilities, _ = session.run(None, {"images": pixels})
    best = probabilities[0].argmax()
    print(f"{path}: {names[best]} ({probabilities[0, best]:.2f})")
