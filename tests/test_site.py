"""The site of the documents, built and looked at in a real browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from axe import faults

for module in ("furo", "myst_parser", "sphinx", "axe_playwright_python", "playwright"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
PAGES = ("docs/index", "docs/labelling", "docs/settings", "docs/reference/commands", "CHANGELOG")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", str(ROOT / "docs")]
    command += ["-d", str(place / "trees"), str(ROOT), str(place / "html")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    return place / "html"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_fault(browser: Any, site: Path, scheme: str, width: int) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, told = context.new_page(), []
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        told += [f"{name}: {fault}" for fault in faults(page)]
    context.close()
    assert told == []
