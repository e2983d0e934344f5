"""What axe-core finds wrong with a page for those who do not see, or see little."""

from __future__ import annotations

from importlib import resources
from typing import Any


def faults(page: Any) -> list[str]:
    """Return what axe-core finds on a page of Playwright's, a line for each element."""
    if not page.evaluate("() => 'axe' in window"):
        axe = resources.files("axe_playwright_python").joinpath("axe.min.js")
        page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['html'][:150]} ({node['failureSummary'][:300]})"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]
