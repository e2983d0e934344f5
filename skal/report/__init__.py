"""What is made of finished runs: tables, pictures, and a page to look at. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis import analyse
from ..errors import MissingExtraError
from ..files import write_atomic
from ..plots import (
    Analysis,
    Pictures,
    comparison_curves,
    efficiency_bars,
    noise_curves,
    penalty_heatmap,
    ranks_diagram,
)
from ..results import Result
from .tables import results_csv, text_table

__all__ = ["REPORT", "check_extra", "results_csv", "text_table", "write_report"]

REPORT = "report.html"
PICTURES: Mapping[str, Callable[[Analysis], Pictures | None]] = {
    "curves": comparison_curves,
    "efficiency": efficiency_bars,
    "penalty": penalty_heatmap,
    "noise": noise_curves,
    "ranks": ranks_diagram,
}
"""Each makes a file of its name in each format, or None where there is nothing to draw."""


def write_report(
    results: Sequence[Result], folder: str | Path, html: bool = False, baseline: str = "random"
) -> dict[str, Any]:
    """Compare finished runs, and write what there is to say of them.

    Parameters
    ----------
    results : sequence of Result
        At least one.
    folder : str or Path
        Where to, made if it is not there: ``results.csv``, ``comparison.json``, and the pictures
        of `PICTURES` as PNG and SVG. They take the place of older ones.
    html : bool, default=False
        Whether ``report.html`` is written, too.
    baseline : str, default="random"
        The strategy that the others are compared with.

    Returns
    -------
    dict
        The content of ``comparison.json``, see `skal.statistics.analyse`.

    Raises
    ------
    MissingExtraError
        If `html` is asked for, and the extra ``report`` is not installed.
    RunFolderError, DataError
        If the runs cannot be compared; see `skal.statistics.analyse`.
    """
    folder = Path(folder)
    if html:
        check_extra()
    analysis = analyse(results, baseline)
    pictures = {name: draw(analysis) for name, draw in PICTURES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "results.csv", results_csv(results))
    for name, picture in pictures.items():
        for form in ("png", "svg"):
            path = folder / f"{name}.{form}"
            if picture is None:
                path.unlink(missing_ok=True)  # it is of fewer or of other runs
            else:
                write_atomic(path, picture[form])
    write_atomic(folder / "comparison.json", json.dumps(analysis, indent=2) + "\n")
    if html:
        from .page import make_page

        write_atomic(folder / REPORT, make_page(results, analysis, pictures, folder))
    return analysis


def check_extra() -> None:
    """Make sure that what ``report.html`` needs is installed.

    Raises
    ------
    MissingExtraError
        If it is not.
    """
    for module in ("jinja2", "plotly"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, "report", "the report as HTML")
