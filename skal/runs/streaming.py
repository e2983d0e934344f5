"""Stream-based acquisition: each image is seen once, chunk by chunk, and decided on at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError
from ..core.kinds import Count
from ..core.seeding import derive_seed
from ..datasets.pool import Pool
from ..models.classifier import ImageClassifier
from ..strategies.scores import ScoreRequest, Scores, score_pool
from ..strategies.streams import STREAM_STRATEGIES, StreamSampler
from .acquisition import Acquisition, Round, timed
from .config import RunConfig

DEFAULT_STRATEGY = "variable-uncertainty"


def stream_strategy_name(strategy: object) -> str:
    """Resolve "auto"; raise a `UsageError` if the name is not that of a stream strategy."""
    if not isinstance(strategy, str):
        raise ParameterError(
            f"strategy: got {strategy!r}; for a stream, expected a name from skal list "
            "stream-strategies, or module:Class"
        )
    name = DEFAULT_STRATEGY if strategy == "auto" else strategy
    if ":" not in name:
        STREAM_STRATEGIES.resolve(name)
    return name


class StreamAcquisition(Acquisition):
    """Presents all images outside the initial set in `n_rounds` even chunks. Raises a `UsageError`
    if the stream strategy, its arguments or the budget are invalid.
    """

    def __init__(self, config: RunConfig, params: Mapping[str, Any], n_classes: int) -> None:
        self._config = config
        self._sampler = StreamSampler(
            config.strategy,
            params,
            budget=float(config.budget),
            n_classes=n_classes,
            seed=derive_seed(config.seed, "strategy"),
        )
        self.needs_model = self._sampler.needs_model
        self._chunks: list[NDArray[np.int64]] = []

    def choose(
        self, current: Round, classifier: ImageClassifier | None, pool: Pool, n: Count | None
    ) -> NDArray[np.int64]:
        if n is not None:
            raise ParameterError(f"n={n}: in a stream the strategy decides how many; leave n out")
        if current.number > len(self._chunks):
            return np.empty(0, dtype=np.int64)  # end of the stream
        chunk = self._chunks[current.number - 1]
        scores, labeled, y = None, None, None
        with timed(current.seconds, "score_seconds"):
            if self._sampler.needs_model:
                assert classifier is not None
                scores = self._score(classifier, pool, chunk)
                if self._sampler.needs_embeddings:
                    labeled, y = self._score(classifier, pool, pool.labeled), pool.y[pool.labeled]
        with timed(current.seconds, "query_seconds"):
            chosen, utilities = self._sampler.decide(len(chunk), scores, labeled, y)
        current.details.update(chosen=chosen.tolist(), utilities=utilities.tolist())
        return chunk[chosen]

    def replay(
        self, number: int, indices: Sequence[int], pool: Pool, details: Mapping[str, Any]
    ) -> None:
        if number == 0:
            self._chunks = self._cut(np.setdiff1d(pool.in_play, indices))
            self._sampler.expect(sum(len(chunk) for chunk in self._chunks))
            return
        chosen, utilities = np.array(details["chosen"], np.int64), np.array(details["utilities"])
        self._sampler.replay(len(self._chunks[number - 1]), chosen, utilities)

    def _cut(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        if self._config.stream == "shuffled":
            seed = derive_seed(self._config.seed, "stream")
            rows = np.random.default_rng(seed).permutation(rows)
        return np.array_split(rows, max(self._config.n_rounds, 1))

    def _score(self, classifier: ImageClassifier, pool: Pool, rows: NDArray[np.int64]) -> Scores:
        request = ScoreRequest(embeddings=self._sampler.needs_embeddings)
        return score_pool(classifier, pool.X, request, rows=rows)
