"""Why an image is shown: one line, from what is recorded of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from .learning import Guesses
from .ledger import TEST
from .store import BatchRow

UNDECIDED = 0.2
"""Between the two most probable classes: less than that, and the network is undecided."""
NEIGHBOURS = 10
"""Images most like one: if none of them has a label, its region has none."""

CAUSES = {
    "start": "Chosen before there is a model ({init_strategy})",
    "strategy": "Chosen by the strategy ({strategy})",
    "doubt": "Shown while the next batch is being chosen",
    "chance": "Drawn at random, while the next batch is being chosen",
    TEST: "Drawn at random to measure accuracy",
}
BY_MODEL = ("strategy", "doubt")
"""Kinds of which something can be said by what the network says."""


class Choosing(NamedTuple):
    """By what images are chosen: the names of both strategies."""

    strategy: str
    init_strategy: str


def why(row: BatchRow, choosing: Choosing, said: Sequence[str] = ()) -> str:
    """Return why an image is in its batch; `said` are clauses of `evidence`."""
    cause = CAUSES.get(row.kind)
    if cause is None:
        return ""
    clauses = said if row.kind in BY_MODEL else ()
    return "; ".join(chain([cause.format(**choosing._asdict())], clauses)) + "."


def evidence(
    guesses: Guesses, image: int, labeled: Container[int], names: Sequence[str] = ()
) -> list[str]:
    """Return what the last network makes of an image, in clauses.

    Without `names` of all classes it is not told which ones: that would be a guess nobody asked
    for.
    """
    proba, clauses = guesses.proba_of(image), []
    if proba is not None:
        first, second = np.argsort(-proba, kind="stable")[:2].tolist()
        if proba[first] - proba[second] < UNDECIDED:
            between = f"{names[first]} and {names[second]}" if names else "two classes"
            clauses.append(f"the model is undecided between {between}")
    if image in guesses.rows and not any(n in labeled for n in guesses.near(image, NEIGHBOURS)):
        clauses.append("no image like it has a label yet")
    return clauses
