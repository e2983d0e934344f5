"""How networks are trained: optimisers, learning rates, averages, callbacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from skorch import NeuralNet
from skorch.callbacks import BatchScoring, Callback, GradientNormClipping, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ..core.errors import DataError, ParameterError
from ..datasets.base import Images
from . import MODELS
from .backbone import Features
from .devices import Device
from .iterators import SliceBatches, TrainBatches
from .settings import OPTIMIZERS

if TYPE_CHECKING:
    from .classifier import ImageClassifier

BACKBONE_SHARE = 0.1
"""Of the learning rate, that a backbone is fine-tuned at."""

SHRINK, PERTURB = 0.6, 0.1
EMA_SHARE, SWA_SHARE = 0.1, 0.25
MIN_WINDOW, LEAST_FALL = 10, 0.01
MOST_RISING, FALL = 50, 0.25
DEFAULT_LR = 0.003
HEAD_LRS = {"adamw": 0.003, "sgd": 0.02}


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
        self.schedule_ = self._schedule(net.optimizer_)

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        # torch divides by parts of the cycle, none of which may be empty
        return OneCycleLR(
            optimizer,
            self.max_lr,
            total_steps=max(self.left_, 4) + 1,
            div_factor=25,
            final_div_factor=10 / 25 if self.held else 1e4,
        )

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if training and self.left_:
            self.left_ -= 1
            self.schedule_.step()


class Cosine(OneCycle):
    """From the highest learning rate to 0 along half a cosine (Loshchilov and Hutter, 2017).

    With `held`, to a tenth of the highest.
    """

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        self.steps_ = max(self.left_, 1)
        return LambdaLR(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        lowest = 0.1 if self.held else 0.0
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(step / self.steps_, 1))) / 2


SCHEDULES = {"one-cycle": OneCycle, "cosine": Cosine}


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
    steps: int = net.get_iterator(net.get_dataset(X, y), training=True).steps
    return steps


def default_lr(model: str, optimizer: str, freeze: bool = False) -> float:
    """Return the highest learning rate to use when none is given.

    A head on a frozen backbone has its own, whatever the backbone.
    """
    options = OPTIMIZERS[optimizer][1]
    if freeze:
        return HEAD_LRS[optimizer]
    return float(options.get("lr") or MODELS.resolve(model).facts.get("lr", DEFAULT_LR))


def start_from(before: nn.Module, module: nn.Module, warm_start: str) -> None:
    """Give a new module the weights of the fit before, or with "shrink" a mix of them and its own.

    Raises
    ------
    DataError
        If they are of other shapes.
    """
    old, own = before.state_dict(), module.state_dict()  # old may have a backbone taken on later
    for name, values in own.items():
        shape = tuple(old[name].shape) if name in old else None
        if shape != values.shape:
            raise DataError(
                f"warm_start: {name} had the shape {shape} in the fit before and has "
                f"{tuple(values.shape)} now; fit a new classifier, or a clone"
            )
    trained = {name for name, weights in module.named_parameters() if weights.requires_grad}
    with torch.no_grad():
        for name, values in own.items():
            if warm_start == "shrink" and name in trained:
                values.mul_(PERTURB).add_(old[name], alpha=SHRINK)
            else:
                values.copy_(old[name])


def scheduled(callbacks: Sequence[Any]) -> bool:
    """Tell whether a user's skorch callbacks decide the learning rate."""
    return any(isinstance(callback, LRScheduler) for callback in _unnamed(callbacks))


def check_callbacks(callbacks: Sequence[Any], mixup: bool) -> None:
    """Check that skorch callbacks ask for nothing that a training here does not have.

    Raises
    ------
    ParameterError
        If one asks for a validation set, or for the labels of images that are mixed.
    """
    for callback in _unnamed(callbacks):
        name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("valid"):
            raise ParameterError(
                f"the callback {name} watches {monitor!r}, but an ImageClassifier has no "
                "validation set; give it monitor='train_loss', or a score with on_train=True"
            )
        if getattr(callback, "on_train", True) is False:
            raise ParameterError(
                f"the callback {name} scores a validation set, which an ImageClassifier does not "
                "have; give it on_train=True"
            )
        if mixup and isinstance(callback, BatchScoring):
            raise ParameterError(
                f"the callback {name} needs the labels of each batch, which mixup mixes; use "
                "EpochScoring, or mixup=0"
            )


def _unnamed(callbacks: Sequence[Any]) -> list[Any]:
    plain = [callback[-1] if isinstance(callback, tuple) else callback for callback in callbacks]
    return [callback() if isinstance(callback, type) else callback for callback in plain]


def net_params(classifier: ImageClassifier, X: Images | Features) -> dict[str, Any]:
    """Return the parameters of the skorch net that trains a classifier on such input."""
    device = Device.resolve(classifier.device, classifier.precision)
    optimizer, options = OPTIMIZERS[classifier.optimizer]
    lr = classifier.lr or default_lr(classifier.model, classifier.optimizer, classifier.freeze)
    groups = [("network.backbone.*", {"lr": BACKBONE_SHARE * lr})] if classifier.finetune else []
    return {
        "module__model": classifier.model,
        "module__augmentation": classifier.augmentation,
        "module__bf16": device.bf16,
        "module__n_classes": len(classifier.classes_),
        "module__dropout": classifier.dropout,
        **_input_params(classifier, X),
        "optimizer": getattr(torch.optim, optimizer),
        **{f"optimizer__{name}": value for name, value in options.items()},
        "optimizer__lr": lr,
        "optimizer__param_groups": groups,
        "optimizer__fused": device.name != "mps",
        "device": device.name,
        "train_split": None,
        "verbose": 0,
        "callbacks__valid_loss": None,
        "callbacks__valid_acc": None,
        "callbacks__print_log": None,
        "iterator_train": TrainBatches,
        "iterator_train__batch_size": classifier.train_batch_size,
        "iterator_train__steps": classifier.steps,
        "iterator_train__epochs": classifier.epochs,
        "iterator_train__balanced": classifier.balanced,
        "iterator_train__mixup": classifier.mixup,
        "iterator_train__n_classes": len(classifier.classes_),
        "iterator_train__device": device.name,
        "iterator_valid": SliceBatches,
        "iterator_valid__device": device.name,
        "iterator_valid__batch_size": device.scoring_batch_size(X.shape[-1]),
        **_option_params(classifier, [*(options["lr"] for _, options in groups), lr]),
    }


def _option_params(classifier: ImageClassifier, lrs: list[float]) -> dict[str, Any]:
    """Say what of the training the options decide, of a network with so many groups."""
    callbacks: list[tuple[str, Any]] = []
    parts: dict[str, Any] = {}
    if classifier.patience is not None:
        until_flat = UntilFlat(classifier.patience)
        callbacks.append(("until_flat", until_flat))
        parts["iterator_train__ended"] = until_flat.over
    elif not scheduled(classifier.callbacks):
        held = SWA_SHARE if classifier.average == "swa" else 0.0
        callbacks.append(("schedule", SCHEDULES[classifier.schedule](lrs, held)))
    if classifier.clip_norm is not None:
        callbacks.append(("clip_norm", GradientNormClipping(classifier.clip_norm)))
    if classifier.average != "none":
        callbacks.append(("averaging", Averaging(classifier.average)))
    if classifier.label_smoothing:
        parts["criterion__label_smoothing"] = classifier.label_smoothing
    if classifier.mixup:
        parts["use_caching"] = False  # scores are of images and labels as they are
    return {**parts, "callbacks": [*callbacks, *classifier.callbacks]}


def _input_params(classifier: ImageClassifier, X: Images | Features) -> dict[str, Any]:
    """Say what of the network its input decides: pixels or features."""
    if classifier.freeze:
        parts = {"freeze": True, "head": classifier.head, "n_features": X.shape[1]}
    else:
        parts = {
            "in_channels": X.shape[1],
            "image_size": X.shape[2],
            "pretrained": classifier.pretrained,
            "weights": classifier.weights,
        }
    return {f"module__{name}": value for name, value in parts.items()}
