"""Acquisition in one round: candidates, their scores, the strategy's picks, random picks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.kinds import Count, resolve_count
from ..core.seeding import derive_seed
from ..datasets.base import Images
from ..datasets.pool import Pool
from ..models.classifier import ImageClassifier
from ..models.committee import Committee
from ..strategies.memory import Sizes, affordable, shown, within_reach
from ..strategies.resolve import Strategy
from ..strategies.scores import Scores, score_pool
from ..strategies.selection import draw_rows, select
from .config import RunConfig

Indices: TypeAlias = NDArray[np.int64]


@dataclass
class Round:
    """The state of a round's choice, filled while it is made: `number` counts from 1 (0 is the
    initial set), `seconds` has columns of ``rounds.csv``, `details` holds JSON values for
    `Acquisition.replay`, `rows` are the images that `scores` belong to (None for all), and
    `embeddings` asks for embeddings even if the strategy reads none.
    """

    number: int
    seconds: dict[str, float]
    details: dict[str, Any]
    scores: Scores | None = None
    rows: Indices | None = None
    embeddings: bool = False


class Acquisition:
    """Base class: chooses the images of every round after the initial set."""

    needs_model: bool
    """Whether choosing needs a trained network."""

    def choose(
        self, current: Round, classifier: ImageClassifier | None, pool: Pool, n: Count | None
    ) -> Indices:
        """Choose `n` images (None: as many as the settings say), and fill `current`."""
        raise NotImplementedError

    def replay(
        self, number: int, indices: Sequence[int], pool: Pool, details: Mapping[str, Any]
    ) -> None:
        """Restore the state after an earlier choice, round 0 included; by default no state."""


class PoolAcquisition(Acquisition):
    """Asks a pool strategy in every round."""

    def __init__(self, config: RunConfig, strategy: Strategy) -> None:
        self._config = config
        self._strategy = strategy
        self.needs_model = strategy.needs_model

    def choose(
        self, current: Round, classifier: ImageClassifier | None, pool: Pool, n: Count | None
    ) -> Indices:
        config = self._config
        n = resolve_count("n_query", config.n_query if n is None else n, len(pool.X))
        seed = derive_seed(config.seed, "strategy", current.number)
        n_random = round(float(config.explore) * n)
        choice = Choice(self._strategy, n, seed, n_random, config.max_candidates)
        return choice.make(classifier, pool, current)


@dataclass(frozen=True)
class Choice:
    """How a batch of `n` images is chosen: by the strategy, except for `n_random` that are drawn
    at random from the rest. The strategy sees a random subset of `max_candidates` unlabelled
    images, by default as many as fit in memory, and at most 100,000 if it reads embeddings. `seed`
    seeds candidates, dropout masks, committees and the strategy.
    """

    strategy: Strategy
    n: int
    seed: int
    n_random: int = 0
    max_candidates: int | None = None

    def make(
        self, classifier: ImageClassifier | None, pool: Pool, current: Round | None = None
    ) -> Indices:
        """Return the strategy's picks in its order, then the random ones; fewer than `n` if fewer
        are left. Raise a `SkalError` if memory does not suffice, or the strategy fails.
        """
        current, n = current or Round(1, {}, {}), self.n - self.n_random
        picks = np.empty(0, dtype=np.int64)
        if n > 0:
            n_candidates = min(self.max_candidates or len(pool.unlabeled), len(pool.unlabeled))
            sizes = Sizes(n_candidates, len(pool.labeled), n, pool.n_classes)
            choice = replace(self, strategy=within_reach(self.strategy, sizes))
            with timed(current.seconds, "score_seconds"):
                current.rows = choice._rows_to_show(classifier, pool, current.embeddings)
                current.scores = choice._score(classifier, pool, current)
            with timed(current.seconds, "query_seconds"):
                y = pool.y if current.rows is None else pool.y[current.rows]
                picks = select(choice.strategy, y, n, scores=current.scores, seed=self.seed)
                picks = picks if current.rows is None else current.rows[picks]
        if not self.n_random:
            return picks
        others = np.setdiff1d(pool.unlabeled, picks)
        draw = np.random.default_rng(derive_seed(self.seed, "explore"))
        n_random = min(self.n_random, len(others))
        return np.concatenate([picks, draw.choice(others, n_random, replace=False)])

    def _rows_to_show(
        self, classifier: ImageClassifier | None, pool: Pool, embeddings: bool
    ) -> Indices | None:
        """Return the images that are scored and shown to the strategy; None for all."""
        rows, n_left, strategy = pool.shown, len(pool.unlabeled), self.strategy
        n = self.n - self.n_random
        if self.max_candidates is None:
            n_candidates = shown(strategy, n_left, self.n)
        else:
            n_candidates = min(max(self.max_candidates, self.n), n_left)
        if n < n_left and classifier is not None:
            embedded = embeddings or strategy.request.embeddings
            width = embedding_width(classifier, pool.X) if embedded else 0
            sizes = Sizes(n_candidates, len(pool.labeled), n, pool.n_classes, width)
            n_candidates = affordable(strategy, sizes, device=str(classifier.neural_net_.device))
        if n_candidates == n_left:
            return rows
        y = pool.y if rows is None else pool.y[rows]
        seed = derive_seed(self.seed, "candidates")
        drawn = draw_rows(y, n_candidates, seed, labeled=strategy.needs_labeled)
        return drawn if rows is None else rows[drawn]

    def _score(
        self, classifier: ImageClassifier | None, pool: Pool, current: Round
    ) -> Scores | None:
        """Compute the scores that the strategy needs; None if it needs none."""
        strategy = self.strategy
        if not strategy.needs_model or self.n - self.n_random >= len(pool.unlabeled):
            return None
        assert classifier is not None
        committee = None
        if strategy.needs == "committee":
            committee = Committee(classifier, strategy.n_samples, random_state=self.seed)
            committee.fit(pool.X, pool.y)
        embeddings = current.embeddings or strategy.request.embeddings
        request = replace(strategy.request, embeddings=embeddings, committee=committee)
        rows = current.rows
        scores = score_pool(classifier, pool.X, request, rows=rows, random_state=self.seed)
        # with a solved head, embeddings are the same in all rounds
        return scores.remembering(pool.memo(rows)) if classifier.is_solved else scores


def embedding_width(classifier: ImageClassifier, X: Images) -> int:
    """Return the number of features of a fitted classifier's embeddings, found from one image."""
    (outputs,) = classifier.iter_outputs(X[:1])
    return int(outputs.embeddings.shape[1])


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the duration of the block to ``seconds[name]``."""
    start = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 6)
