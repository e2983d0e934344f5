"""Cold start: choose the images to label before there is a trained network."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA

from ..core.errors import ParameterError
from ..core.seeding import derive_seed
from ..datasets.base import MISSING_LABEL, Images
from ..datasets.oracles import Oracle
from ..datasets.pool import Pool
from ..models.classifier import ImageClassifier
from ..models.devices import Device
from ..models.heads import scaling_for
from .catalogue import INIT_STRATEGIES
from .memory import shown
from .resolve import Strategy, resolve_strategy
from .scores import ScoreRequest, Scores, score_pool
from .selection import draw_rows, select

PIXELS = 16
COMPONENTS = 32

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class ColdStart:
    """Choose images before there is a trained network.

    `init_strategy` is a name in `INIT_STRATEGIES`: a strategy that needs nothing or reads only
    embeddings (see `start_embeddings`; `classifier` is not fitted), or "stratified", the same
    number of images per class, drawn by the `oracle`.
    """

    init_strategy: str = "random"
    seed: int = 0
    classifier: ImageClassifier | None = None
    oracle: Oracle | None = None

    def choose(self, pool: Pool, n: int) -> NDArray[np.int64]:
        """Return the indices of n images; of all unlabelled ones, with a warning, if fewer.

        Raises UnknownNameError or ParameterError if there is no such strategy, it needs more than
        embeddings, or a stratified set has no oracle that knows the labels.
        """
        seed = derive_seed(self.seed, "init")
        strategy, rows = resolve_init_strategy(self.init_strategy), pool.shown
        if strategy is None:
            return self._stratified(pool, n, seed)
        scores = None
        if strategy.needs_model and n < len(pool.unlabeled):
            # embed all images in play, so that embeddings do not depend on which are withheld
            embedded = pool.in_play
            n_candidates = shown(strategy, len(pool.unlabeled), n)
            if n_candidates < len(pool.unlabeled):
                seen = np.arange(len(pool)) if rows is None else rows
                embedded = rows = seen[draw_rows(pool.y[seen], n_candidates, seed)]
            embeddings, source = start_embeddings(
                pool.X, self.classifier, seed, None if len(embedded) == len(pool) else embedded
            )
            if rows is not None:
                embeddings = embeddings[np.searchsorted(embedded, rows)]
            _log.info("initial set: %s on %s", self.init_strategy, source)
            even = np.full((len(embeddings), pool.n_classes), 1 / pool.n_classes, np.float32)
            scores = Scores(np.arange(pool.n_classes), even, embeddings)
            if pool.X.ndim == 2 and _stay_the_same(self.classifier):
                scores = scores.remembering(pool.memo(rows))
        y = pool.y if rows is None else pool.y[rows]
        picks = select(strategy, y, n, scores=scores, seed=seed)
        return picks if rows is None else rows[picks]

    def _stratified(self, pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
        if self.oracle is None:
            raise ParameterError("a stratified initial set needs an oracle that knows the labels")
        _log.info("initial set: stratified, drawn by the oracle; labels it left out cost nothing")
        return self.oracle.draw_stratified(pool.unlabeled, n, np.random.default_rng(seed))


def _stay_the_same(classifier: ImageClassifier | None) -> bool:
    """Return whether the scaled features equal the embeddings of all rounds bit by bit, which holds
    for solved heads on the CPU.
    """
    if classifier is None or not classifier.is_solved:
        return False
    return Device.resolve(classifier.device, classifier.precision).name == "cpu"


def resolve_init_strategy(init_strategy: str) -> Strategy | None:
    """Return an initial-set strategy; None if the oracle draws the set.

    Raises UnknownNameError or ParameterError if there is no such strategy or argument, or it needs
    more than embeddings.
    """
    if INIT_STRATEGIES.resolve(init_strategy).facts.get("by_oracle"):
        return None
    strategy = resolve_strategy(init_strategy, registry=INIT_STRATEGIES)
    if strategy.needs not in ("nothing", "embeddings"):
        raise ParameterError(
            f"init_strategy: {strategy.name} needs {strategy.needs}, but no network is trained "
            "yet; expected a strategy that reads only embeddings, such as "
            f"{', '.join(INIT_STRATEGIES.names())}"
        )
    return strategy


def start_embeddings(
    X: Images,
    classifier: ImageClassifier | None,
    seed: int,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], str]:
    """Return float32 embeddings, shape (n, n_features), made without labels, and their description.

    Features of a frozen backbone, shape (n, n_features), are scaled as for its head. Images, shape
    (n, channels, height, width), are embedded by the classifier if it starts from trained weights.
    Otherwise they are reduced to principal components of their pixels, which are no worse than
    embeddings by a network with random weights.
    """
    if X.ndim == 2:
        features = torch.from_numpy(np.array(X if rows is None else X[rows], np.float32))
        head, model = (classifier.head_used, classifier.model) if classifier else ("linear", None)
        scaling = scaling_for(head, model, features.shape[1])
        scaling.measure(features)
        return scaling(features).numpy(), f"features of {model or 'a'}"
    if classifier is not None and (classifier.pretrained or classifier.weights is not None):
        nothing = np.full(2, MISSING_LABEL)
        network = clone(classifier).fit(X[:2], nothing)  # initialises without training
        embeddings = score_pool(network, X, ScoreRequest(embeddings=True), rows=rows).embeddings
        assert embeddings is not None
        weights = "pretrained weights" if classifier.pretrained else str(classifier.weights)
        return embeddings, f"embeddings by {classifier.model} with {weights}"
    pixels = _small_pixels(X, rows)
    n_components = min(COMPONENTS, *pixels.shape)
    reduced = PCA(n_components, random_state=seed, svd_solver="randomized").fit_transform(pixels)
    source = f"{n_components} principal components of the pixels (there is no pretrained network)"
    return reduced.astype(np.float32), source


def _small_pixels(X: Images, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Return the images at no more than 16x16 pixels, in [0, 1], one row per image."""
    side = min(PIXELS, X.shape[-1])
    rows = np.arange(len(X)) if rows is None else rows
    parts = [
        F.adaptive_avg_pool2d(torch.from_numpy(X[rows[start : start + 4096]]).float(), side)
        for start in range(0, len(rows), 4096)
    ]
    flat: NDArray[np.float32] = torch.cat(parts).flatten(1).div_(255).numpy()
    return flat
