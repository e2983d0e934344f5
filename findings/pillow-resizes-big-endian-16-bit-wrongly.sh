#!/usr/bin/env bash
# Pillow 13.0.0: resize of the mode "I;16B" returns wrong values, without an error.
#
# Big-endian 16-bit TIFFs open in that mode. Filters that compute, such as BOX, give other values than for the same
# pixels in the mode "I;16", which are right. Output:
#
#     expected  [1700, 2100, 2500, 2900]
#     I;16      [1700, 2100, 2500, 2900]
#     I;16B     [1892, 2164, 2692, 2964]
set -euo pipefail
"$(dirname "$0")/check" pillow==13.0.0 numpy==2.4.6 <<'PYTHON'
import numpy as np
from PIL import Image

pixels = np.arange(256).reshape(16, 16) * 200
expected = pixels.reshape(8, 2, 8, 2).mean((1, 3))[0, :4].astype(int).tolist()
print("expected ", expected)
found = {}
for mode, dtype in (("I;16", "<u2"), ("I;16B", ">u2")):
    image = Image.frombytes(mode, (16, 16), pixels.astype(dtype).tobytes())
    found[mode] = np.asarray(image.resize((8, 8), Image.Resampling.BOX))[0, :4].tolist()
    print(f"{mode:9s}", found[mode])
assert found["I;16"] == expected != found["I;16B"]
PYTHON
