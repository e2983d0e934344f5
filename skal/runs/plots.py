"""Pictures of one run, or of one strategy's runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .drawing import (
    COLORS,
    FORMS,
    NEUTRAL,
    Pictures,
    draw_shares,
    label_curves,
    new_figure,
    set_title,
    shorten,
    slant,
    style,
    to_pictures,
)

MOST_ANNOTATED = 20


def learning_curve(rounds: Sequence[Mapping[str, Any]], title: str) -> Pictures:
    """Draw test accuracy against the number of labels.

    Parameters
    ----------
    rounds : sequence of mappings
        With `n_labeled` and `accuracy`; `valid_accuracy` is drawn too, if there is one.
    title : str
        Stands above.

    Returns
    -------
    dict
        The picture's bytes by format, "png" and "svg"; equal for equal input.
    """
    with style():
        figure = new_figure(6.4, 4.2)
        axes = figure.subplots()
        labels = [row["n_labeled"] for row in rounds]
        accuracy = [row["accuracy"] for row in rounds]
        axes.plot(
            labels, accuracy, marker="o", color=COLORS[0], linewidth=2, clip_on=False, label="test"
        )
        for x, y in zip(labels[-1:], accuracy[-1:], strict=True):
            axes.annotate(
                f"{y:.3f}", (x, y), textcoords="offset points", xytext=(0, 8), ha="center"
            )
        label_curves(axes)
        set_title(axes, title)
        valid = [row["valid_accuracy"] for row in rounds if "valid_accuracy" in row]
        if valid:
            axes.plot(labels, valid, "--", color=COLORS[1], clip_on=False, label="validation")
            axes.set_ylabel("accuracy")
            axes.legend(frameon=False)
        axes.margins(y=0.15)
        return to_pictures(figure)


def loss_curve(steps: Sequence[int], losses: Sequence[float], title: str) -> Pictures:
    """Draw a training loss against the optimiser steps.

    Parameters
    ----------
    steps : sequence of int
        Where each point stands.
    losses : sequence of float
        The points.
    title : str
        Stands above.

    Returns
    -------
    dict
        The picture's bytes by format, "png" and "svg"; equal for equal input.
    """
    with style():
        figure = new_figure(6.4, 4.2)
        axes = figure.subplots()
        axes.plot(steps, losses, color=COLORS[0], linewidth=1.5)
        axes.set(xlabel="optimiser steps", ylabel="training loss")
        set_title(axes, title)
        return to_pictures(figure)


def confusion_picture(evaluation: Mapping[str, Any], forms: Iterable[str] = FORMS) -> Pictures:
    """Draw a confusion matrix, each row by its share.

    Parameters
    ----------
    evaluation : mapping
        The content of ``evaluation.json``.
    forms : iterable of str
        Which formats are wanted.

    Returns
    -------
    dict
        The picture's bytes by format, equal for equal input.
    """
    names = [shorten(name, 18) for name in evaluation["classes"]]
    counts = np.array(evaluation["confusion"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(names) <= MOST_ANNOTATED
    with style():
        size = max(3.4, 1.4 + 0.36 * len(names)) if few else 5.5
        figure = new_figure(size, size)
        axes = figure.subplots()
        draw_shares(axes, shares, "{:.0f}", 7, counts if few else np.zeros_like(counts))
        if few:
            axes.set_xticks(range(len(names)), names, fontsize=8, **slant(names))
            axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="predicted", ylabel="true")
        return to_pictures(figure, forms)


def calibration_picture(evaluation: Mapping[str, Any], forms: Iterable[str] = FORMS) -> Pictures:
    """Draw accuracy against confidence, bin by bin, over the number of images in each bin.

    Parameters
    ----------
    evaluation : mapping
        The content of ``evaluation.json``.
    forms : iterable of str
        Which formats are wanted.

    Returns
    -------
    dict
        The picture's bytes by format, equal for equal input.
    """
    bins = evaluation["calibration"]
    edges = np.array(bins["edges"], dtype=float)
    filled = [i for i, count in enumerate(bins["count"]) if count]
    with style():
        figure = new_figure(3.8, 4.2)
        upper, lower = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}, squeeze=True
        )
        upper.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", linewidth=1)
        confidence = [bins["confidence"][i] for i in filled]
        accuracy = [bins["accuracy"][i] for i in filled]
        counts = np.array([bins["count"][i] for i in filled], dtype=float)
        upper.plot(confidence, accuracy, color=COLORS[0], linewidth=1)
        # a bin of few images says little
        sizes = 8 + 60 * counts / counts.max()
        upper.scatter(confidence, accuracy, sizes, color=COLORS[0], clip_on=False, zorder=3)
        upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
        lower.bar(edges[:-1], bins["count"], np.diff(edges), align="edge", color=COLORS[0])
        lower.set(xlabel="confidence", ylabel="images")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        return to_pictures(figure, forms)
