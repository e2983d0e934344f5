"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ParameterError
from ..config import RunConfig
from .base import Values
from .logger import RunLogger

METRICS = ("accuracy", "aulc")
"""Metrics that the table of hyperparameters shows."""


class TensorBoardTracker(RunLogger):
    """Writes event files to `folder`, by default ``tensorboard/`` of the run folder."""

    name = package = "tensorboard"

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__()
        self.folder = folder

    def connect(self, folder: Path | None) -> None:
        import torch.utils.tensorboard  # noqa: F401

        if self.folder is None and folder is None:
            raise ParameterError(
                "tracker tensorboard writes to the run folder, but the run has none; pass out=, "
                "or trackers=[TensorBoardTracker(folder)]"
            )

    def open(self, config: RunConfig, folder: Path | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter
        self.connect(folder)
        place = self.folder if folder is None else self.folder or folder / "tensorboard"
        self._writer = writer(str(place))

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import summary

        hparams: Any = summary.hparams
        # booleans would become numbers
        plain = {
            name: value if type(value) in (int, float, str) else str(value)
            for name, value in settings.items()
        }
        # the writer's own add_hparams would create another folder, named by the time
        for part in hparams(plain, dict.fromkeys(METRICS)):
            self._writer.file_writer.add_summary(part)

    def log_round(self, values: Values, n_labeled: int) -> None:
        self.log_training(values, n_labeled)
        self._writer.flush()

    def log_training(self, values: Values, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_summary(self, values: Values, n_labeled: int, files: Sequence[Path]) -> None:
        self.log_round(values, n_labeled)

    def close(self, done: bool) -> None:
        self._writer.close()
