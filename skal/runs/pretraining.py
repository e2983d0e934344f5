"""Self-supervised pretraining of a run's networks on its own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.durable import write_atomic
from ..core.errors import require
from ..core.seeding import derive_seed
from ..core.tables import csv_of
from ..datasets import ImageDataset
from ..datasets.pool import draw_held_out
from ..datasets.rows import take_rows
from ..models.devices import Device
from ..models.self_supervision import EVERY, SimCLR, Weights, pretrain
from .config import RunConfig
from .record import log_file

LOSSES = "pretrain.csv"


def check_pretraining(config: RunConfig) -> None:
    """Raise a `MissingExtraError` if a package that pretraining needs is not installed."""
    if config.pretrain != "none":
        require("lightly", "ssl", f"pretrain {config.pretrain}")


def weights_from_pool(config: RunConfig, data: ImageDataset, folder: Path | None = None) -> Weights:
    """Return the state dict of the pretrained backbone. Training uses `X` and `X_unlabeled`, never
    test or held-out images. The weights are cached under `data_dir` for runs with the same images
    and seed; the loss curve is written to `folder`. Raise a `DataError` if there are fewer than two
    images, or the training diverges.
    """
    cache = config.cache
    X = data.X
    if config.n_valid:
        apart = draw_held_out(len(X), int(config.n_valid), config.seed)
        X = take_rows(X, np.setdiff1d(np.arange(len(X)), apart))
    pools = [images for images in (X, data.X_unlabeled) if len(images)]
    with log_file(folder):
        plan = SimCLR(
            str(config.model),
            config.pretrain_steps,
            derive_seed(config.seed, "pretrain"),
            {"pretrained": config.pretrained, "weights": config.weights},
            "flip" in data.augmentation,
        )
        device = Device(config.device, config.precision == "bf16")
        pretrained = pretrain(plan, pools, device, cache)
    if folder is not None:
        from .plots import loss_curve  # imports matplotlib

        curve = [(EVERY * number, loss) for number, loss in enumerate(pretrained.losses, start=1)]
        rows = [{"step": step, "loss": loss} for step, loss in curve]
        write_atomic(folder / LOSSES, csv_of(("step", "loss"), rows))
        title = f"{data.name}: {config.pretrain}, {config.model}"
        for form, picture in loss_curve(curve, title).items():
            write_atomic(folder / f"pretrain.{form}", picture)
    return pretrained.weights
