"""The networks of the rounds: training, checkpoints, restoring."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..core.errors import RunFolderError
from ..core.seeding import derive_seed
from ..datasets.pool import Pool
from ..models.calibration import calibrate
from ..models.classifier import ImageClassifier
from ..models.persistence import load_weights, weights_of
from .config import RunConfig
from .record import JOURNAL, Record
from .trackers import Watchers

CHECKPOINT = "checkpoint-{}.safetensors"
"""Network of the last complete round, kept where retraining might not reproduce it."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Networks:
    """Trains each round's network from an unfitted template, and keeps checkpoints."""

    config: RunConfig
    template: ImageClassifier
    record: Record

    def of_round(self, number: int) -> ImageClassifier:
        """Return the unfitted classifier of a round."""
        seed = derive_seed(self.config.seed, "training", number)
        return self.template.variant(random_state=seed)

    def train(
        self, number: int, pool: Pool, last: ImageClassifier | None, watch: Watchers
    ) -> ImageClassifier:
        """Train a new network, or with warm start the last one further; calibrate it if asked."""
        classifier = self.of_round(number)
        if last is not None and last.warm_start != "off":
            classifier = last.set_params(random_state=classifier.random_state)
        with watch.training(classifier, number):
            classifier.fit(pool.X, pool.y, rows=pool.in_play)
        if self.config.calibrate == "temperature":
            seed = derive_seed(self.config.seed, "calibration", number)
            calibrate(classifier, pool.X, pool.y, seed=seed, rows=pool.in_play)
        return classifier

    def keep(self, number: int, network: ImageClassifier) -> None:
        """Write a checkpoint if retraining might not reproduce the network bit by bit."""
        if self.template.warm_start != "off" or self.config.device != "cpu":
            self.record.write_kept(CHECKPOINT.format(number), weights_of(network))

    def kept(self, number: int, pool: Pool) -> ImageClassifier | None:
        """Return a round's network from its checkpoint, None without one. Raise a `RunFolderError`
        if it is missing or damaged, and warm start needs it.
        """
        folder, name = self.record.folder, CHECKPOINT.format(number)
        if folder is None or number < 0:
            return None
        if self.record.is_whole(name):
            return load_weights(self.of_round(number), folder / name, pool.X)
        if self.template.warm_start != "off":
            raise RunFolderError(
                f"{str(folder / name)!r}, the network of the last round in {JOURNAL}, is missing "
                "or damaged, and warm start continues training from it; start a new run"
            )
        if name in self.record.digests:
            _log.warning(
                "%s is missing or damaged: retraining the network; on %s metrics may differ in "
                "their last digits",
                folder / name,
                self.config.device,
            )
        return None

    def forget(self, number: int | None = None) -> None:
        """Remove the checkpoint of a round, by default all, since a crash may leave several."""
        if self.record.folder is not None:
            name = CHECKPOINT.format("*" if number is None else number)
            for path in self.record.folder.glob(name):
                path.unlink(missing_ok=True)
