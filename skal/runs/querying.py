"""One round's choice: candidates, scores, strategy, and a share at random."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.seeding import derive_seed
from ..core.settings import RunConfig, resolve_count
from ..datasets.base import Images
from ..datasets.oracles import Oracle
from ..datasets.pool import Pool
from ..models.classifier import ImageClassifier
from ..models.committee import Committee
from ..strategies.first_sets import initial_set
from ..strategies.scores import Scores, score_pool
from ..strategies.selection import Strategy, affordable, draw_rows, select


class Queries(ABC):
    """Chooses the images that are new in each round of a run.

    Parameters
    ----------
    config : RunConfig
        With all settings resolved.
    classifier : ImageClassifier
        One like those of the run, not fitted.
    """

    def __init__(self, config: RunConfig, classifier: ImageClassifier) -> None:
        self._config = config
        self._classifier = classifier

    @property
    @abstractmethod
    def needs_model(self) -> bool:
        """Whether a trained network is needed to choose."""

    @abstractmethod
    def _next(
        self,
        number: int,
        classifier: ImageClassifier | None,
        pool: Pool,
        seconds: dict[str, float],
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Choose as `next` does, in a round from 1 on."""

    def next(
        self,
        number: int,
        classifier: ImageClassifier | None,
        pool: Pool,
        oracle: Oracle,
        seconds: dict[str, float],
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Choose the images that are new in a round.

        Parameters
        ----------
        number : int
            The round; 0 is the initial set.
        classifier : ImageClassifier or None
            The network of the round before; None if there is none, or none is needed.
        pool : Pool
            Where from.
        oracle : Oracle
            Draws a stratified initial set, if that is asked for.
        seconds : dict
            Filled with `score_seconds` and `query_seconds`.

        Returns
        -------
        indices : ndarray of int64
            Of the pool.
        details : dict
            What `replay` needs, as JSON has it.
        """
        if number:
            return self._next(number, classifier, pool, seconds)
        with timed(seconds, "query_seconds"):
            picks = initial_set(
                pool,
                resolve_count("n_init", self._config.n_init, len(pool)),
                self._config.seed,
                self._config.init_strategy,
                classifier=self._classifier,
                oracle=oracle,
            )
        self.replay(0, picks.tolist(), pool, {})
        return picks, {}

    def replay(
        self, number: int, indices: Sequence[int], pool: Pool, details: Mapping[str, Any]
    ) -> None:
        """Take in a choice, so that the next is as if this object had made it."""
        return


class PoolQueries(Queries):
    """Asks a strategy in every round.

    Parameters
    ----------
    config, classifier
        See `Queries`.
    strategy : Strategy
        Who picks.
    """

    def __init__(self, config: RunConfig, classifier: ImageClassifier, strategy: Strategy) -> None:
        super().__init__(config, classifier)
        self._strategy = strategy

    @property
    def needs_model(self) -> bool:
        return self._strategy.needs_model

    def _next(
        self,
        number: int,
        classifier: ImageClassifier | None,
        pool: Pool,
        seconds: dict[str, float],
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        picks = choose(
            self._strategy,
            classifier,
            pool,
            resolve_count("n_query", self._config.n_query, len(pool)),
            seed=derive_seed(self._config.seed, "strategy", number),
            explore=float(self._config.explore),
            max_candidates=self._config.max_candidates,
            seconds=seconds,
        )
        return picks, {}


def choose(
    strategy: Strategy,
    classifier: ImageClassifier | None,
    pool: Pool,
    n: int,
    *,
    seed: int,
    explore: float = 0.0,
    max_candidates: int | None = None,
    seconds: dict[str, float] | None = None,
) -> NDArray[np.int64]:
    """Choose the images to label next.

    Parameters
    ----------
    strategy : Strategy
        Who picks.
    classifier : ImageClassifier or None
        A fitted one; None if the strategy needs none.
    pool : Pool
        Where from.
    n : int
        How many.
    seed : int
        Of this round: seeds candidates, dropout masks, committees and the strategy's draws.
    explore : float, default=0
        Share of the batch that is drawn at random instead, from what the strategy left.
    max_candidates : int, optional
        The strategy sees a random subset of so many unlabelled images, and the labelled ones if it
        reads them; the others are not scored. By default as many as there is memory for.
    seconds : dict, optional
        Filled with `score_seconds` and `query_seconds`.

    Returns
    -------
    ndarray of int64, shape (n,)
        The strategy's picks in its order, then the random ones; all that is left, if that is less.

    Raises
    ------
    SkalError
        If there is no memory even for the smallest choice, or the strategy fails.
    """
    seconds = {} if seconds is None else seconds
    n_random = round(explore * n)
    picks = np.empty(0, dtype=np.int64)
    if n_random < n:
        with timed(seconds, "score_seconds"):
            most = len(pool.unlabeled) if max_candidates is None else max(max_candidates, n)
            rows = _rows_to_see(strategy, classifier, pool, n - n_random, most, seed)
            scores = score_for(strategy, classifier, pool, n - n_random, seed, rows)
        with timed(seconds, "query_seconds"):
            y = pool.y if rows is None else pool.y[rows]
            n_classes = pool.n_classes
            picks = select(strategy, y, n - n_random, scores=scores, n_classes=n_classes, seed=seed)
            picks = picks if rows is None else rows[picks]
    others = np.setdiff1d(pool.unlabeled, picks)
    draw = np.random.default_rng(derive_seed(seed, "explore"))
    n_random = min(n_random, len(others))
    return np.concatenate([picks, draw.choice(others, n_random, replace=False)])


def _rows_to_see(
    strategy: Strategy,
    classifier: ImageClassifier | None,
    pool: Pool,
    n: int,
    most: int,
    seed: int,
) -> NDArray[np.int64] | None:
    """Return which images are scored and shown to a strategy; None for all.

    Parameters
    ----------
    most : int
        How many of them without a label. There may be memory for fewer.
    """
    rows, n_left = pool.rows, len(pool.unlabeled)
    n_candidates = min(most, n_left)
    if n < n_left and classifier is not None:
        n_candidates = affordable(
            strategy,
            n_candidates,
            len(pool.labeled),
            n,
            n_classes=pool.n_classes,
            n_features=embedding_width(classifier, pool.X) if strategy.needs_embeddings else 0,
            device=str(classifier.neural_net_.device),
        )
    if n_candidates == n_left:
        return rows
    drawn = draw_rows(
        pool.y if rows is None else pool.y[rows],
        n_candidates,
        derive_seed(seed, "candidates"),
        labeled=strategy.needs_labeled,
    )
    return drawn if rows is None else rows[drawn]


def embedding_width(classifier: ImageClassifier, X: Images) -> int:
    """Return how many features a fitted classifier's embeddings have: as many as of one image."""
    (outputs,) = classifier.iter_outputs(X[:1])
    return int(outputs.embeddings.shape[1])


def score_for(
    strategy: Strategy,
    classifier: ImageClassifier | None,
    pool: Pool,
    n: int,
    seed: int,
    rows: NDArray[np.int64] | None = None,
) -> Scores | None:
    """Score the pool as far as a strategy needs it to pick `n` images.

    Parameters
    ----------
    strategy : Strategy
        Who will pick.
    classifier : ImageClassifier or None
        A fitted one; None if the strategy needs none.
    pool : Pool
        What is scored.
    n : int
        How many images are wanted; when no more are left, there is nothing to choose.
    seed : int
        Seeds dropout masks and committees.
    rows : ndarray of int64, optional
        Which images; by default all.

    Returns
    -------
    Scores or None
        None if the strategy needs none.
    """
    if not strategy.needs_model or n >= len(pool.unlabeled):
        return None
    assert classifier is not None
    committee = None
    if strategy.n_members:
        committee = Committee(classifier, strategy.n_members, random_state=seed)
        committee.fit(pool.X, pool.y)
    return score_pool(
        classifier,
        pool.X,
        embeddings=strategy.needs_embeddings,
        n_samples=0 if committee else strategy.n_samples,
        gradient_length=strategy.needs_gradient_length,
        committee=committee,
        rows=rows,
        random_state=seed,
    )


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what a block takes to the seconds of that name."""
    start = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 6)
