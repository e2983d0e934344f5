"""Pictures of runs. Imports no torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def learning_curve(rounds: Sequence[Mapping[str, Any]], title: str) -> dict[str, bytes]:
    """Draw test accuracy against the number of labels.

    Parameters
    ----------
    rounds : sequence of mappings
        With `n_labeled` and `accuracy`.
    title : str
        Stands above.

    Returns
    -------
    dict
        The picture's bytes by format, "png" and "svg"; equal for equal input.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    labels = [row["n_labeled"] for row in rounds]
    accuracy = [row["accuracy"] for row in rounds]
    axes.plot(labels, accuracy, marker="o", color="#0072b2", linewidth=2, clip_on=False)
    for x, y in zip(labels[-1:], accuracy[-1:], strict=True):
        axes.annotate(f"{y:.3f}", (x, y), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set(xlabel="labelled images", ylabel="test accuracy")
    # a dataset is called as its folder is: dollars are no formula, and bytes may be no UTF-8
    title = title.encode(errors="replace").decode()
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.15)
    pictures: dict[str, bytes] = {}
    # without dates and random ids, so that equal runs leave equal files
    with matplotlib.rc_context({"svg.hashsalt": "skal"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
            pictures[form] = buffer.getvalue()
    return pictures
