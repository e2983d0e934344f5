"""What a page is told of a project beside the images: counts, and how good the network is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from . import reasons
from .names import plain_text
from .project import LabelProject
from .store import BatchRow

MOST_NAMES = 20
"""Of files that cannot be read."""


def counts(project: LabelProject, unreadable: Collection[int]) -> dict[str, Any]:
    """Return how many images have which label; `unreadable` are those that cannot be read."""
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
    """Return of how many images each annotator says something."""
    return {who: n for who, n in sorted(project.ledger.n_answered.items()) if n}


def figures(project: LabelProject) -> dict[str, Any]:
    """Return how good the last network is, how good those before were, and whether it is enough."""
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


def described(
    project: LabelProject, image: int, size: tuple[int, int], note_of_label: bool
) -> dict[str, Any]:
    """Return what a page shows of an image, with what is noted of its label where that may be."""
    return {
        "image": image,
        "width": size[0],
        "height": size[1],
        "name": plain_text(project.paths[image]),
        "note": project.notes.of(image, of_label=note_of_label),
    }


def why(project: LabelProject, row: BatchRow | None, names: Sequence[str] = ()) -> str:
    """Return why an image is in its batch, with `names` of all classes also between which the
    network is undecided.
    """
    if row is None:
        return ""
    guesses, config = project.guesses, project.config
    said = reasons.evidence(guesses, row.image, project.labels, names) if guesses else ()
    return reasons.why(row, reasons.Choosing(config.strategy, str(config.init_strategy)), said)
