"""A strategy is asked once before anything is trained."""

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
    """Ask a strategy once for a small batch of made-up scores, before anything is trained.

    Of skal's and scikit-activeml's classes only parameters that were chosen can be wrong: without
    such they are not tried, nor are those that bring their own model, or are slow.

    Parameters
    ----------
    strategy : Strategy
        From `resolve_strategy`.
    n_classes : int
        Number of classes; parameters such as a cost matrix go by it.

    Returns
    -------
    bool
        Whether it was tried.

    Raises
    ------
    ParameterError
        If it fails, or answers anything but unlabelled images, each once.
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
        warnings.simplefilter("ignore")  # of made-up scores, which mean nothing to the user
        answer = ask(strategy, y, TRIAL_PICKS, scores, seed=0)
    try:
        checked(strategy, answer, y, TRIAL_PICKS)
    except SkalError as error:
        raise ParameterError(f"{error} (tried on {TRIAL_IMAGES} made-up images)") from error
    return True


def made_up_scores(strategy: Strategy, ties: bool = False, **sizes: int) -> Scores:
    """Make scores of no real images that hold exactly what `skal.run` would hand over."""
    scores = example_scores(ties, n_samples=strategy.n_samples, **sizes)
    return replace(
        scores,
        embeddings=scores.embeddings if strategy.needs_embeddings else None,
        gradient_length=scores.gradient_length if strategy.needs_gradient_length else None,
    )
