"""Ask a strategy for a batch and check the indices it returns."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from ..core.answers import integers
from ..core.errors import SkalError, blame
from ..core.few_labels import FEW_LABELS
from ..core.text import counted
from ..datasets.base import MISSING_LABEL, Labels
from .inputs import inputs
from .memory import Sizes, affordable
from .resolve import Strategy
from .scores import Scores

_log = logging.getLogger("skal")


def select(
    strategy: Strategy,
    y: Labels,
    n: int,
    *,
    scores: Scores | None = None,
    seed: int,
) -> NDArray[np.int64]:
    """Ask a strategy which images to label next.

    Parameters
    ----------
    strategy : Strategy
        From `resolve_strategy`.
    y : ndarray of int64, shape (n_pool,)
        Labels of the pool; -1 for unlabelled images.
    n : int
        Number of images to pick; all unlabelled ones if there are fewer.
    scores : Scores, optional
        Scores of the whole pool; required unless the strategy needs nothing.
    seed : int
        Seed; use a new one in every round, since equal seeds give equal draws.

    Returns
    -------
    ndarray of int64, shape (n,)
        Distinct indices of unlabelled images, in the strategy's order; in ascending order if all
        remaining images are taken.

    Raises
    ------
    SkalError
        If the strategy fails, repeats an index, or picks a labelled image.
    """
    left = np.flatnonzero(y == MISSING_LABEL)
    if n >= len(left):
        if n > len(left):
            remaining = counted(len(left), "is left: taking it", "are left: taking them")
            _log.warning("asked for %s, but only %s", counted(n, "image"), remaining)
        return left
    rows = None
    if scores is not None:
        n_features = 0 if scores.embeddings is None else scores.embeddings.shape[1]
        sizes = Sizes(len(left), len(y) - len(left), n, len(scores.classes), n_features)
        n_candidates = affordable(strategy, sizes, device=scores.device, scored=True)
        if n_candidates < len(left):
            rows = draw_rows(y, n_candidates, seed, labeled=strategy.needs_labeled)
            y, scores = y[rows], scores.take(rows)
    try:
        answer = ask(strategy, y, n, scores, seed)
    except Exception as error:
        blame(error, f"{strategy.title} failed")
    picks = checked(strategy, answer, y, n)
    return picks if rows is None else rows[picks]


def draw_rows(
    y: Labels, n_candidates: int, seed: int, *, labeled: bool = True
) -> NDArray[np.int64]:
    """Return sorted indices of `n_candidates` randomly drawn unlabelled images, or all if there are
    fewer, and with `labeled` of all labelled images. `y` is -1 for unlabelled images.
    """
    left = np.flatnonzero(y == MISSING_LABEL)
    if n_candidates < len(left):
        left = np.random.default_rng(seed).choice(left, n_candidates, replace=False)
    known = np.flatnonzero(y != MISSING_LABEL)
    return np.sort(np.concatenate([known, left]) if labeled else left)


def ask(strategy: Strategy, y: Labels, n: int, scores: Scores | None, seed: int) -> Any:
    """Make the strategy, query it, and return its answer unchecked."""
    given = inputs(strategy, scores)
    X = np.arange(len(y))[:, None] if given.X is None else given.X
    query = strategy.make(seed, **given.init)
    order = np.arange(len(y))
    if strategy.facts.get("shuffled"):
        order = np.random.default_rng(seed).permutation(order)
        X, y = X[order], y[order]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
        # equal embeddings leave clusters empty, which the user need not know
        warnings.simplefilter("ignore", ConvergenceWarning)
        # without labels a discriminator cannot separate the pool from anything
        warnings.filterwarnings("ignore", "(?s).*could not be fitted", module="skactiveml")
        batch = _BATCHES[strategy.facts.get("batch", "whole")]
        picks = batch(partial(query.query, **given.query), X, y, int(n), seed)
    return order[np.asarray(picks)] if strategy.facts.get("shuffled") else picks


Query = Callable[..., Any]


def _whole(query: Query, X: NDArray[Any], y: Labels, n: int, seed: int) -> ArrayLike:
    picks: ArrayLike = query(X, y, batch_size=n)
    return picks


def _ranked(query: Query, X: NDArray[Any], y: Labels, n: int, seed: int) -> ArrayLike:
    _, utilities = query(X, y, batch_size=1, return_utilities=True)
    ties = np.random.default_rng(seed).random(len(y))
    # labelled images have NaN, which numpy sorts last
    return np.lexsort((ties, -utilities[0]))[:n]


def _traced(query: Query, X: NDArray[Any], y: Labels, n: int, seed: int) -> ArrayLike:
    """Read the picks from the utilities, which are NaN for earlier picks.

    The indices that BatchBALD returns are the argmax of each row, which on ties may be another
    image than the pick, even an earlier pick.
    """
    last, utilities = query(X, y, batch_size=n, return_utilities=True)
    is_picked = np.isnan(utilities)
    picks = [np.flatnonzero(new)[0] for new in is_picked[1:] & ~is_picked[:-1]]
    return np.array([*picks, last[-1]])


_BATCHES: Mapping[str, Callable[[Query, NDArray[Any], Labels, int, int], ArrayLike]] = {
    "whole": _whole,
    "ranked": _ranked,
    "traced": _traced,
}


def checked(strategy: Strategy, answer: Any, y: Labels, n: int) -> NDArray[np.int64]:
    """Return an answer as indices; raise SkalError unless it is n distinct unlabelled images."""
    indices, got = integers(answer, n)
    problem = None
    if indices is None:
        problem = f"returned {got}; expected {n} integers, indices of the images to label"
    elif indices.min() < 0 or indices.max() >= len(y):
        outside = indices[(indices < 0) | (indices >= len(y))][0]
        problem = f"picked index {outside}; expected indices from 0 to {len(y) - 1}"
    elif len(np.unique(indices)) != n:
        problem = f"picked {n - len(np.unique(indices))} of {counted(n, 'image')} more than once"
    elif (y[indices] != MISSING_LABEL).any():
        problem = "picked an image that is labelled already"
    if indices is None or problem:
        raise SkalError(f"{strategy.title} {problem}")
    return indices
