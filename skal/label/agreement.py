"""How far annotators agree, on the images that two of them labelled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from .names import shown
from .project import LabelProject


@dataclass(frozen=True)
class Agreement:
    """Two annotators.

    They both labelled `n` images, `n_same` of them alike; `kappa` is Cohen's (1960), agreement
    beyond what chance would make: NaN where both gave all images the one same label, which leaves
    nothing to chance.
    """

    first: str
    second: str
    n: int
    n_same: int
    kappa: float

    def __str__(self) -> str:
        kappa = "undefined (only one class)" if math.isnan(self.kappa) else f"{self.kappa:.3f}"
        return (
            f"{self.first} and {self.second}: {self.n} images, {self.n_same} with the same label, "
            f"Cohen's kappa {kappa}"
        )


def agreements(project: LabelProject) -> list[Agreement]:
    """Return how far each two annotators agree who labelled some image both."""
    from sklearn.metrics import cohen_kappa_score

    labels = labels_by_annotator(project)
    found = []
    for first, second in combinations(labels, 2):
        shared = sorted(labels[first].keys() & labels[second].keys())
        if not shared:
            continue
        one, other = ([labels[who][image] for image in shared] for who in (first, second))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a division by zero, where the answer is NaN
            kappa = float(cohen_kappa_score(one, other))
        n_same = sum(a == b for a, b in zip(one, other, strict=True))
        found.append(Agreement(first, second, len(shared), n_same, kappa))
    return found


def disputed(project: LabelProject) -> list[tuple[str, dict[str, str]]]:
    """Return the images with different labels: where each lies, and its label by annotator."""
    labels = labels_by_annotator(project)
    by_path = sorted(project.paths.items(), key=lambda item: item[1])
    names = [
        (path, {who: project.classes[of[image]] for who, of in labels.items() if image in of})
        for image, path in by_path
    ]
    return [(path, given) for path, given in names if len(set(given.values())) > 1]


def labels_by_annotator(project: LabelProject) -> Mapping[str, dict[int, int]]:
    labels: dict[str, dict[int, int]] = {who: {} for who in project.ledger.annotators()}
    for image in project.ledger.images():
        for who, action in project.ledger.verdicts(image).items():
            if action.action == "label" and action.label is not None:
                labels[who][image] = action.label
    return labels


def report(project: LabelProject) -> list[str]:
    """Return in lines how far annotators agree, and which images they label differently."""
    lines = [str(pair) for pair in agreements(project)]
    if not lines:
        advice = "" if project.overlap else "; --overlap 10% shows some to both"
        return [f"no image was labelled by two annotators{advice}"]
    images = disputed(project)
    if images:
        lines += ["", f"{len(images)} images with different labels:"]
    for path, labels in images:
        said = ", ".join(f"{who}: {name}" for who, name in labels.items())
        lines.append(f"{shown(path)}\t{said}")
    return lines
