"""Plots of a run, or of one strategy's runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from . import drawing

MOST_ANNOTATED = 20


def learning_curve(rounds: Sequence[Mapping[str, Any]], title: str) -> drawing.Pictures:
    """Plot test accuracy, and `valid_accuracy` if it exists, against the number of labels."""
    with drawing.style():
        figure = drawing.new_figure(6.4, 4.2)
        axes = figure.subplots()
        labels = [row["n_labeled"] for row in rounds]
        accuracy = [row["accuracy"] for row in rounds]
        how: dict[str, Any] = {"marker": "o", "color": drawing.COLORS[0], "linewidth": 2}
        axes.plot(labels, accuracy, **how, clip_on=False, label="test")
        how = {"textcoords": "offset points", "xytext": (0, 8), "ha": "center"}
        axes.annotate(f"{accuracy[-1]:.3f}", (labels[-1], accuracy[-1]), **how)
        drawing.label_curves(axes)
        drawing.set_title(axes, title)
        valid = [row["valid_accuracy"] for row in rounds if "valid_accuracy" in row]
        if valid:
            axes.plot(
                labels, valid, "--", color=drawing.COLORS[1], clip_on=False, label="validation"
            )
            axes.set_ylabel("accuracy")
            axes.legend(frameon=False)
        axes.margins(y=0.15)
        return drawing.to_pictures(figure)


def loss_curve(curve: Sequence[tuple[int, float]], title: str) -> drawing.Pictures:
    """Plot a training loss against optimiser steps."""
    with drawing.style():
        figure = drawing.new_figure(6.4, 4.2)
        axes = figure.subplots()
        axes.plot(*zip(*curve, strict=True), color=drawing.COLORS[0], linewidth=1.5)
        axes.set(xlabel="optimiser steps", ylabel="training loss")
        drawing.set_title(axes, title)
        return drawing.to_pictures(figure)


def confusion_picture(
    evaluation: Mapping[str, Any], forms: Iterable[str] = drawing.FORMS
) -> drawing.Pictures:
    """Plot the confusion matrix of an ``evaluation.json``, with colours by share of the row."""
    names = [drawing.shorten(name, 18) for name in evaluation["classes"]]
    counts = np.array(evaluation["confusion"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(names) <= MOST_ANNOTATED
    with drawing.style():
        size = max(3.4, 1.4 + 0.36 * len(names)) if few else 5.5
        figure = drawing.new_figure(size, size)
        axes = figure.subplots()
        drawing.draw_shares(axes, shares, "{:.0f}", 7, counts if few else np.zeros_like(counts))
        if few:
            axes.set_xticks(range(len(names)), names, fontsize=8, **drawing.slant(names))
            axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="predicted", ylabel="true")
        return drawing.to_pictures(figure, forms)


def calibration_picture(
    evaluation: Mapping[str, Any], forms: Iterable[str] = drawing.FORMS
) -> drawing.Pictures:
    """Plot the reliability diagram of an ``evaluation.json``, above the image count per bin."""
    bins = {name: np.array(of, dtype=float) for name, of in evaluation["calibration"].items()}
    filled = bins["count"] > 0
    confidence, accuracy = bins["confidence"][filled], bins["accuracy"][filled]
    # markers grow with the number of images, since small bins are noisy
    sizes = 8 + 60 * bins["count"][filled] / bins["count"].max()
    with drawing.style():
        figure = drawing.new_figure(3.8, 4.2)
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        upper.plot([0, 1], [0, 1], color=drawing.NEUTRAL, linestyle="--", linewidth=1)
        upper.plot(confidence, accuracy, color=drawing.COLORS[0], linewidth=1)
        upper.scatter(confidence, accuracy, sizes, color=drawing.COLORS[0], clip_on=False, zorder=3)
        upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
        widths = np.diff(bins["edges"])
        lower.bar(bins["edges"][:-1], bins["count"], widths, align="edge", color=drawing.COLORS[0])
        lower.set(xlabel="confidence", ylabel="images")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        return drawing.to_pictures(figure, forms)
