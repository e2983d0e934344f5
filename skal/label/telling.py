"""The facts that the page shows of a project: counts, accuracy, and why an image is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Sequence
from typing import Any

import numpy as np

from ..core.text import plain_text
from .learning import Guesses
from .ledger import TEST
from .project import LabelProject
from .store import BatchRow

MOST_NAMES = 20
"""Unreadable files to name."""
UNDECIDED = 0.2
"""The network is undecided if its two highest class probabilities differ by less."""
NEIGHBOURS = 10
"""Nearest images to check for a label."""

CAUSES = {
    "start": "Picked before there is a model ({0.init_strategy})",
    "strategy": "Picked by the strategy ({0.strategy})",
    "doubt": "Shown while the next batch is computed",
    "chance": "Drawn at random while the next batch is computed",
    TEST: "Drawn at random to measure accuracy",
}
"""Why an image is shown, by the kind of its row."""
BY_MODEL = ("strategy", "doubt")
"""Kinds for which the network's prediction explains the pick."""


def counts(project: LabelProject, unreadable: Collection[int]) -> dict[str, Any]:
    """Return the numbers of images by answer and class, given the `unreadable` ones."""
    n_of = Counter(project.labels.values())
    aside = list(project.ledger.aside.values())
    names = sorted(project.paths[n] for n in unreadable if n in project.paths)
    return {
        "n_labeled": sum(n_of.values()),
        "n_images": len(project.paths) - len(names),
        "n_unsure": aside.count("unsure"),
        "n_bad": aside.count("bad"),
        "n_disputed": len(project.disputed),
        "people": [{"name": plain_text(who), "n": n} for who, n in people(project).items()],
        "n_unreadable": len(names),
        "unreadable": [plain_text(path) for path in names[:MOST_NAMES]],
        "counts": {str(n): n_of.get(k, 0) for k, n in enumerate(project.class_list.numbers)},
    }


def people(project: LabelProject) -> dict[str, int]:
    """Return how many images each annotator has answered."""
    return {who: n for who, n in sorted(project.ledger.n_answered.items()) if n}


def figures(project: LabelProject) -> dict[str, Any]:
    """Return the last network's accuracy, the learning curve, and the verdict on the target."""
    accuracy, last, verdict = project.accuracy, project.history.last, project.verdict
    return {
        "n_test": len(project.test_labels),
        "accuracy": accuracy and last and {**accuracy._asdict(), "n_known": last.n_labeled},
        "enough": verdict and verdict._asdict(),
        "curve": [
            {"n_labeled": n, "accuracy": point.value, "low": point.low, "high": point.high}
            for n, point in project.curve
        ],
    }


def why(project: LabelProject, row: BatchRow | None, names: Sequence[str] = ()) -> str:
    """Return one line on why an image is in its batch.

    Given the `names` of all classes, it also says between which ones the network is undecided.
    """
    if row is None or row.kind not in CAUSES:
        return ""
    guesses = project.guesses if row.kind in BY_MODEL else None
    said = evidence(guesses, row.image, project.labels, names) if guesses else ()
    return "; ".join((CAUSES[row.kind].format(project.config), *said)) + "."


def evidence(
    guesses: Guesses, image: int, labeled: Container[int], names: Sequence[str] = ()
) -> list[str]:
    """Return clauses on the last network's prediction for an image.

    Without `names` of all classes, they are not named: predictions are shown only on request.
    """
    proba, clauses = guesses.proba_of(image), []
    if proba is not None:
        first, second = np.argsort(-proba, kind="stable")[:2].tolist()
        if proba[first] - proba[second] < UNDECIDED:
            between = f"{names[first]} and {names[second]}" if names else "two classes"
            clauses.append(f"the model is undecided between {between}")
    if image in guesses.rows and not any(n in labeled for n in guesses.near(image, NEIGHBOURS)):
        clauses.append("no similar image has a label yet")
    return clauses
