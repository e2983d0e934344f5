"""How networks are trained and run: learning rate, averages, device, precision."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import Lock
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ..core.errors import ParameterError
from ..core.memory import keep_freed_memory
from . import MODELS
from .iterators import TrainBatches

OPTIMIZERS: Mapping[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "lr": 0.05}),
}
WARM_STARTS = ("off", "on", "shrink")
AVERAGES = ("none", "ema", "swa")
SHRINK, PERTURB = 0.6, 0.1
EMA_SHARE, SWA_SHARE = 0.1, 0.25
MIN_WINDOW, LEAST_FALL = 10, 0.01
MOST_RISING, FALL = 50, 0.25
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
DEFAULT_LR = 0.003
HEAD_LRS = {"adamw": 0.003, "sgd": 0.02}
PIXELS_PER_BATCH = {"cpu": 100_000, "cuda": 4_000_000}
_KNOWN_WARNINGS = (
    ".* does not have a deterministic implementation, but you set",
    "Deterministic behavior was enabled with either",
    ".*attention defaults to a non-deterministic algorithm",
    "Please use the new API settings to control TF32 behavior",
)
"""What torch says of `computing_on`; that one says what it comes to."""


class OneCycle(Callback):
    """One cycle of the learning rate over each fit (Smith and Topin, 2019).

    The momentum (AdamW's beta1) goes the other way, from 0.95 to 0.85 and back.

    skorch's own LRScheduler wants the cycle's length beforehand and counts on over fits; here it
    depends on how many images are labelled by then.

    Parameters
    ----------
    max_lr : float or list of float
        Highest learning rate; one for each group of weights that the optimiser has.
    held : float, default=0
        Share of the steps, at the end, in which the rate stays at a tenth of the highest, where
        the cycle ends then.
    """

    def __init__(self, max_lr: float | list[float], held: float = 0.0) -> None:
        self.max_lr = max_lr
        self.held = held

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps = _n_steps(net, X, y)
        self.left_ = steps - math.floor(self.held * steps)
        # torch divides by parts of the cycle, none of which may be empty
        self.schedule_ = OneCycleLR(
            net.optimizer_,
            self.max_lr,
            total_steps=max(self.left_, 4) + 1,
            div_factor=25,
            final_div_factor=10 / 25 if self.held else 1e4,
        )

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if training and self.left_:
            self.left_ -= 1
            self.schedule_.step()


class UntilFlat(Callback):
    """Holds the learning rate until the training loss no longer falls; then lets it fall to 0.

    The rate rises over the first steps. From then on the loss is watched by its mean over windows
    of one epoch, but 10 steps at least. It has stopped falling when `patience` windows in a row
    were not 0.01 below the best one before; or when four fifths of the steps are done. A quarter
    as many steps as were done until then go into the fall, and the training is over.

    Parameters
    ----------
    patience : int
        Windows.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps = _n_steps(net, X, y)
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

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if not training:
            return
        self.done_ += 1
        if self.rising_ < self.done_ < self.fall_:
            self._watch(net.history[-1, "batches", -1, "train_loss"])
        self.schedule_.step()

    def _watch(self, loss: float) -> None:
        self.losses_.append(loss)
        if len(self.losses_) < self.window_:
            return
        mean = sum(self.losses_) / len(self.losses_)
        self.losses_.clear()
        self.stale_ = 0 if mean < self.best_ - LEAST_FALL else self.stale_ + 1
        self.best_ = min(self.best_, mean)
        if self.stale_ >= self.patience:
            self.fall_ = self.done_
            self.end_ = math.floor(self.done_ * (1 + FALL))

    def over(self) -> bool:
        """Tell whether the training is over."""
        return self.done_ >= self.end_


class Averaging(Callback):
    """Ends each fit with an average of the weights, and batch norm's statistics of that.

    Parameters
    ----------
    kind : {"ema", "swa"}
        An exponential moving average over all steps, the last tenth of those done or planned, if
        fewer are done, weighing most; or the mean over the last quarter of the steps [1]_.

    References
    ----------
    .. [1] P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson. Averaging Weights Leads
       to Wider Optima and Better Generalization. UAI 2018.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        steps = _n_steps(net, X, y)
        function = None
        self.wait_, self.done_ = math.floor((1 - SWA_SHARE) * steps), 0
        if self.kind == "ema":
            self.decay_ = 1 - 1 / max(EMA_SHARE * steps, 2)
            function = self._towards
            self.wait_ = 0
        self.average_ = AveragedModel(net.module_, multi_avg_fn=function)

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if not training:
            return
        self.wait_ -= 1
        if self.wait_ < 0:
            self.average_.update_parameters(net.module_)

    def _towards(self, averages: Any, weights: Any, n_averaged: Any) -> None:
        """Move the averages; by more as long as few steps are done, for there may be no more."""
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


def _n_steps(net: NeuralNet, X: Any, y: Any) -> int:
    return len(net.get_iterator(net.get_dataset(X, y), training=True))


class _CudaSettings:
    """torch's settings while networks compute on CUDA: from the first user to the last."""

    def __init__(self) -> None:
        self._lock, self._users, self._settings = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                _hush_torch()
                with ExitStack() as settings:
                    settings.enter_context(_tf32())
                    settings.enter_context(_repeatable())
                    self._settings = settings.pop_all()
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._settings.close()


_CUDA_SETTINGS = _CudaSettings()


def computing_on(device: str) -> AbstractContextManager[None]:
    """Set torch to what networks compute with on a device, for the time of the block.

    On CUDA float32 matrices are multiplied as TF32, as torch lets it convolve. And the same is to
    come out again, on the same machine, with the same versions and the same seed: cuDNN takes its
    deterministic algorithms, and so does torch wherever it has one. It has none for the gradient of
    attention (in transformers) and of some kinds of pooling (AlexNet's and VGG's), which may
    differ in the last bits; of that nothing is said. The environment variable
    ``CUBLAS_WORKSPACE_CONFIG``, where it is not set, stays at what determinism needs, and torch's
    warnings of what is not deterministic stay off.

    On a CPU the process keeps the memory that it frees, from then on; see `keep_freed_memory`.

    Parameters
    ----------
    device : str
        On MPS nothing changes.
    """
    if device.startswith("cuda"):
        return _CUDA_SETTINGS
    if device == "cpu":
        keep_freed_memory()
    return nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    """Change torch's old setting, by which the new ones follow: some readers raise if they differ.

    torch.compile is one, of torch 2.10.
    """
    torch_backends: Any = torch.backends
    backends = [torch_backends.cuda.matmul, torch_backends.mkldnn.matmul]
    new = [backend.fp32_precision for backend in backends]
    try:
        old = torch.get_float32_matmul_precision()
    except RuntimeError:  # they differ already; not so afterwards
        old = "high" if new[0] == "tf32" else "highest"
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(old)
        for backend, precision in zip(backends, new, strict=True):
            backend.fp32_precision = precision


@contextmanager
def _repeatable() -> Iterator[None]:
    """Switch to deterministic algorithms; where the process has them on, its own way stays."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    mode = torch.are_deterministic_algorithms_enabled()
    before = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    # not filled, which costs a pass over each result and changes none
    cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = True, False, False
    if not mode:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        if not mode:
            torch.use_deterministic_algorithms(False)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before


def _hush_torch() -> None:
    """Ignore what torch would say in each step, wherever the filters were put back since."""
    for message in _KNOWN_WARNINGS:
        known = ("ignore", re.compile(message, re.IGNORECASE), UserWarning, None, 0)
        if known not in warnings.filters:  # else all that was said once would be said again
            warnings.filterwarnings("ignore", message, UserWarning)


def default_lr(model: str, optimizer: str, freeze: bool = False) -> float:
    """Return the highest learning rate to use when none is given.

    A head on a frozen backbone has its own, whatever the backbone.
    """
    options = OPTIMIZERS[optimizer][1]
    if freeze:
        return HEAD_LRS[optimizer]
    return float(options.get("lr") or MODELS.entry(model).facts.get("lr", DEFAULT_LR))


def scoring_batch_size(device: str, image_size: int) -> int:
    """Return how many images to score at once: what was measured to be fastest.

    On a CPU a batch's feature maps should stay near the caches; a GPU wants to be filled.
    """
    pixels = PIXELS_PER_BATCH.get(device, PIXELS_PER_BATCH["cuda"])
    return int(np.clip(2 ** round(math.log2(pixels / image_size**2)), 16, 8192))


def resolve_device(device: str) -> str:
    """Return the device that "auto" stands for; check that another one is there.

    Raises
    ------
    ParameterError
        If the device is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, found in there.items() if found)
    if not there[device]:
        having = ", ".join(name for name, found in there.items() if found)
        raise ParameterError(f"device {device!r} is not there; this machine has: {having}")
    return device


def resolve_bf16(precision: str, device: str) -> bool:
    """Tell whether to compute in bfloat16: if asked to, or where the device does so natively."""
    if precision != "auto":
        return precision == "bf16"
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    return _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    # torch 2.10 has the probes only
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
