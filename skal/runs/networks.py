"""The networks of the rounds: trained, kept where that is needed, and found again."""

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
from .record import Record
from .trackers import Watchers

CHECKPOINT = "checkpoint-{}.safetensors"
"""The last whole round's network, where training again might not make the same."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Networks:
    """Trains the network of each round, of one unfitted template, and keeps it in the record."""

    config: RunConfig
    template: ImageClassifier
    record: Record

    def of_round(self, number: int) -> ImageClassifier:
        """Return the classifier of a round, not fitted."""
        seed = derive_seed(self.config.seed, "training", number)
        return self.template.variant(random_state=seed)

    def train(
        self, number: int, pool: Pool, last: ImageClassifier | None, watch: Watchers
    ) -> ImageClassifier:
        """Train a new network, or the last one further, and calibrate it if that is asked for."""
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
        """Write the network of a round, if training again might not make it again, to the bit."""
        if self.template.warm_start != "off" or self.config.device != "cpu":
            self.record.write_kept(CHECKPOINT.format(number), weights_of(network))

    def kept(self, number: int, pool: Pool) -> ImageClassifier | None:
        """Return the network of a whole round, if it was kept; a `RunFolderError` is raised if it
        is gone or damaged, and later ones are trained on from it.
        """
        folder, name = self.record.folder, CHECKPOINT.format(number)
        if folder is None or number < 0:
            return None
        if self.record.is_whole(name):
            return load_weights(self.of_round(number), folder / name, pool.X)
        if self.template.warm_start != "off":
            raise RunFolderError(
                f"{str(folder / name)!r} is gone or damaged: it is not what the run's journal "
                "says, and the next network is trained on from it; begin a new run"
            )
        if name in self.record.digests:
            _log.warning(
                "%s is gone or damaged: the network is trained again, and on a %s figures may "
                "differ in their last digits",
                folder / name,
                self.config.device,
            )
        return None

    def forget(self, number: int | None = None) -> None:
        """Remove the kept network of a round, or those of all: a crash may leave several."""
        if self.record.folder is not None:
            name = CHECKPOINT.format("*" if number is None else number)
            for path in self.record.folder.glob(name):
                path.unlink(missing_ok=True)
