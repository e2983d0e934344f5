"""Translate the parameters of an `ImageClassifier` into those of a skorch net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from skorch.callbacks import BatchScoring, GradientNormClipping, LRScheduler
from torch import nn

from ..core.errors import DataError, ParameterError
from ..core.settings import settings_of
from ..datasets.base import Images
from . import MODELS, optimizers
from .backbone import Features
from .devices import Device
from .iterators import SliceBatches
from .settings import OPTIMIZERS, ClassifierSettings
from .training import SWA_SHARE, Averaging, Cosine, OneCycle, TrainBatches, UntilFlat

if TYPE_CHECKING:
    from .classifier import ImageClassifier

BACKBONE_SHARE = 0.1
"""Learning rate of a fine-tuned backbone, as a share of the head's."""
SHRINK, PERTURB = 0.6, 0.1
DEFAULT_LR = 0.003
HEAD_LRS = {"adamw": 0.003, "sgd": 0.02}
IMAGES_AT_ONCE = 8192
"""Upper bound; memory and `Device.scoring_batch_size` may lower it."""
FEATURES_AT_ONCE = 2048
"""Few enough rows that their float32 copies reuse memory the process has kept. With 1,280 features
that is three times as fast as 8192 rows, whose pages the system clears each time."""
SETTINGS = settings_of(ClassifierSettings)
OF_BATCHES = ("steps", "epochs", "balanced", "mixup")
SCHEDULES = {"one-cycle": OneCycle, "cosine": Cosine}


def default_lr(model: str, optimizer: str, freeze: bool = False) -> float:
    """Return the default peak learning rate; heads of frozen backbones have their own."""
    if freeze:
        return HEAD_LRS[optimizer]
    given = OPTIMIZERS[optimizer][1].get("lr")
    return float(given or MODELS.resolve(model).facts.get("lr", DEFAULT_LR))


def start_from(before: nn.Module, module: nn.Module, warm_start: str) -> None:
    """Copy the weights of the previous fit, or with "shrink" mix them with the module's own.

    Raises DataError if the shapes differ.
    """
    old, own = before.state_dict(), module.state_dict()  # old may also have a backbone
    for name, values in own.items():
        shape = tuple(old[name].shape) if name in old else None
        if shape != values.shape:
            raise DataError(
                f"warm_start: {name} had shape {shape} in the previous fit and has shape "
                f"{tuple(values.shape)} now; fit a new classifier or a clone"
            )
    trained = {name for name, weights in module.named_parameters() if weights.requires_grad}
    with torch.no_grad():
        for name, values in own.items():
            if warm_start == "shrink" and name in trained:
                values.mul_(PERTURB).add_(old[name], alpha=SHRINK)
            else:
                values.copy_(old[name])


def check_callbacks(classifier: ImageClassifier) -> None:
    """Raise ParameterError if a skorch callback contradicts a parameter, or needs a validation set
    or, with `mixup`, the labels of each batch.
    """
    for callback in _unnamed(classifier.callbacks):
        name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("valid"):
            raise ParameterError(
                f"the callback {name} monitors {monitor!r}, but ImageClassifier has no validation "
                "set; set monitor='train_loss', or monitor a score with on_train=True"
            )
        if getattr(callback, "on_train", True) is False:
            raise ParameterError(
                f"the callback {name} scores a validation set, which ImageClassifier does not "
                "have; set on_train=True"
            )
        if classifier.mixup and isinstance(callback, BatchScoring):
            raise ParameterError(
                f"the callback {name} needs the labels of each batch, which mixup mixes; use "
                "EpochScoring or mixup=0"
            )
        for own in ("patience", "schedule") if isinstance(callback, LRScheduler) else ():
            if getattr(classifier, own) != SETTINGS[own].default:
                raise ParameterError(
                    f"{own} and the LRScheduler callback both set the learning rate; leave one out"
                )


def _unnamed(callbacks: Sequence[Any]) -> list[Any]:
    plain = [callback[-1] if isinstance(callback, tuple) else callback for callback in callbacks]
    return [callback() if isinstance(callback, type) else callback for callback in plain]


def net_params(classifier: ImageClassifier, X: Images | Features) -> dict[str, Any]:
    """Return the parameters of the skorch net that trains a classifier on `X`."""
    device = Device.resolve(classifier.device, classifier.precision)
    optimizer, options = OPTIMIZERS[classifier.optimizer]
    lr = classifier.lr or default_lr(classifier.model, classifier.optimizer, classifier.freeze)
    groups = [("network.backbone.*", {"lr": BACKBONE_SHARE * lr})] if classifier.finetune else []
    if classifier.freeze:
        of_input = {"freeze": True, "head": classifier.head_used, "n_features": X.shape[1]}
    else:
        of_input = {
            "in_channels": X.shape[1],
            "image_size": X.shape[2],
            "pretrained": classifier.pretrained,
            "weights": classifier.weights,
        }
    return {
        "module__model": classifier.model,
        "module__augmentation": classifier.augmentation,
        "module__bf16": device.bf16,
        "module__n_classes": len(classifier.classes_),
        "module__dropout": classifier.dropout,
        **{f"module__{name}": value for name, value in of_input.items()},
        "optimizer": getattr(optimizers, optimizer),
        **{f"optimizer__{name}": value for name, value in options.items()},
        "optimizer__lr": lr,
        "optimizer__param_groups": groups,
        "optimizer__fused": device.name != "mps",
        "device": device.name,
        "train_split": None,
        "verbose": 0,
        **dict.fromkeys(f"callbacks__{name}" for name in ("valid_loss", "valid_acc", "print_log")),
        "iterator_train": TrainBatches,
        "iterator_train__batch_size": classifier.train_batch_size,
        **{f"iterator_train__{name}": getattr(classifier, name) for name in OF_BATCHES},
        "iterator_train__n_classes": len(classifier.classes_),
        "iterator_train__device": device.name,
        "iterator_valid": SliceBatches,
        "iterator_valid__device": device.name,
        "iterator_valid__batch_size": FEATURES_AT_ONCE if classifier.freeze else IMAGES_AT_ONCE,
        **_option_params(classifier, [*(options["lr"] for _, options in groups), lr]),
    }


def _option_params(classifier: ImageClassifier, lrs: list[float]) -> dict[str, Any]:
    """Return the parameters for a classifier's training options; `lrs` has one rate per group."""
    callbacks: list[tuple[str, Any]] = []
    parts: dict[str, Any] = {}
    if classifier.is_solved:
        return {"callbacks": list(classifier.callbacks)}
    if classifier.patience is not None:
        until_flat = UntilFlat(classifier.patience)
        callbacks.append(("until_flat", until_flat))
        parts["iterator_train__ended"] = until_flat.over
    elif not any(isinstance(c, LRScheduler) for c in _unnamed(classifier.callbacks)):
        held = SWA_SHARE if classifier.average == "swa" else 0.0
        callbacks.append(("schedule", SCHEDULES[classifier.schedule](lrs, held)))
    if classifier.clip_norm is not None:
        callbacks.append(("clip_norm", GradientNormClipping(classifier.clip_norm)))
    if classifier.average != "none":
        callbacks.append(("averaging", Averaging(classifier.average)))
    if classifier.label_smoothing:
        parts["criterion__label_smoothing"] = classifier.label_smoothing
    if classifier.mixup:
        parts["use_caching"] = False  # scores are computed on unmixed images and labels
    return {**parts, "callbacks": [*callbacks, *classifier.callbacks]}
