"""The page of `skal label` in headless Chromium: how soon the next image follows a key.

python benchmarks/label_page.py

A pool of 20,000 JPEG images of 640 x 480 px is written to a temporary folder (or to --images,
which is kept), `skal label` is started on it with its defaults, and 100 keys are pressed through
Chromium's own input events, --pause seconds apart, while the network trains behind.

From a key to the image: from the `timeStamp` of the keydown event, which is when the browser got
the key, to the second animation frame after it, whose callback runs when the frame that holds the
new image, decoded and in the page, has been handed on for painting; where the image is not there in
the first frame, to the frame after the one that has it. Beside it the browser's own Element Timing
(`renderTime` of the new image).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from _report import report
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

SKAL = Path(sys.executable).with_name("skal")
CLASSES = ("dark", "middle", "bright")
STARTS = 5
WATCH = """
window.keys = []; window.painted = []; window.saved = [];
const shown = () => document.querySelector('#picture img');
const round = () => document.querySelector('#round').textContent;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.painted.push(entry.renderTime);
}).observe({type: 'element', buffered: true});
new MutationObserver((changes) => {
  for (const {addedNodes, target} of changes) {
    if (target.id === 'status' && /^Saved/.test(target.textContent)) {
      window.saved.push(performance.now());
    }
    for (const node of addedNodes) {
      if (node.tagName === 'IMG') node.setAttribute('elementtiming', 'picture');
    }
  }
}).observe(document, {childList: true, subtree: true});
addEventListener('keydown', (event) => {
  const key = {start: event.timeStamp, round: round()}, before = shown();
  const record = () => window.keys.push({...key, end: performance.now()});
  const look = () => {
    const image = shown(), is_there = image?.complete && image.naturalWidth && image !== before;
    requestAnimationFrame(is_there ? record : look);
  };
  requestAnimationFrame(look);
}, true);
"""


def write_images(folder: Path, n: int) -> None:
    """Write noise of few details on grounds of different brightness, each image another."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(_write_image, [folder / f"{i:05}.jpg" for i in range(n)], chunksize=100))


def _write_image(path: Path) -> None:
    if path.exists():
        return
    rng = np.random.default_rng(int(path.stem))
    coarse = rng.integers(0, 80, (12, 16, 3)) + 80 * (int(path.stem) % 3)
    Image.fromarray(coarse.astype(np.uint8)).resize((640, 480), Image.Resampling.BICUBIC).save(path)


class Labelling:
    """`skal label` on a folder; the address of its page, and when it was started."""

    def __init__(self, folder: Path) -> None:
        command = [SKAL, "label", folder, "--classes", ",".join(CLASSES), "--no-browser"]
        self.start = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},  # with bytecode, as installed
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#picture img").wait_for()
    page.locator("#picture img").evaluate("image => image.decode()")


def time_start(browser: Browser, folder: Path) -> float:
    """Return ms from the start of the command to the first image on the page, in a tab that is
    open, as when a page is loaded again: to open one takes Chromium up to half a second more.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    labelling = Labelling(folder)
    open_page(page, labelling.address)
    milliseconds = 1000 * (time.perf_counter() - labelling.start)
    page.close()
    labelling.stop()
    return milliseconds


def press_keys(page: Page, n: int, pause: float) -> None:
    for i in range(n):
        name = page.locator("#name").inner_text()
        page.keyboard.press(str(1 + i % len(CLASSES)))
        expect(page.locator("#name")).not_to_have_text(name)
        page.wait_for_timeout(1000 * pause)


def times_of(page: Page, skipped: int) -> tuple[list[float], ...]:
    """Return ms from key to image by frames, by Element Timing, at ends of batches; to saved."""
    keys = page.evaluate("window.keys")[skipped:]
    painted, saved = (np.array(page.evaluate(f"window.{name}")) for name in ("painted", "saved"))
    starts = [key["start"] for key in keys]
    frames = [key["end"] - key["start"] for key in keys]
    rounds = [key["round"].split(",")[1] for key in keys]
    ends = [
        time for time, now, then in zip(frames, rounds, rounds[1:], strict=False) if now != then
    ]
    return frames, _first_after(painted, starts), ends, _first_after(saved, starts)


def _first_after(times: np.ndarray, starts: Sequence[float]) -> list[float]:
    return [float(times[times > start].min() - start) for start in starts if (times > start).any()]


def main() -> None:
    """Time it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="keep them here, and take those that are there")
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between keys")
    parser.add_argument("--print-only", action="store_true", help="leave RESULTS.md alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = arguments.images or Path(temporary) / "pool"
        write_images(folder, arguments.n)
        shutil.rmtree(folder / ".skal", ignore_errors=True)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        labelling = Labelling(folder)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(WATCH)
        open_page(page, labelling.address)
        press_keys(page, 5 + arguments.keys, arguments.pause)
        frames, painted, ends, saved = times_of(page, skipped=5)
        page.close()
        labelling.stop()
        starts = [time_start(browser, folder) for _ in range(STARTS)]
        browser.close()
    rows = [
        _row("key to next image, second animation frame", frames, "30"),
        _row("key to next image, Element Timing", painted, ""),
        _row("key to first image of the next batch, second animation frame", ends, "100"),
        _row("key to “Saved” (on the disk, acknowledged, shown)", saved, ""),
        _row("start of `skal label` on a cached pool to first image", starts, "1200"),
    ]
    report(
        f"The labelling page, {arguments.n:,} images",
        ["from what to what", "n", "ms, median", "95%", "slowest", "target"],
        rows,
        "Headless Chromium beside the server and the training network on the same processors; the "
        f"method is in the script's head. {arguments.pause:g} s between keys.",
        keep=not arguments.print_only,
    )


def _row(name: str, times: Sequence[float], target: str) -> list[str]:
    if not times:
        return [name, "0", "", "", "", target]
    figures = (np.median(times), np.quantile(times, 0.95), max(times))
    return [name, str(len(times)), *(f"{figure:.0f}" for figure in figures), target]


if __name__ == "__main__":
    main()
