"""The skorch net behind `ImageClassifier`: trained in epochs, asked in one stream of batches."""

from __future__ import annotations

import copy
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from torch import Tensor

from ..core.errors import DataError
from ..datasets.base import Images
from .devices import computing_on
from .iterators import SliceBatches, run_batches

T = TypeVar("T")


class ImageNet(NeuralNetClassifier):  # type: ignore[misc]
    """A skorch net that trains for a number of steps and calls each pass over the images an epoch.

    The last epoch is cut when the steps are done. As with skorch, a callback ends the training by
    raising KeyboardInterrupt; a real Ctrl-C reaches the caller.
    """

    iterator_valid__batch_size: int

    @property
    def device_name(self) -> str:
        return str(self.device)

    def train_on(self, X: Any, y: NDArray[np.int64]) -> None:
        """Train from the weights as they are; with them torch's settings for the device.

        Raises
        ------
        DataError
            If the loss is NaN or infinite.
        """
        with computing_on(self.device_name):
            self.notify("on_train_begin", X=X, y=y)
            with _ended_by_callbacks():
                self.fit_loop(X, y)
            self.notify("on_train_end", X=X, y=y)

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **_: Any) -> ImageNet:
        """Train epoch by epoch until the iterator has no more batches; there is no validation."""
        self.check_data(X, y)
        self.check_training_readiness()
        dataset = self.get_dataset(X, y)
        batches = self.get_iterator(dataset, training=True)
        about = {"dataset_train": dataset, "dataset_valid": None}
        while batches.left:
            self.notify("on_epoch_begin", **about)
            self.run_single_epoch(batches, training=True, prefix="train", step_fn=self.train_step)
            self._check_losses()
            self.notify("on_epoch_end", **about)
        return self

    def _check_losses(self) -> None:
        losses = [batch["train_loss"] for batch in self.history[-1]["batches"]]
        if not all(map(math.isfinite, losses)):
            raise DataError(
                f"training diverged: its loss became NaN or infinite in epoch {len(self.history)}; "
                "choose a smaller lr, or clip_norm"
            )

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Undo what the block does to weights, optimiser and history if it does not come through.

        A backbone that is not trained is not copied.
        """
        module = self.module_
        changing = [p for p in module.parameters() if p.requires_grad] + list(module.buffers())
        before = [tensor.detach().clone() for tensor in changing]
        optimizer, n_epochs = copy.deepcopy(self.optimizer_.state_dict()), len(self.history)
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for tensor, value in zip(changing, before, strict=True):
                    tensor.copy_(value)
            self.optimizer_.load_state_dict(optimizer)
            del self.history[n_epochs:]
            raise

    def stream(
        self, X: Images, compute: Callable[[Tensor], T], rows: NDArray[np.int64] | None = None
    ) -> Iterator[T]:
        """Yield what `compute` makes of each batch, on the device, in evaluation mode.

        If batches had to become smaller, they stay so.
        """
        self.module_.eval()
        batches = SliceBatches(Dataset(X), self.iterator_valid__batch_size, rows, self.device_name)

        def computed(images: Tensor) -> T:
            with computing_on(self.device_name):
                return compute(images.to(self.device))

        for result in run_batches(batches, computed):
            self.iterator_valid__batch_size = batches.batch_size
            yield result

    def replica(self, device: str) -> ImageNet:
        """Return a copy with its network on another device, to be asked and not to be trained."""
        # not copy.copy: skorch would pickle the network, which not every model's classes allow
        other: ImageNet = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.module_ = copy.deepcopy(self.module_).to(device)
        other.device = device
        return other


@contextmanager
def _ended_by_callbacks() -> Iterator[None]:
    """Take a KeyboardInterrupt for the end of the training, unless somebody pressed Ctrl-C."""
    pressed: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None  # Ctrl-C is for the main thread

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except KeyboardInterrupt:
        if pressed:
            raise
    finally:
        if callable(before):
            signal.signal(signal.SIGINT, before)
