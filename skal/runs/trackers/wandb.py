"""Weights & Biases: a run in the project ``skal``, in the group of its comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from .base import Values
from .logger import DEFAULT_GROUP, RunLogger, group_of, run_name


class WandbTracker(RunLogger):
    """Logs to Weights & Biases; `project` defaults to ``WANDB_PROJECT``, else "skal". With
    ``WANDB_MODE=offline`` each part of a resumed run has its own folder, with the same id.
    """

    name = package = "wandb"

    def __init__(self, project: str | None = None) -> None:
        super().__init__()
        self.project = project

    def connect(self, folder: Path | None) -> None:
        import wandb

        if wandb.setup().settings.mode == "online":
            wandb.login()

    def open(self, config: RunConfig, folder: Path | None) -> None:
        import wandb

        group = group_of(folder)
        self._run = wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or "skal",
            group=None if group == DEFAULT_GROUP else group,
            name=run_name(config, folder),
            id=self.progress.run_id,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off"),  # else wandb captures skal's terminal output
        )
        self.progress.run_id = self._run.id
        # wandb's own step must increase; these are the x-axes of the plots
        self._run.define_metric("n_labeled")
        self._run.define_metric("*", step_metric="n_labeled")
        self._run.define_metric("optimizer_step")
        for name in ("batch_loss", "train_loss"):
            self._run.define_metric(name, step_metric="optimizer_step")

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        self._run.config.update(dict(settings))

    def log_round(self, values: Values, n_labeled: int) -> None:
        self._run.log({**values, "n_labeled": n_labeled})

    def log_training(self, values: Values, step: int) -> None:
        self._run.log({**values, "optimizer_step": step})

    def log_summary(self, values: Values, n_labeled: int, files: Sequence[Path]) -> None:
        import wandb

        self._run.summary.update(dict(values))
        if files:
            artifact = wandb.Artifact(f"run-{self._run.id}", type="run-folder")
            for file in files:
                artifact.add_file(str(file))
            self._run.log_artifact(artifact)

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)
