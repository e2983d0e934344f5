"""Review and map of `skal label` with 100,000 images in headless Chromium: how smooth they are.

python benchmarks/label_frames.py

A project of 100,000 small images (one file each, linked to a hundred different ones) with made-up
embeddings and probabilities is served; Chromium scrolls through the review, and zooms into and pans
over the map, by its own input events for --seconds each. Of the times between animation frames that
passed meanwhile, the share above 33 ms, which is two frames of a screen at 60 Hz, is told.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvicorn
from _report import report
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from skal.label.learning import Guesses
from skal.label.project import LabelProject
from skal.label.service import LabelService
from skal.label.web.address import listen
from skal.label.web.server import make_app

TOKEN = "benchmark"
CLASSES = [f"class {n}" for n in range(9)]
DIFFERENT = 100
SLOW = 1000 / 30
WATCH = """() => {
  window.frames_ = []; let last = performance.now();
  const tick = (now) => {
    window.frames_.push(now - last);
    last = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame((now) => { last = now; requestAnimationFrame(tick); });
}"""


def write_images(folder: Path, n: int) -> None:
    sources = folder.with_name("sources")
    sources.mkdir()
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(DIFFERENT):
        coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(sources / f"{i}.png")
    for i in range(n):
        os.link(sources / f"{i % DIFFERENT}.png", folder / f"{i:06}.png")


def made_up(project: LabelProject) -> Guesses:
    images = np.array(sorted(project.paths))
    rng = np.random.default_rng(0)
    group = rng.integers(0, len(CLASSES), len(images))
    embeddings = rng.normal(size=(len(images), 32)) + 6 * rng.normal(size=(len(CLASSES), 32))[group]
    proba = rng.dirichlet(np.full(len(CLASSES), 0.3), len(images))
    return Guesses(images, proba.astype("f"), embeddings.astype("f"), 100, "made up")


def scroll(page: Page, step: int) -> None:
    page.mouse.wheel(0, 240 if step % 40 < 30 else -480)


def zoom_and_pan(page: Page, step: int) -> None:
    if step % 2:
        page.mouse.wheel(0, -60 if step % 80 < 40 else 60)
    else:
        page.keyboard.press("ArrowRight" if step % 80 < 40 else "ArrowLeft")


def frames(
    page: Page, deed: Callable[[Page, int], None], selector: str, seconds: float
) -> list[str]:
    box = page.locator(selector).bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.evaluate(WATCH)
    steps = int(seconds * 30)
    for step in range(steps):
        deed(page, step)
        page.wait_for_timeout(1000 / 30)
    times = np.array(page.evaluate("window.frames_"))
    middle, high = np.percentile(times, (50, 99))
    return [str(len(times)), f"{(times > SLOW).mean():.1%}", f"{middle:.1f}", f"{high:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        write_images(folder, given.n)
        project = LabelProject.open(folder, CLASSES)
        project.guesses = made_up(project)
        bound = listen("127.0.0.1", 0)
        port = bound.getsockname()[1]
        app = make_app(LabelService(project), token=TOKEN, port=port, suggest=True)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            rows = measured(f"http://127.0.0.1:{port}/?token={TOKEN}", given.seconds)
        finally:
            server.should_exit = True
            thread.join()
            project.close()
    report(
        f"Review and map of the labelling page, {given.n:,} images",
        ["what", "frames", "above 33 ms", "ms, median", "99%", "target"],
        rows,
        "Headless Chromium, which draws without a graphics card, beside the server and whatever "
        "else runs on the same processors: the page at rest shows how much that is. The method is "
        "in the script's head.",
    )


def measured(address: str, seconds: float) -> list[list[str]]:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.locator("#picture img").wait_for()
        rest = frames(page, lambda page, step: None, "#picture", seconds)
        rows = [["page at rest", *rest, ""]]
        page.keyboard.press("r")
        page.locator("#tiles [role=option] img").first.wait_for()
        rows.append(["review, scrolled", *frames(page, scroll, "#tiles", seconds), "2%"])
        page.keyboard.press("m")
        page.locator("#map-state", has_text="by PCA").wait_for()
        page.locator("#points").focus()
        page.get_by_label("Colour by").select_option("guess")
        page.locator("#points").focus()
        moved = frames(page, zoom_and_pan, "#points", seconds)
        rows.append(["map, zoomed and panned", *moved, "2%"])
        browser.close()
    return rows


if __name__ == "__main__":
    main()
