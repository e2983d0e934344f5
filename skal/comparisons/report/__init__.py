"""Reports on finished runs: tables, plots, and an HTML page. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.durable import LEFT, remove_leftovers, write_atomic
from ...core.errors import require
from ...runs.drawing import Pictures
from .. import plots
from ..folder import ANALYSIS, check_place
from ..pairs import tell_apart
from ..results import Result
from ..verdicts import analyse
from .tables import results_csv as results_csv
from .tables import text_table as text_table

REPORT = "report.html"
PICTURES: Mapping[str, Callable[[plots.Analysis], Pictures | None]] = {
    "curves": plots.comparison_curves,
    "differences": plots.difference_curves,
    "efficiency": plots.efficiency_bars,
    "penalty": plots.penalty_heatmap,
    "noise": plots.noise_curves,
    "ranks": plots.ranks_diagram,
}
"""Plots by file name; each returns None if there is nothing to draw."""


def write_report(
    results: Sequence[Result],
    folder: str | Path,
    html: bool = False,
    baseline: str = "random",
    *,
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """Write ``results.csv``, ``comparison.json``, `PICTURES` and, with `html`, ``report.html``,
    replacing earlier ones; return the result of `analyse`. `failed` names runs to warn about. Raise
    a RunExistsError if the folder holds anything else, a MissingExtraError if packages for `html`
    are missing, and the errors of `analyse`.
    """
    folder = Path(folder)
    if html:
        check_extra()
    check_place(folder)
    results = tell_apart(results)
    analysis = analyse(results, baseline, failed)
    pictures = {name: draw(analysis) for name, draw in PICTURES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, untouched=LEFT)
    # first, since this file marks the folder as a report
    write_atomic(folder / ANALYSIS, json.dumps(analysis, indent=2) + "\n")
    write_atomic(folder / "results.csv", results_csv(results))
    for name, picture in pictures.items():
        for form in ("png", "svg"):
            path = folder / f"{name}.{form}"
            if picture is None:
                path.unlink(missing_ok=True)  # left by a report on other runs
            else:
                write_atomic(path, picture[form])
    if html:
        from .page import make_page

        write_atomic(folder / REPORT, make_page(results, analysis, pictures, folder))
    return analysis


def check_extra() -> None:
    """Raise a MissingExtraError if packages for ``report.html`` are not installed."""
    for module in ("jinja2", "plotly"):
        require(module, "report", "the report as HTML")
