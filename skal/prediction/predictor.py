"""`Predictor`: from image files to rows of predictions by a trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ParameterError, RunFolderError
from ..core.registry import parse_spec
from ..datasets.base import Images
from ..datasets.decoding import Decoded, Decoding, decode_many, to_channels
from ..datasets.loading import how_to_decode
from ..models.classifier import ImageClassifier
from ..models.description import (
    DESCRIPTION,
    WEIGHTS,
    class_names,
    decoded_as,
    read_description,
)
from ..models.persistence import load_classifier
from ..strategies.base import ScoreStrategy
from ..strategies.resolve import Strategy, resolve_strategy
from ..strategies.scores import ScoreRequest, Scores, least_for_all_devices, score_pool
from ..strategies.trial import made_up_scores
from ..strategies.uncertainty import MEASURES
from .checks import MEASURED
from .exports import read_exported
from .networks import ExportedNetwork

TOLERATED = 10
"""Read errors tolerated among a few hundred files; with more, the disk may be unavailable."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Predictions for `paths`. `read`, shape (n,), marks the readable ones, and `columns` have only
    these (embeddings as a matrix); `unread` has the reasons by path; for `failed` see `Decoded`.
    """

    paths: Sequence[str]
    read: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    unread: Mapping[str, str]
    failed: frozenset[str]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A fitted network with its class `names`, the outputs to compute, and how to decode files."""

    network: ImageClassifier | ExportedNetwork
    names: list[str]
    utilities: dict[str, Utility]
    embeddings: bool
    how: Decoding

    @staticmethod
    @lru_cache(maxsize=1)
    def load(
        run_dir: Path, key: str, device: str, utilities: tuple[str, ...], embeddings: bool
    ) -> Predictor:
        """Load a network, cached; raise a SkalError if that fails, its key has changed, or a
        strategy is unsuitable.
        """
        wanted = {name: Utility.of(name) for name in utilities}
        if model_key(run_dir) != key:
            raise RunFolderError(f"the network in {str(run_dir)!r} has changed since the start")
        if run_dir.is_file():
            network, content = read_exported(run_dir, trust=True)
        else:
            network = load_classifier(run_dir, device, trust=True)  # checked by `predict`
            content = read_description(run_dir)
        for utility in wanted.values() if isinstance(network, ExportedNetwork) else ():
            if set(utility.reads) - {"proba", "embeddings"} or utility.n_samples:
                raise ParameterError(
                    f"{utility.name} needs more than the probabilities and embeddings of an "
                    "exported network; use the run folder"
                )
        size = content["image_shape"][-1]
        how = replace(how_to_decode(**decoded_as(content)), size=size, tolerated=TOLERATED)
        return Predictor(network, class_names(content), wanted, embeddings, how)

    def rows(self, base: Path, paths: Sequence[str], threads: int) -> Iterator[Rows]:
        """Decode images, with paths relative to `base`, and yield predictions in batches."""
        how = replace(self.how, workers=threads, processes_from=None)
        network = self.network
        least = least_for_all_devices(network) if isinstance(network, ImageClassifier) else 1
        with closing(decode_many(base, paths, how)) as chunks:
            for chunk in in_lots(chunks, least):
                read = np.array([path not in chunk.unread for path in chunk.paths], dtype=bool)
                columns = self._columns(self._scores(chunk.pixels))
                yield Rows(chunk.paths, read, columns, chunk.unread, chunk.failed)

    def _scores(self, pixels: Images) -> Scores:
        if isinstance(self.network, ExportedNetwork):
            images = to_channels(pixels, self.network.description["image_shape"][0])
            proba, embeddings = self.network(images)
            return Scores(np.arange(len(self.names)), proba, embeddings)
        reads = {name for utility in self.utilities.values() for name in utility.reads}
        n_samples = max((utility.n_samples for utility in self.utilities.values()), default=0)
        return score_pool(
            self.network,
            to_channels(pixels, self.network.image_shape_[0]),
            ScoreRequest(
                self.embeddings or "embeddings" in reads, n_samples, "gradient_length" in reads
            ),
            random_state=0,  # the same dropout samples for all parts
        )

    def _columns(self, scores: Scores) -> dict[str, NDArray[Any]]:
        best = scores.proba.argmax(axis=1)
        columns: dict[str, NDArray[Any]] = {
            "class": np.array(self.names, dtype=object)[best],
            "probability": scores.proba.max(axis=1),
            **{f"p_{name}": scores.proba[:, k] for k, name in enumerate(self.names)},
            **{f"utility_{name}": u(scores) for name, u in self.utilities.items()},
        }
        if self.embeddings:
            assert scores.embeddings is not None
            columns["embedding"] = scores.embeddings
        return columns


def model_key(folder: Path) -> str:
    """Return a hash of a network's files; raise a RunFolderError if one cannot be read."""
    digest = hashlib.sha256()
    files = [folder] if folder.is_file() else [folder / name for name in (WEIGHTS, DESCRIPTION)]
    for file in files:
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise RunFolderError(
                f"no usable model in {str(folder)!r}: {file.name}: {error.strerror or error}"
            ) from error
    return digest.hexdigest()[:16]


def in_lots(
    chunks: Iterator[Decoded], least: int = 1, at_once: tuple[int, int] = (2**26, 2**29)
) -> Iterator[Decoded]:
    """Join chunks to batches that fill a GPU: at least `at_once[0]` bytes of pixels and `least`
    images, but stop at `at_once[1]` bytes even with fewer images.
    """
    enough_bytes, most_bytes = at_once
    waiting: list[Decoded] = []
    for chunk in chunks:
        waiting.append(chunk)
        n_bytes = sum(part.pixels.nbytes for part in waiting)
        n_images = sum(len(part.pixels) for part in waiting)
        if n_bytes >= enough_bytes and (n_images >= least or n_bytes >= most_bytes):
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(chunks: Sequence[Decoded]) -> Decoded:
    return Decoded(
        [path for chunk in chunks for path in chunk.paths],
        np.concatenate([chunk.pixels for chunk in chunks]),
        {path: reason for chunk in chunks for path, reason in chunk.unread.items()},
        frozenset().union(*(chunk.failed for chunk in chunks)),
    )


@dataclass(frozen=True, eq=False)
class Utility:
    """Utilities of images by a strategy; `strategy` is None for uncertainty measures."""

    name: str
    strategy: Strategy | None = None

    @classmethod
    def of(cls, name: str) -> Utility:
        """Find a strategy; raise an UnknownNameError if it does not exist, a ParameterError if it
        does not score each image on its own.
        """
        if name in MEASURED:
            return cls(name)
        plain, params = parse_spec(name)
        strategy = resolve_strategy(plain, params)
        if issubclass(strategy.cls, ScoreStrategy) and strategy.needs != "committee":
            utility = cls(name, strategy)
            if not strategy.needs_labeled and utility._goes_image_by_image():
                return utility
        raise ParameterError(
            f"{name} compares images with each other, or trains networks; expected "
            f"{', '.join(MEASURED)}, or a strategy that scores each image on its own, such as bald"
        )

    @property
    def reads(self) -> tuple[str, ...]:
        return ("proba",) if self.strategy is None else self.strategy.reads or ()

    @property
    def n_samples(self) -> int:
        """Number of dropout samples that the strategy needs."""
        return 0 if self.strategy is None else self.strategy.n_samples

    def __call__(self, scores: Scores) -> NDArray[np.float64]:
        if self.strategy is None:
            return MEASURES[self.name](scores.proba)
        if scores.mc_proba is not None:  # may have more samples, for another utility
            scores = replace(scores, mc_proba=scores.mc_proba[: self.n_samples])
        utilities = self.strategy.cls(**self.strategy.params).score(scores)
        return np.asarray(utilities, np.float64)

    def _goes_image_by_image(self) -> bool:
        assert self.strategy is not None
        scores = made_up_scores(self.strategy)
        halves = np.array_split(np.arange(len(scores)), 2)
        apart = np.concatenate([self(scores.take(rows)) for rows in halves])
        return bool(np.allclose(self(scores), apart))
