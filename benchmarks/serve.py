"""`skal serve`: how long Label Studio waits for predictions, with 20,000 images kept.

    python benchmarks/serve.py [--n-images 20000]

A real server of a trained network is asked over HTTP on loopback, by requests such as Label Studio
1.23 sends: one task, and 250 of them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from _report import report
from PIL import Image

from skal.label.project import LabelProject
from skal.label.store import Action
from skal.label.studio.tasks import labeling_config

CLASSES = ("low", "middle", "top")
REPEATS = 50


def make(root: Path, n: int) -> None:
    """Write bars at three heights in a hundred folders, and label the first ninety."""
    rng = np.random.default_rng(0)
    for number in range(n):
        image = rng.integers(0, 100, (12, 12), dtype=np.uint8)
        image[number % 3 * 4 :][:4] += 120
        path = root / f"{number % 100:02d}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    project = LabelProject.open(root, CLASSES, {"image_size": 12, "model": "lenet", "steps": 100})
    labels = {image: int(path[-9:-4]) % 3 for image, path in project.paths.items()}
    first = sorted(labels)[:90]
    project.record([Action("me", "label", i, labels[i], 1.0, 0, "strategy") for i in first])
    project.close()


@contextmanager
def serving(model: Path, images: Path) -> Iterator[tuple[httpx.Client, float]]:
    """Start `skal serve`, and say after how many seconds it answers."""
    command = [sys.executable, "-m", "skal", "serve", str(model), "--images", str(images)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = None
        while address is None and (line := process.stderr.readline()):
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address is not None
        with httpx.Client(base_url=address[0], timeout=60) as client:
            client.get("/health").raise_for_status()
            yield client, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def waited(client: httpx.Client, path: str, body: dict[str, Any]) -> tuple[float, float]:
    """Return the median and the longest of some waits, in milliseconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        answer = client.post(path, json=body)
        times.append(1000 * (time.perf_counter() - started))
        assert len(answer.json().get("results", [])) == len(body.get("tasks", []))
    return float(np.median(times)), max(times)


@click.command()
@click.option("--n-images", default=20_000)
def main(n_images: int) -> None:
    with tempfile.TemporaryDirectory(prefix="skal-serve-") as scratch:
        root, model = Path(scratch) / "bars", Path(scratch) / "model"
        os.environ["SKAL_DATA_DIR"] = str(Path(scratch) / "data")
        make(root, n_images)
        train = [sys.executable, "-m", "skal", "train", str(root), "--out", str(model)]
        subprocess.run(train, check=True, capture_output=True)
        paths = [f"{n % 100:02d}/{n:05d}.png" for n in range(n_images)]
        tasks = [
            {"id": n, "data": {"image": f"/data/local-files/?d=bars/{path}"}}
            for n, path in enumerate(paths)
        ]
        config = labeling_config(CLASSES)
        with serving(model, root) as (_, first):
            pass
        rows = []
        with serving(model, root) as (client, again):
            rows.append(["`/setup`", *waited(client, "/setup", {"project": "1.1"})])
            for n in (1, 250):
                body = {"tasks": tasks[-n:], "label_config": config}
                name = f"`/predict`, {n} task{'s' if n > 1 else ''}"
                rows.append([name, *waited(client, "/predict", body)])
    report(
        f"skal serve, {n_images:,} images kept",
        ["request", "ms, median", "ms, longest"],
        [[name, f"{median:.1f}", f"{most:.1f}"] for name, median, most in rows],
        f"{REPEATS} requests each. The server answered {first:.1f} s after its first start, in "
        f"which all images were predicted (lenet, 12 px), and {again:.1f} s after the second.",
    )


if __name__ == "__main__":
    main()
