"""Try a strategy on made-up scores before anything is trained."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ..core.errors import ParameterError, SkalError, blaming
from ..datasets.base import MISSING_LABEL
from .resolve import Strategy
from .scores import Scores, example_scores
from .selection import ask, checked

TRIAL_IMAGES, TRIAL_LABELS, TRIAL_PICKS = 40, 10, 2
TOO_SLOW_TO_TRY = ("Quire", "CostEmbeddingAL")


def check_strategy_works(strategy: Strategy, n_classes: int) -> bool:
    """Query a strategy once on made-up scores, before anything is trained.

    skal's and scikit-activeml's classes are only tried with parameters that the user set, and not
    if they have their own model or are slow.

    Parameters
    ----------
    strategy : Strategy
        From `resolve_strategy`.
    n_classes : int
        Number of classes, which parameters such as a cost matrix must match.

    Returns
    -------
    bool
        Whether it was tried.

    Raises
    ------
    ParameterError
        If it fails, or returns anything but distinct unlabelled images.
    """
    untried = strategy.needs == "own model" or strategy.cls.__name__ in TOO_SLOW_TO_TRY
    if not strategy.is_foreign and (untried or not strategy.given):
        return False
    n_classes = max(n_classes, 2)
    y = np.full(TRIAL_IMAGES, MISSING_LABEL, dtype=np.int64)
    y[:TRIAL_LABELS] = np.arange(TRIAL_LABELS) % n_classes
    y.flags.writeable = False
    scores = made_up_scores(strategy, n_images=TRIAL_IMAGES, n_classes=n_classes)
    fault = "does not work with these parameters" if strategy.given else "failed"
    with (
        blaming(f"{strategy.title} {fault}", ParameterError, always=True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # made-up scores mean nothing to the user
        answer = ask(strategy, y, TRIAL_PICKS, scores, seed=0)
    try:
        checked(strategy, answer, y, TRIAL_PICKS)
    except SkalError as error:
        raise ParameterError(f"{error} (tried on {TRIAL_IMAGES} made-up images)") from error
    return True


def made_up_scores(strategy: Strategy, ties: bool = False, **sizes: int) -> Scores:
    """Return made-up scores with exactly the fields that `skal.run` would pass."""
    scores = example_scores(ties, n_samples=strategy.n_samples, **sizes)
    return replace(
        scores,
        embeddings=scores.embeddings if strategy.request.embeddings else None,
        gradient_length=scores.gradient_length if strategy.request.gradient_length else None,
    )
