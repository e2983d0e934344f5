"""From a folder of large JPEGs to the features of a frozen EfficientNet-Lite0.

    python benchmarks/files.py --folder PLACE

takes the images that `benchmarks/ingest.py` makes, 1600 x 1200 pixels, quality 85, and these
mirrored and turned, at 224 px.

- skal: `skal.load_dataset` with a new, empty cache, and `skal.embed`, kept on the disk.
- torch: `ImageFolder` with torchvision's resizing in a `DataLoader(num_workers=2)`, and the same
  network in inference mode, channels last, in batches of 32.
- kept: both of skal's calls again in this process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from _report import report
from ingest import both_seconds, make_images
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

import skal

SIZE, WORKERS, BATCH, QUALITY = 224, 2, 32, 85
MODEL = {"model": "efficientnet-lite0", "pretrained": True, "freeze": True}


def by_skal(folder: Path, data_dir: Path) -> np.ndarray:
    data = skal.load_dataset(folder, image_size=SIZE, data_dir=data_dir)
    classifier = skal.ImageClassifier(**MODEL, classes=range(len(data.classes)))
    return np.concatenate(
        [skal.embed(classifier, images, data_dir / "cache") for images in (data.X, data.X_test)]
    )


def by_torch(folder: Path) -> np.ndarray:
    transform = Compose([Resize(SIZE), CenterCrop(SIZE), PILToTensor()])
    images = ImageFolder(str(folder), transform=transform)
    module = skal.ImageClassifier(**MODEL, classes=[0, 1]).backbone((3, SIZE, SIZE)).module
    module.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        batches = DataLoader(images, batch_size=BATCH, num_workers=WORKERS)
        return np.concatenate([module.embed(batch).numpy() for batch, _ in batches])


def mirrored(folder: Path, times: int) -> Path:
    """Make four different images of each, so many `times` in other qualities, unless they are
    there.
    """
    source, place = folder / f"quality-{QUALITY}", folder / f"mirrored-{times}"
    if not source.is_dir():
        make_images(folder)
    ways = Image.Transpose
    for path in sorted(source.rglob("*-0.jpg")) * (not place.is_dir()):
        image = Image.open(path)
        (place / path.parent.name).mkdir(parents=True, exist_ok=True)
        turned = [image, *map(image.transpose, (ways.FLIP_LEFT_RIGHT, ways.FLIP_TOP_BOTTOM))]
        for number, other in enumerate((*turned, image.transpose(ways.ROTATE_180))):
            for less in range(times):
                name = f"{path.stem}-{number}-{less}.jpg"
                other.save(place / path.parent.name / name, quality=QUALITY - less)
    return place


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default="ingest", show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--times", default=1, show_default=True, help="How many hundred files, by four.")
def main(folder: Path, repeats: int, times: int) -> None:
    """Measure both, in turn."""
    place = mirrored(folder, times)
    n = sum(1 for _ in place.rglob("*.jpg"))
    seconds: dict[str, list[tuple[float, float]]] = {"torch": [], "skal": [], "skal, kept": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=folder) as data_dir:
            ways = {
                "torch": lambda: by_torch(place),
                "skal": lambda d=data_dir: by_skal(place, Path(d)),
                "skal, kept": lambda d=data_dir: by_skal(place, Path(d)),
            }
            for name, way in ways.items():
                seconds[name].append(both_seconds(way))
                print(f"{name}: {seconds[name][-1][0]:.1f} s", flush=True)
    bare = np.array(seconds["torch"])
    rows = []
    for name, times in seconds.items():
        ratios = bare / np.array(times)
        told = [f"{np.median(r):.1f} ({r.min():.1f} to {r.max():.1f})" for r in ratios.T]
        rows.append([name, f"{n / np.median(np.array(times)[:, 0]):,.0f}", *told])
    report(
        f"A folder of 1600 x 1200 JPEGs to features at {SIZE} px",
        ["way", "images a second", "times faster", "by processor time"],
        rows,
        f"{n} files. Medians of {repeats} runs in turn; a ratio is the median of pairs (lowest to "
        "highest).",
    )


if __name__ == "__main__":
    main()
