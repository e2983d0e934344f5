"""Decoding a folder of large JPEGs, against torchvision; threads against processes.

    python benchmarks/ingest.py --folder PLACE

makes images under PLACE, unless they are there: 1600 x 1200 pixels of noise with a falling spectrum
(amplitude f^-1.4, little colour, some noise of every pixel its own), saved by Pillow at several
qualities, each of 100 images under six names. A pixel of them takes 0.14, 0.20 and 0.41 bytes at
quality 75, 85 and 95; of the two photographs that come with scikit-learn, saved by Pillow, it takes
0.16, 0.22 and 0.40 in the mean. Both sides decode all of them to 64 px with two workers, one after
the other, in this process; the files are in the system's memory.

- skal: `skal.load_dataset(folder, image_size=64)` with a new, empty cache: listing, decoding at an
  eighth of the size where the file allows it, cutting to a square, and writing the pixels to the
  disk (fsync), from where they are opened as a memmap.
- torchvision: `ImageFolder` with its own loader, `Resize(64)`, `CenterCrop(64)` and `PILToTensor()`
  in a `DataLoader(batch_size=256, num_workers=2)`; the batches are kept in memory.

Both then hold uint8 pixels of the same shape. A second opening is `skal.load_dataset` in a new
process, which finds the cache; its imports are not counted.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from _report import report
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

import skal
from skal.datasets.decoding import Decoding, decode, decode_many
from skal.datasets.index import list_images

SIZE, WORKERS, BATCH = 64, 2, 256
QUALITIES = (75, 85, 95)
UNIQUE, NAMES, CLASSES = 100, 6, 10
MANY, SMALL = 10_000, 20_000
TARGET, TARGET_SECONDS = 6, 1


def photograph(rng: np.random.Generator) -> Image.Image:
    rows, columns = np.fft.fftfreq(1200)[:, None], np.fft.rfftfreq(1600)[None]
    falling = np.maximum(np.hypot(rows, columns), 1 / 1600) ** -1.4

    def layer(contrast: float) -> np.ndarray:
        spectrum = falling * np.exp(2j * np.pi * rng.random(falling.shape))
        values = np.fft.irfft2(spectrum, (1200, 1600))
        return contrast * values / values.std()

    grey, one, other = layer(50), layer(12), layer(12)
    pixels = np.stack([grey + one, grey - one / 2 + other, grey - other], axis=-1) + 128
    pixels += rng.normal(0, 2, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(UNIQUE):
        image = photograph(rng)
        for quality in QUALITIES:
            place = folder / f"quality-{quality}" / f"class-{number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            first = place / f"{number:03}-0.jpg"
            image.save(first, quality=quality)
            for name in range(1, NAMES):
                (place / f"{number:03}-{name}.jpg").hardlink_to(first)
    files = sorted((folder / f"quality-{QUALITIES[1]}").rglob("*-0.jpg"))
    small = folder / "small"
    for number in range(SMALL):
        link(files[number % UNIQUE], folder / "many", number, MANY)
        place = small / f"class-{number % CLASSES}" / f"{number:05}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(place)


def link(file: Path, folder: Path, number: int, most: int) -> None:
    if number < most:
        place = folder / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05}.jpg").hardlink_to(file)


def seconds(action: Callable[[], object]) -> float:
    return both_seconds(action)[0]


def both_seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that pass, and those of processors, ended children's included."""
    used, start = cpu_seconds(), time.perf_counter()
    action()
    return time.perf_counter() - start, cpu_seconds() - used


def cpu_seconds() -> float:
    times = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in times)


def by_skal(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as data_dir:
        data = skal.load_dataset(folder, image_size=SIZE, data_dir=data_dir)
        assert len(data.X) + len(data.X_test) == UNIQUE * NAMES


def by_torchvision(folder: Path) -> None:
    transform = Compose([Resize(SIZE), CenterCrop(SIZE), PILToTensor()])
    images = ImageFolder(str(folder), transform=transform)
    batches = DataLoader(images, batch_size=BATCH, num_workers=WORKERS)
    pixels = torch.cat([batch for batch, _ in batches])
    assert pixels.shape == (UNIQUE * NAMES, 3, SIZE, SIZE)


def against_torchvision(folder: Path, repeats: int) -> None:
    rows = []
    for quality in QUALITIES:
        place = folder / f"quality-{quality}"
        sizes = [path.stat().st_size for path in place.rglob("*.jpg")]
        by_skal(place)  # what is loaded once
        ours, theirs = [], []
        for _ in range(repeats):
            theirs.append(both_seconds(lambda: by_torchvision(place)))  # noqa: B023
            ours.append(both_seconds(lambda: by_skal(place)))  # noqa: B023
        ratios = np.array(theirs) / ours
        rates = [f"{len(sizes) / np.median(side, axis=0)[0]:.0f}" for side in (ours, theirs)]
        told = [
            f"{np.median(ratio):.1f} ({ratio.min():.1f} to {ratio.max():.1f})" for ratio in ratios.T
        ]
        rows.append([quality, f"{np.mean(sizes) / 1000:.0f}", *rates, *told])
        print(rows[-1], flush=True)
    report(
        f"Ingest of 1600 x 1200 JPEGs to {SIZE} px against torchvision",
        [
            "JPEG quality",
            "kB an image",
            "skal, images a second",
            "torchvision",
            "times faster",
            "by processor time",
        ],
        rows,
        f"{UNIQUE * NAMES} files a row, two workers on each side; what both do is in the script's "
        f"head. Medians of {repeats} runs in turn; a ratio is the median of pairs (lowest to "
        f"highest). Target: {TARGET}. An eighth of the size spares skal all work on a JPEG but to "
        "read its code, which grows with the bytes of the file and not with its pixels.",
    )


def second_opening(folder: Path, repeats: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as data_dir:
        command = [sys.executable, __file__, "--folder", str(folder), "--open", data_dir]
        times = []
        for _ in range(1 + repeats):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times.append(json.loads(done.stdout))
            print("opening", times[-1], flush=True)
    report(
        f"Opening a folder of {MANY:,} JPEGs at {SIZE} px",
        ["opening", "seconds"],
        [["first", f"{times[0]:.1f}"], ["second", f"{np.median(times[1:]):.2f}"]],
        f"The second is the median of {repeats}, each in a new process, imports not counted. "
        f"Target: {TARGET_SECONDS} s.",
    )


def threads_or_processes(folder: Path, repeats: int) -> None:
    rows = []
    for name, size in ((f"quality-{QUALITIES[1]}", SIZE), ("small", 32)):
        paths = list_images(folder / name)
        paths = paths * -(-2000 // len(paths))  # enough that processes are taken
        taken = {}
        for processes in (False, True):
            how = Decoding(size, WORKERS, processes_from=0 if processes else None)
            run = lambda: sum(  # noqa: E731
                len(part.pixels)
                for part in decode_many(folder / name, paths, how)  # noqa: B023
            )
            taken[processes] = np.median([seconds(run) for _ in range(repeats)])
        rates = [f"{len(paths) / taken[processes]:,.0f}" for processes in (False, True)]
        rows.append([f"{name}, {len(paths):,} files", *rates, f"{taken[False] / taken[True]:.2f}"])
        print(rows[-1], flush=True)
    report(
        "Decoding by threads and by processes",
        ["files", "two threads, images a second", "two processes", "times faster"],
        rows,
        f"JPEGs of 1600 x 1200 to {SIZE} px, and PNGs of 32 x 32 as they are; the start of the "
        f"processes is counted. Medians of {repeats}.",
    )


def second_picture(folder: Path, repeats: int) -> None:
    """Time a phone's photo, with and without the second picture that phones append."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        plain, phone = Path(place, "plain.jpg"), Path(place, "phone.jpg")
        image = photograph(np.random.default_rng(0)).resize((4000, 3000))
        image.save(plain, quality=90)
        image.save(phone, "MPO", save_all=True, append_images=[image], quality=90)
        assert np.array_equal(decode(plain, 48), decode(phone, 48)), "other pixels"
        pairs = [[seconds(lambda: decode(f, 48)) for f in (plain, phone)] for _ in range(9)]  # noqa: B023
    without, with_it = np.min(pairs, axis=0)
    report(
        "A photo with a second picture (MPO), 4000 x 3000 to 48 px",
        ["photo", "milliseconds", "times"],
        [
            ["without", f"{1000 * without:.0f}", "1.00"],
            ["with", f"{1000 * with_it:.0f}", f"{with_it / without:.2f}"],
        ],
        "The same pixels. Best of 9, in turn. Target: 1.",
    )


def memory(folder: Path, repeats: int) -> None:
    """Measure the peak of processes that decode huge PNGs to 48 px in threads."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name, kind in (("grey", np.uint8), ("grey of 16 bits", np.uint16)):
            pixels = np.zeros((13_000, 13_000), kind)
            pixels[::1000] = np.iinfo(kind).max // 2
            first = Path(place, f"{name} 0.png")
            Image.fromarray(pixels).save(first)
            del pixels
            for number in range(1, 16):
                Path(place, f"{name} {number}.png").hardlink_to(first)
            for workers in (2, 16):
                peaks = [peak(Path(place), name, n, workers) for n in (0, workers)]
                rows.append([name, workers, *(f"{bytes_ / 2**20:,.0f} MiB" for bytes_ in peaks)])
                print(rows[-1], flush=True)
    report(
        "Memory to decode PNGs of 13,000 x 13,000 pixels to 48 px",
        ["PNGs", "files, and threads that decode them", "peak before", "peak"],
        rows,
        "The most memory that a process ever had, before it decoded anything and at its end. "
        "Target: 1 GiB.",
    )


def peak(folder: Path, name: str, n_files: int, workers: int) -> int:
    code = (
        "import re, sys; from pathlib import Path\n"
        "from skal.datasets.decoding import Decoding, decode_many\n"
        "folder, name, n, workers = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])\n"
        "paths, how = [f'{name} {i}.png' for i in range(n)], Decoding(48, workers, chunk_files=1)\n"
        "assert sum(len(part.pixels) for part in decode_many(folder, paths, how)) == n\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    command = [sys.executable, "-P", "-c", code, str(folder), name, str(n_files), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout)


PARTS = {
    "phone": second_picture,
    "memory": memory,
    "torchvision": against_torchvision,
    "opening": second_opening,
    "workers": threads_or_processes,
}


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True)
@click.option("--open", "data_dir", hidden=True)
def main(folder: Path, repeats: int, only: tuple[str, ...], data_dir: str | None) -> None:
    """Measure all parts, or those named."""
    if data_dir is not None:
        many = folder / "many"
        opening = seconds(lambda: skal.load_dataset(many, image_size=SIZE, data_dir=data_dir))
        print(json.dumps(opening))
        return
    if not folder.exists():
        try:
            make_images(folder)
        except BaseException:
            shutil.rmtree(folder)
            raise
    torch.set_num_threads(WORKERS)
    for name in only or PARTS:
        PARTS[name](folder, repeats)


if __name__ == "__main__":
    main()
