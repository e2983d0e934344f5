"""skorch callbacks that pass training events to trackers. This module imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.callbacks.logging import filter_log_keys

if TYPE_CHECKING:
    from .logger import RunLogger

EVERY = 10
"""Number of optimiser steps that each `batch_loss` averages."""

Tell = Callable[[str, NeuralNet, Mapping[str, Any]], None]


def _relayed(event: str) -> Callable[..., None]:
    def relay(self: Relay, net: NeuralNet, **facts: Any) -> None:
        if self.tell_ is not None:
            self.tell_(event, net, facts)

    return relay


class Relay(Callback):
    """Passes training events to the callbacks of trackers. Those cannot be cloned or pickled; a
    relay can, since `tell_` is not copied to clones and is None after the training.
    """

    tell_: Tell | None = None

    on_train_begin = _relayed("on_train_begin")
    on_train_end = _relayed("on_train_end")
    on_epoch_begin = _relayed("on_epoch_begin")
    on_epoch_end = _relayed("on_epoch_end")
    on_batch_begin = _relayed("on_batch_begin")
    on_batch_end = _relayed("on_batch_end")
    on_grad_computed = _relayed("on_grad_computed")


class StepLogger(Callback):
    """Logs losses by optimiser step, counted over all trainings, unlike skorch's own counters."""

    def __init__(self, logger: RunLogger) -> None:
        self.logger = logger

    def initialize(self) -> StepLogger:
        self.losses_: list[float] = []
        return self

    def on_batch_end(self, net: NeuralNet, training: bool = False, **facts: Any) -> None:
        if not training:
            return
        progress = self.logger.progress
        progress.steps += 1
        self.losses_.append(facts["loss"].item())
        if len(self.losses_) == EVERY:
            self.logger.log_training({"batch_loss": float(np.mean(self.losses_))}, progress.steps)
            self.losses_.clear()

    def on_epoch_end(self, net: NeuralNet, **facts: Any) -> None:
        """Log the values that skorch's own loggers log, but by optimiser step, not epoch."""
        row = net.history[-1]
        values = {name: row[name] for name in filter_log_keys(row, ("batches", "dur"))}
        self.logger.log_training(values, self.logger.progress.steps)
