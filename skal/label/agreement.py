"""How far annotators agree, on the images that several of them labelled."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ..core.text import counted, shown
from .project import LabelProject


@dataclass(frozen=True)
class Agreement:
    """The agreement of two annotators.

    Both labelled `n` images, `n_same` of them with the same label. `kappa` is Cohen's kappa (1960),
    agreement beyond chance; it is NaN if both gave all images one label.
    """

    first: str
    second: str
    n: int
    n_same: int
    kappa: float

    def __str__(self) -> str:
        images = counted(self.n, "image")
        return (
            f"{self.first} and {self.second}: {images}, {self.n_same} with the same label, "
            f"Cohen's kappa {_told(self.kappa)}"
        )


def agreements(project: LabelProject) -> list[Agreement]:
    """Return the agreement of each pair of annotators with images in common."""
    from sklearn.metrics import cohen_kappa_score

    ledger, found = project.ledger, []
    labels: dict[str, dict[int, int]] = {who: {} for who in ledger.annotators()}
    for image in ledger.images():
        for who, label in ledger.votes(image).items():
            labels[who][image] = label
    for first, second in combinations(labels, 2):
        shared = sorted(labels[first].keys() & labels[second].keys())
        if not shared:
            continue
        one, other = ([labels[who][image] for image in shared] for who in (first, second))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the division by zero that gives NaN
            kappa = float(cohen_kappa_score(one, other))
        n_same = sum(a == b for a, b in zip(one, other, strict=True))
        found.append(Agreement(first, second, len(shared), n_same, kappa))
    return found


@dataclass(frozen=True)
class Alpha:
    """The agreement of three people or more: Krippendorff's alpha (2004) for nominal data.

    It measures agreement beyond chance on the `n` images that at least two of the `n_people`
    labelled; it is NaN if there is only one label.
    """

    n_people: int
    n: int
    value: float

    def __str__(self) -> str:
        value = f"{counted(self.n, 'image')}, Krippendorff's alpha {_told(self.value)}"
        return f"all {self.n_people}: {value}"


def _told(value: float) -> str:
    return "undefined (only one class)" if math.isnan(value) else f"{value:.3f}"


def alpha(project: LabelProject) -> Alpha | None:
    """Return the agreement of all people with images in common; None for fewer than 3 people."""
    given = [project.ledger.votes(n) for n in project.ledger.images() if n in project.paths]
    given = [votes for votes in given if len(votes) > 1]
    n_people = len({who for votes in given for who in votes})
    if n_people < 3:
        return None
    return Alpha(n_people, len(given), krippendorff([Counter(v.values()) for v in given]))


def krippendorff(units: Sequence[Counter[int]]) -> float:
    """Return Krippendorff's alpha for nominal data, from the counts of each label in each unit.

    Units with a single answer are ignored. It is NaN if there is only one label.
    """
    units = [unit for unit in units if unit.total() > 1]
    totals = sum(units, Counter[int]())
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    if not expected:
        return math.nan
    observed = sum(
        (unit.total() ** 2 - sum(count * count for count in unit.values())) / (unit.total() - 1)
        for unit in units
    )
    return 1 - (n - 1) * observed / expected


def disputed(project: LabelProject) -> list[tuple[str, dict[str, str]]]:
    """Return the paths of disputed images, each with its labels by annotator."""
    ledger, names = project.ledger, project.classes
    there = sorted((project.paths[n], n) for n in ledger.disputed if n in project.paths)
    return [
        (path, {who: names[label] for who, label in sorted(ledger.votes(image).items())})
        for path, image in there
    ]


def report(project: LabelProject) -> list[str]:
    """Return lines with the agreement of annotators, and the images that they label differently."""
    lines = [str(pair) for pair in agreements(project)]
    if not lines:
        advice = "" if project.terms.overlap else "; --overlap 10% shows some images to two people"
        return [f"no image was labelled by two people{advice}"]
    if together := alpha(project):
        lines.append(str(together))
    if images := disputed(project):
        lines += ["", f"{counted(len(images), 'image')} with different labels:"]
    for path, labels in images:
        said = ", ".join(f"{who}: {name}" for who, name in labels.items())
        lines.append(f"{shown(path)}\t{said}")
    return lines
