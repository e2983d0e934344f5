"""The report of `skal label --status`: labels, accuracy, and progress towards the target."""

from __future__ import annotations

from collections import Counter

from ..core.text import counted, plural, shown
from .project import LabelProject
from .sample import ENOUGH
from .telling import people

MOST_POINTS = 8
"""Points of the learning curve to print, so that it stays one line."""


def report(project: LabelProject) -> list[str]:
    """Return the lines of the report."""
    aside, labels = Counter(project.ledger.aside.values()), project.labels
    others = "".join(f", {aside[kind]} {kind}" for kind in ("unsure", "bad") if aside[kind])
    counts = Counter(labels.values())
    classes = ", ".join(f"{shown(name)} {counts[n]}" for n, name in enumerate(project.classes))
    lines = [
        f"{len(labels)} of {counted(len(project.paths), 'image')} labelled{others}",
        f"classes: {classes}",
    ]
    answered = people(project)
    if len(answered) > 1:
        lines.append("answers: " + ", ".join(f"{shown(who)} {n}" for who, n in answered.items()))
    if n_disputed := len(project.disputed):
        images, them = counted(n_disputed, "image"), plural(n_disputed, "it", "them")
        lines.append(f"{images} with disputed labels: settle {them} in the review (r)")
    lines.append(f"accuracy: {project.accuracy or 'not known yet'}")
    points = project.curve if len(project.test_labels) >= ENOUGH else []  # else noise
    if points:
        step = -(-len(points) // MOST_POINTS)
        shortened = points[::-step][::-1]  # includes the last
        curve = ", ".join(f"{point.value:.2f} at {n}" for n, point in shortened)
        lines.append(f"learning curve: {curve} labels")
    if verdict := project.verdict:
        lines.append(f"target {100 * verdict.wanted:.4g}%: {verdict.text}")
    return lines
