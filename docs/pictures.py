"""Make the pictures of the labelling page in these documents.

python docs/pictures.py IMAGES

IMAGES are class folders, such as Debian's openclipart-png; 150 images of each of three classes are
labelled as their folders say, through the page's own interface, and each view is taken.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CLASSES = ("animals", "food", "people")
EACH = 150
SIZE = {"width": 1200, "height": 740}
COLOURS = 128
"""Of a picture's palette: small, and without a difference to the eye."""


def choose(source: Path, folder: Path) -> dict[str, str]:
    """Copy some images of each class into one folder; return the class of each by name."""
    folder.mkdir()
    classes = {}
    for name in CLASSES:
        found = sorted(path for path in (source / name).rglob("*.png") if path.is_file())
        for path in found[:: max(1, len(found) // EACH)][:EACH]:
            target = f"{len(classes) * 7919 % 100000:05}.png"
            shutil.copy(path, folder / target)
            classes[target] = name
    return classes


def label(address: str, classes: dict[str, str], n: int) -> None:
    """Label images through the page's interface, every eighth wrongly, waiting for networks."""
    url, _, query = address.partition("/?")
    with httpx.Client(base_url=url, timeout=120) as client:
        page = client.get(f"/?{query}", follow_redirects=True).text
        client.headers["X-Skal-Project"] = re.search(r'data-project="(\w+)"', page)[1]  # type: ignore[index]
        state = client.post("/api/next", json={"as": "me"}).json()
        for done in range(n):
            while not state["queue"] or (done % 20 == 19 and state["learner"] == "training"):
                time.sleep(0.2)
                state = client.post("/api/next", json={"as": "me"}).json()
            image = state["queue"][0]
            said = CLASSES.index(classes[image["name"]])
            said = (said + 1) % len(CLASSES) if done % 25 == 24 else said
            body = {"as": "me", "action": "label", "image": image["image"], "label": said}
            state = client.post("/api/actions", json=body).json()["state"]


def review(page: Page) -> None:
    page.keyboard.press("r")
    page.wait_for_timeout(1500)


def doubts(page: Page) -> None:
    review(page)
    page.get_by_role("button", name="Doubtful labels").click()
    page.locator("#found", has_text=re.compile(r"\d doubtful")).wait_for(timeout=120_000)
    page.wait_for_timeout(1500)


def image_map(page: Page) -> None:
    page.keyboard.press("m")
    page.locator("#map-state", has_text="t-SNE").wait_for(timeout=300_000)
    page.get_by_label("Colour by").select_option("guess")
    page.wait_for_timeout(500)
    box = page.locator("#points").bounding_box()
    assert box
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    for step in range(60):
        if page.locator("#map-card").is_visible():
            break
        page.mouse.move(box["x"] + (0.4 + step / 300) * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_timeout(500)


VIEWS: dict[str, Callable[[Page], None]] = {
    "label": lambda page: (page.keyboard.press("s"), page.wait_for_timeout(2000))[1],
    "grid": lambda page: (page.keyboard.press("g"), page.wait_for_timeout(1500))[1],
    "review": review,
    "doubts": doubts,
    "map": image_map,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--n", type=int, default=220)
    parser.add_argument("--views", nargs="*", default=list(VIEWS))
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "clip art"
        classes = choose(given.images, folder)
        command = [sys.executable, "-m", "skal", "label", str(folder), "--no-browser", "--suggest"]
        command += ["--classes", ",".join(CLASSES), "--until", "90%", "--n-query", "20"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout
        address = server.stdout.readline().strip()
        try:
            label(address, classes, given.n)
            take(address, given.out, given.views, "dark" if given.dark else "light")
        finally:
            server.terminate()
            server.wait()


def take(address: str, out: Path, views: list[str], scheme: str) -> None:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in views:
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto(address)
            page.locator("#picture img").wait_for()
            VIEWS[name](page)
            path = out / f"{name}.png"
            page.screenshot(path=path)
            page.close()
            Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
                path, optimize=True
            )
            print(path, path.stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
