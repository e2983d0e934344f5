#!/usr/bin/env bash
# Pillow 13.0.0: valid TIFFs of 16 and 32 bits come out wrong, without an error or a warning.
#
# Where 0 is white (WhiteIsZero), 8 bits are inverted as they should be, and 16 bits are not: a negative. Of planes of
# 16 bits (PlanarConfiguration 2) single bytes are taken for pixels. Unsigned numbers of 32 bits become signed ones.
# tifffile gives the numbers as they are stored. Output:
#
#     white is 0, 8 bits    stored 200 means 55: 55
#     white is 0, 16 bits   stored 200 means 65335: 200
#     planes of 16 bits     a row of red is 0, 0, 0, 255, 255, 255: [0, 0, 0, 0, 0, 0]
#     32 bits               3000000000: -1294967296
set -euo pipefail
"$(dirname "$0")/check" pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3 <<'PYTHON'
import io

import numpy as np
import tifffile
from PIL import Image


def by_pillow(pixels, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **how)
    file.seek(0)
    assert np.array_equal(tifffile.imread(file), pixels)  # as they are stored
    file.seek(0)
    return np.asarray(Image.open(file))


grey = np.full((4, 4), 200)
shown = by_pillow(grey.astype(np.uint8), photometric="miniswhite")[0, 0]
print("white is 0, 8 bits    stored 200 means 55:", shown)
deep = by_pillow(grey.astype(np.uint16), photometric="miniswhite")[0, 0]
print("white is 0, 16 bits   stored 200 means 65335:", deep)
half_red = np.zeros((3, 6, 6), np.uint16)
half_red[0, :, 3:] = 65535
planes = by_pillow(half_red, photometric="rgb", planarconfig="separate")[0, :, 0].tolist()
print("planes of 16 bits     a row of red is 0, 0, 0, 255, 255, 255:", planes)
large = by_pillow(np.full((4, 4), 3_000_000_000, np.uint32), photometric="minisblack")[0, 0]
print("32 bits               3000000000:", large)
assert shown == 55 and deep == 200 and planes != [0, 0, 0, 255, 255, 255] and large < 0
PYTHON
