"""A custom dataset: any function that returns arrays.

python examples/custom_dataset.py
"""

import numpy as np

import skal


@skal.DATASETS.register("stripes", summary="400 made-up images of upright and level stripes")
def stripes(*, data_dir, image_size, seed):
    """Draw them."""
    rng, size = np.random.default_rng(seed), image_size or 8
    y = np.arange(500) % 2
    X = rng.integers(0, 200, (500, 1, size, size), dtype=np.uint8)
    X[y == 0, :, ::4] += 50
    X[y == 1, :, :, ::4] += 50
    return skal.ImageDataset(X[:400], y[:400], ("level", "upright"), X[400:], y[400:], "stripes")


if __name__ == "__main__":
    print(skal.run("stripes", "margin", n_rounds=2).table())
