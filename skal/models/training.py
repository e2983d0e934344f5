"""Training: batches, steps, learning rate schedules, weight averaging."""

from __future__ import annotations

import copy
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from skorch.utils import TeeGenerator
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ..core.errors import DataError
from ..core.progress import SLOW_SECONDS, progress
from .devices import computing_on
from .iterators import FREE_BYTES, copied

MIN_STEPS, MIN_EPOCHS = 200, 20
EMA_SHARE, SWA_SHARE = 0.1, 0.25
MIN_WINDOW, LEAST_FALL = 10, 0.01
MOST_RISING, FALL = 50, 0.25
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class TrainBatches:
    """Full shuffled batches for a number of optimiser steps; each iteration is an epoch.

    Every batch is full: it may contain the end of one pass over the images and the start of the
    next. So there is never a batch of a single image, for which batch norm fails. An epoch ends
    with the batch that completes a pass; the last one ends when all steps are done, or when
    `ended`, which is called before each batch, returns True. With neither `steps` nor `epochs`
    (passes over the images) there are `MIN_STEPS` batches or `MIN_EPOCHS` passes, whichever is
    more.

    A batch has `batch_size` images, or all if there are fewer, but at least two. If `balanced`,
    images are drawn from the classes in turn. All images are copied to a GPU first if they fit.

    `mixup` is the alpha of mixup [1]_, 0 for none: each image and its label are mixed with another
    of the batch, in a share that is drawn per batch from Beta(alpha, alpha). Batches are `X` and
    `y`; with mixup a dict of `images`, `partners` (the row that each image is mixed with) and
    `shares` (of the image itself), the arguments of `ImageModule.forward`, and class shares,
    float32 of shape (batch_size, n_classes).

    References
    ----------
    .. [1] H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz. mixup: Beyond Empirical Risk
       Minimization. ICLR 2018.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        steps: int | None = None,
        epochs: int | None = None,
        *,
        balanced: bool = False,
        mixup: float = 0.0,
        n_classes: int = 0,
        device: str = "cpu",
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self.X, self.y = dataset.X, torch.as_tensor(dataset.y)
        self.batch_size = max(min(batch_size, len(self.y)), 2)
        passes = MIN_EPOCHS if epochs is None else epochs
        by_passes = math.ceil(passes * len(self.y) / self.batch_size)
        self.steps = steps or (max(MIN_STEPS, by_passes) if epochs is None else by_passes)
        self.mixup = mixup
        self.n_classes = n_classes
        self.ended = ended
        self._done = 0
        self._draws = self._taking_turns() if balanced else shuffled(len(self.y), self.batch_size)
        self._device = torch.device(device)
        self._pool: Tensor | None = None

    @property
    def left(self) -> int:
        """The number of remaining steps."""
        return 0 if self.ended() else self.steps - self._done

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield the batches of the next epoch."""
        # not in __init__: solved heads use no batches
        if not self._done and self._device.type in FREE_BYTES:
            self._pool = copied(self.X, self._device)
        passes = self._done * self.batch_size // len(self.y) + 1
        stop = min(self.steps, math.ceil(passes * len(self.y) / self.batch_size))
        while self._done < stop and not self.ended():
            rows = next(self._draws)
            self._done += 1
            if self._pool is None:
                images = torch.from_numpy(self.X[rows.numpy()])
            else:
                images = self._pool[rows.to(self._pool.device)]
            yield self._mixed(images, self.y[rows]) if self.mixup else (images, self.y[rows])

    def _taking_turns(self) -> Iterator[Tensor]:
        labels = sorted(set(self.y.tolist()))
        decks = [_dealt(torch.nonzero(self.y == label)[:, 0]) for label in labels]
        turns = _dealt(torch.arange(len(decks)))
        while True:
            yield torch.tensor([next(decks[turn]) for turn in islice(turns, self.batch_size)])

    def _mixed(self, images: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        share = torch.distributions.Beta(self.mixup, self.mixup).sample()
        partners = torch.randperm(len(y))
        ones = torch.nn.functional.one_hot(y, self.n_classes).float()
        shares = share.expand(len(y))
        mixed = {"images": images, "partners": partners, "shares": shares}
        return mixed, share * ones + (1 - share) * ones[partners]


def shuffled(n: int, batch_size: int) -> Iterator[Tensor]:
    """Yield batches of row numbers endlessly, reshuffled in each pass over all `n`."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(n)])
        rows, queue = queue[:batch_size], queue[batch_size:]
        yield rows


def _dealt(cards: Tensor) -> Iterator[int]:
    """Yield all values in random order, endlessly, reshuffled after each pass."""
    while True:
        yield from cards[torch.randperm(len(cards))].tolist()


class ImageNet(NeuralNetClassifier):  # type: ignore[misc]
    """A skorch net that trains for a number of steps; epochs are passes over the images.

    The last epoch ends early when the steps are done. As in skorch, a callback can end training by
    raising KeyboardInterrupt; a real Ctrl-C reaches the caller.
    """

    iterator_valid__batch_size: int
    n_steps_: int
    """Number of steps of the current training, for callbacks."""

    def train_on(
        self, X: Any, y: NDArray[np.int64], weights: NDArray[np.float64] | None = None
    ) -> None:
        """Train from the current weights, with torch's settings for the device.

        `weights` of the images, of mean 1, are used by solved heads only. Raises DataError if the
        loss is NaN or infinite.
        """
        self.check_data(X, y)
        self.check_training_readiness()
        dataset = self.get_dataset(X, y)
        batches = self.get_iterator(dataset, training=True)
        self.n_steps_ = batches.steps
        about = {"dataset_train": dataset, "dataset_valid": None}
        with computing_on(str(self.device)):
            self.notify("on_train_begin", X=X, y=y)
            with _ended_by_callbacks():
                if getattr(self.module_.network, "is_solved", False):
                    self._solve(X, y, np.ones(len(y)) if weights is None else weights, about)
                else:
                    self._descend(batches, about)
            self.notify("on_train_end", X=X, y=y)

    def _solve(
        self,
        X: Any,
        y: NDArray[np.int64],
        weights: NDArray[np.float64],
        about: dict[str, Any],
    ) -> None:
        """Solve the last layer; recorded as one epoch of one batch."""
        self.notify("on_epoch_begin", **about)
        loss = self.module_.network.solve(
            torch.from_numpy(np.array(X)), torch.as_tensor(y), weights
        )
        self.history.new_batch()
        self.history.record_batch("train_loss", loss)
        self.history.record_batch("train_batch_size", len(y))
        self.notify("on_epoch_end", **about)

    def _descend(self, batches: TrainBatches, about: dict[str, Any]) -> None:
        """Train epoch by epoch until no batches are left, without validation."""
        with progress(total=batches.left, desc="training", unit="step", delay=SLOW_SECONDS) as bar:

            def step(batch: Any, **options: Any) -> dict[str, Any]:
                done = self.train_step(batch, **options)
                bar.update()
                return done

            while batches.left:
                self.notify("on_epoch_begin", **about)
                self.run_single_epoch(batches, training=True, prefix="train", step_fn=step)
                losses = (batch["train_loss"] for batch in self.history[-1]["batches"])
                if not all(map(math.isfinite, losses)):
                    raise DataError(
                        "training diverged: its loss became NaN or infinite in epoch "
                        f"{len(self.history)}; choose a smaller lr, or clip_norm"
                    )
                self.notify("on_epoch_end", **about)

    def train_step(self, batch: Any, **_: Any) -> dict[str, Any]:
        """Train on one batch; skorch's own method sets all layers to training mode each time."""
        if not self.module_.training:  # a callback may have used the network
            self.module_.train()
        self.optimizer_.zero_grad()
        images, y = batch
        y_pred = self.infer(images)
        loss = self.get_loss(y_pred, y, X=images, training=True)
        loss.backward()
        parameters = TeeGenerator(self.get_all_learnable_params())
        about = {"named_parameters": parameters, "batch": batch, "training": True}
        self.notify("on_grad_computed", **about)
        self.optimizer_.step()
        return {"loss": loss, "y_pred": y_pred}

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Restore weights, optimiser and history if the block raises.

        Frozen weights are not copied.
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

    def replica(self, device: str) -> ImageNet:
        """Return a copy with its network on another device, for inference only."""
        # not copy.copy: skorch would pickle the network, which some models do not support
        other: ImageNet = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.module_ = copy.deepcopy(self.module_).to(device)
        other.device = device
        return other


@contextmanager
def _ended_by_callbacks() -> Iterator[None]:
    """Treat KeyboardInterrupt as the end of training, unless a signal caused it."""
    pressed: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    # only the main thread handles signals; on the command line both end the process
    before = {number: signal.getsignal(number) for number in ENDING if main}

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    handled = [number for number, handler in before.items() if callable(handler)]
    for number in handled:
        signal.signal(number, note)
    try:
        yield
    except KeyboardInterrupt:
        if pressed:
            raise
    finally:
        for number in handled:
            signal.signal(number, before[number])


class OneCycle(Callback):
    """One cycle of the learning rate over each fit (Smith and Topin, 2019).

    The momentum (AdamW's beta1) moves in the opposite direction, from 0.95 to 0.85 and back.
    `max_lr` is the peak rate, or one per parameter group. With `held` the cycle ends at a tenth of
    the peak rate, which is held for that share of the steps.

    skorch's LRScheduler needs the cycle's length in advance and continues counting across fits;
    here the length depends on the number of labelled images.
    """

    def __init__(self, max_lr: float | list[float], held: float = 0.0) -> None:
        self.max_lr = max_lr
        self.held = held

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps: int = net.n_steps_
        self.left_ = steps - math.floor(self.held * steps)
        self.schedule_ = self._schedule(net.optimizer_)

    def _schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        # torch divides by the lengths of the cycle's phases, which must not be 0
        return OneCycleLR(
            optimizer,
            self.max_lr,
            total_steps=max(self.left_, 4) + 1,
            div_factor=25,
            final_div_factor=10 / 25 if self.held else 1e4,
        )

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self.left_:
            self.left_ -= 1
            self.schedule_.step()


class Cosine(OneCycle):
    """Cosine decay from the peak learning rate to 0 (Loshchilov and Hutter, 2017).

    With `held`, to a tenth of the peak.
    """

    def _schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        self.steps_ = max(self.left_, 1)
        return LambdaLR(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        lowest = 0.1 if self.held else 0.0
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(step / self.steps_, 1))) / 2


class UntilFlat(Callback):
    """Hold the peak learning rate until the training loss is flat, then decay it linearly to 0.

    The rate is warmed up over the first steps. The loss is then averaged over windows of one epoch,
    at least 10 steps. It is flat once `patience` windows in a row were not at least 0.01 below the
    best one before; decay starts after four fifths of the steps in any case. The decay takes a
    quarter of the steps done until then, and ends the training.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps: int = net.n_steps_
        self.done_, self.stale_, self.best_ = 0, 0, math.inf
        self.rising_ = max(1, min(MOST_RISING, steps // 4))
        self.fall_, self.end_ = math.floor(steps / (1 + FALL)), steps
        self.window_ = max(MIN_WINDOW, math.ceil(len(y) / net.iterator_train__batch_size))
        self.losses_: list[float] = []
        self.schedule_ = LambdaLR(net.optimizer_, self._factor)

    def _factor(self, step: int) -> float:
        if step < self.rising_:
            return (step + 1) / self.rising_
        return min(1.0, max(0.0, (self.end_ - step) / max(self.end_ - self.fall_, 1)))

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.done_ += 1
        if self.rising_ < self.done_ < self.fall_:
            self.losses_.append(net.history[-1, "batches", -1, "train_loss"])
            if len(self.losses_) == self.window_:
                self._judge(sum(self.losses_) / self.window_)
        self.schedule_.step()

    def _judge(self, mean: float) -> None:
        """Compare a window's mean loss with the best one; start the decay if the loss is flat."""
        self.losses_.clear()
        self.stale_ = 0 if mean < self.best_ - LEAST_FALL else self.stale_ + 1
        self.best_ = min(self.best_, mean)
        if self.stale_ >= self.patience:
            self.fall_ = self.done_
            self.end_ = math.floor(self.done_ * (1 + FALL))

    def over(self) -> bool:
        """Return whether training is over."""
        return self.done_ >= self.end_


class Averaging(Callback):
    """Average the weights at the end of each fit, and recompute batch norm's statistics.

    "ema" is an exponential moving average over all steps with a time constant of a tenth of the
    steps, planned or done, whichever are fewer; "swa" is the mean over the last quarter of the
    steps [1]_.

    References
    ----------
    .. [1] P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson. Averaging Weights Leads
       to Wider Optima and Better Generalization. UAI 2018.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps: int = net.n_steps_
        ema = self.kind == "ema"
        self.wait_, self.done_ = 0 if ema else math.floor((1 - SWA_SHARE) * steps), 0
        self.decay_ = 1 - 1 / max(EMA_SHARE * steps, 2)
        self.average_ = AveragedModel(net.module_, multi_avg_fn=self._towards if ema else None)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.wait_ -= 1
        if self.wait_ < 0:
            self.average_.update_parameters(net.module_)

    def _towards(self, averages: Any, weights: Any, n_averaged: Any) -> None:
        """Update the averages, faster during the first steps, since training may end early."""
        self.done_ += 1
        decay = min(self.decay_, 1 - 1 / max(EMA_SHARE * self.done_, 2))
        get_ema_multi_avg_fn(decay)(averages, weights, n_averaged)  # type: ignore[no-untyped-call]

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        averages = self.average_.module.parameters()
        with torch.no_grad():
            for weights, average in zip(net.module_.parameters(), averages, strict=True):
                weights.copy_(average)
        del self.average_
        once = TrainBatches(net.get_dataset(X, y), net.iterator_train__batch_size, epochs=1)
        update_bn(once, net.module_, torch.device(net.device))
