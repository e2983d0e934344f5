"""Settings of networks and of their training. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..core.settings import Settings, setting, settings_of

OPTIMIZERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", {"weight_decay": 0.01}),
    "sgd": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "lr": 0.05}),
}
"""Class names in `skal.models.optimizers`, and their options."""
MOST_STEPS = 10**9

_SOLVED = ("head=logistic",)
_network = partial(setting, group="network")
_training = partial(setting, group="training")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class TrainingSettings(Settings):
    """Settings of a run that are parameters of `ImageClassifier`."""

    pretrained: bool = _network(
        False,
        "Start from the model's pretrained weights",
        excludes={"weights": "they are two places to start from"},
    )
    weights: str | None = _network(
        None,
        "Start from the weights in a file: a state dict, or a run's model.safetensors",
        metavar="FILE",
    )
    freeze: bool = _network(
        False,
        "Freeze the backbone: compute its features once per image, and train only a head",
        details="The features are cached under `data_dir` and replace the pixels.",
        excludes={"finetune": "freeze trains no backbone"},
    )
    finetune: bool = _network(False, "Fine-tune the backbone, at a tenth of the learning rate")
    head: str | None = _network(
        None,
        "Head of a frozen backbone: logistic regression, or one or two layers trained by gradients",
        details="Logistic regression is solved to its optimum on unit-length features; "
        "cross-validation over the labels chooses its regularisation strength. It is the default, "
        "unless you set an option of gradient training: then the default is linear. mlp has a "
        "hidden layer of 256 units.",
        choices=("logistic", "linear", "mlp"),
        needs=("freeze",),
    )
    steps: int | None = _training(
        None,
        "Optimiser steps per training; by default 200 or 20 epochs, whichever is more",
        metavar="N",
        lowest=1,
        highest=MOST_STEPS,
        excludes={"epochs": ""},
        idle_with=_SOLVED,
    )
    epochs: int | None = _training(
        None,
        "Epochs per training, instead of --steps",
        metavar="N",
        lowest=1,
        highest=10**6,
        idle_with=_SOLVED,
    )
    train_batch_size: int = _training(
        64,
        "Images per optimiser step",
        metavar="N",
        lowest=1,
        highest=10**6,
        idle_with=_SOLVED,
    )
    optimizer: str = _training(
        "adamw",
        "The optimiser",
        details="AdamW has weight decay 0.01; SGD has Nesterov momentum and weight decay 5e-4.",
        choices=tuple(OPTIMIZERS),
        idle_with=_SOLVED,
    )
    lr: float | None = _training(
        None,
        "Peak learning rate; by default the model's own, or 0.05 with SGD, and of a frozen "
        "network's head 0.003, or 0.02 with SGD",
        metavar="F",
        above=0,
        idle_with=_SOLVED,
    )
    schedule: str = _training(
        "one-cycle",
        "Learning rate schedule: one cycle (up, then down), or cosine decay",
        details="With one cycle (Smith and Topin, 2019), the momentum (AdamW's beta1) goes from "
        "0.95 down to 0.85 and back; a cosine (Loshchilov and Hutter, 2017) does not change it.",
        choices=("one-cycle", "cosine"),
        idle_with=("patience", *_SOLVED),
    )
    warm_start: str = _training(
        "off",
        "Start each training from the previous weights, or from those shrunk and perturbed",
        details="``shrink`` starts from 0.6 of the weights plus 0.1 of new ones (Ash and Adams, "
        "2020). Clones, committees and the trainings of `calibrate` start from scratch. The folder "
        "of an unfinished run then has the last network in ``checkpoint-<round>.safetensors``, as "
        "with any run on a GPU.",
        choices=("off", "on", "shrink"),
        bare="on",
        idle_with=_SOLVED,
    )
    label_smoothing: float = _training(
        0.0,
        "Label smoothing: the share of each label to spread over all classes",
        metavar="F",
        lowest=0,
        below=1,
        idle_with=_SOLVED,
    )
    average: str = _training(
        "none",
        "Average the weights at the end of each training",
        details="See `skal.models.training.Averaging`.",
        choices=("none", "ema", "swa"),
        idle_with=_SOLVED,
    )
    clip_norm: float | None = _training(
        None,
        "Clip gradients to this norm",
        metavar="F",
        above=0,
        idle_with=_SOLVED,
    )
    balanced: bool = _training(
        False,
        "Weigh all classes alike, however many images each has",
        details="Batches sample all classes equally; logistic regression weighs them equally.",
    )
    mixup: float = _training(
        0.0,
        "Mixup: mix pairs of images and labels, in shares from Beta(mixup, mixup); 0 turns it off",
        metavar="F",
        details="See `skal.models.training.TrainBatches`.",
        lowest=0,
        idle_with=_SOLVED,
    )
    patience: int | None = _training(
        None,
        "Stop a training early when its loss has not fallen for this many epochs",
        metavar="N",
        details="An epoch counts as at least 10 steps. The learning rate stays high until then. "
        "See `skal.models.training.UntilFlat`.",
        lowest=1,
        highest=10**6,
        excludes={"average=swa": "average swa has a schedule of its own"},
        idle_with=_SOLVED,
    )
    device: str = _training(
        "auto",
        "Device to compute on; auto takes CUDA, else MPS, else the CPU",
        choices=("auto", "cpu", "cuda", "mps"),
    )
    precision: str = _training(
        "auto",
        "Precision to compute in; auto takes bf16 where the device is fast at it",
        choices=("auto", "fp32", "bf16"),
    )
    compile: bool = _training(
        False,
        "Compile the network with torch.compile; takes a minute or more, pays off on GPUs",
        excludes={"freeze": "a frozen backbone is run once an image"},
    )


OF_GRADIENTS = tuple(
    name for name, each in settings_of(TrainingSettings).items() if _SOLVED[0] in each.idle_with
)
"""Settings of gradient training, which do not apply to logistic regression."""


def head_for(chosen: Mapping[str, Any]) -> str:
    """Return the default head of a frozen backbone, given the chosen settings."""
    defaults = settings_of(TrainingSettings)
    trained = any(
        name in chosen and chosen[name] != defaults[name].default for name in OF_GRADIENTS
    )
    return "linear" if trained else "logistic"


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ClassifierSettings(TrainingSettings):
    """All settings of `ImageClassifier`."""

    dropout: float = _training(0.25, "Dropout rate before the last layer", lowest=0, below=1)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class NetworkSettings(Settings):
    """Settings of a run's networks other than their training."""

    model: str | None = _network(
        None,
        "Network: a name, or module:builder; by default a frozen, pretrained EfficientNet-Lite0",
        metavar="NAME",
        names=("models",),
        details="That is efficientnet-lite0-stages. Below 32 px, except for Fashion-MNIST, it is "
        "small-cnn, trained from scratch. With ``finetune``, or an option of gradient training, it "
        "is efficientnet-lite0. With ``weights`` or ``pretrain``, it is small-cnn below 64 px, "
        "else resnet18. A folder is decoded at 224 px, or at 160 or 112 if one pass of the "
        "network over its images would take more than a minute.",
    )
    pretrain: str = _network(
        "none",
        "Pretrain the backbone on the pool's images, without labels, before the first round",
        choices=("none", "simclr"),
        bare="simclr",
        details="It uses the images of the pool and those without a label, see "
        "`skal.models.self_supervision.pretrain`. The weights are cached under `data_dir`, and the "
        "loss curve is in ``pretrain.csv``, ``pretrain.png`` and ``pretrain.svg``.",
    )
    pretrain_steps: int = _network(
        1000,
        "Optimiser steps of --pretrain, each on 256 images",
        metavar="N",
        lowest=1,
        highest=MOST_STEPS,
        needs=("pretrain",),
    )
    calibrate: str = _network(
        "none",
        "Scale the network's confidence, by cross-validation on the labelled images",
        choices=("none", "temperature"),
        details="See `skal.models.calibration.calibrate`. It applies to scoring and evaluation. "
        "``rounds.csv`` then has `temperature`, and NLL and ECE without it.",
    )
