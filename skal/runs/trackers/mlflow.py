"""MLflow: a run in the experiment ``skal``, or in one named as the comparison's folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..config import RunConfig
from .base import Values
from .logger import RunLogger, group_of, run_name

AT_ONCE = 50
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@contextmanager
def folder_lock(folder: str | None) -> Iterator[None]:
    """Lock a folder for the block, so that other processes wait (not on Windows)."""
    if folder is None or sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class MlflowTracker(RunLogger):
    """Logs to MLflow, with settings as parameters and files as artifacts. `uri` defaults to
    ``MLFLOW_TRACKING_URI``, as MLflow resolves it, else ``mlflow.db`` in the working directory;
    `experiment` to ``MLFLOW_EXPERIMENT_NAME``, else the comparison folder's name, else "skal".
    """

    name = package = "mlflow"

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        super().__init__()
        self.uri, self.experiment = uri, experiment
        self._waiting: list[Any] = []
        # with MLflow's default of 7 a run would hang for minutes when the server is down
        os.environ.setdefault(RETRIES, "3")

    def connect(self, folder: Path | None) -> None:
        import mlflow

        uri = self.uri or (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None)
        self.progress.place = None if uri else self.progress.place or str(Path.cwd())
        # two processes that create the tables at the same time break the database
        with folder_lock(self.progress.place):
            own = f"sqlite:///{Path(str(self.progress.place), 'mlflow.db').as_posix()}"
            self._client = mlflow.MlflowClient(uri or own)
            if self.progress.run_id is None:
                self._experiment_id = self._find_experiment(folder)
            else:
                self._client.get_run(self.progress.run_id)

    def _find_experiment(self, folder: Path | None) -> str:
        """Return the experiment's id, and create it if needed."""
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or group_of(folder)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:  # another run of the comparison has just created it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def open(self, config: RunConfig, folder: Path | None) -> None:
        self.connect(folder)
        if self.progress.run_id is None:
            tags = {"skal.folder": str(folder.resolve())} if folder else {}
            name = run_name(config, folder)
            run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
            self.progress.run_id = run.info.run_id
        else:
            self._client.update_run(self.progress.run_id, status="RUNNING")

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in settings.items()]
        self._client.log_batch(self.progress.run_id, params=params)

    def log_round(self, values: Values, n_labeled: int) -> None:
        self._send(values, n_labeled)
        self._flush()

    def log_training(self, values: Values, step: int) -> None:
        self._send(values, step)
        if len(self._waiting) >= AT_ONCE:
            self._flush()

    def log_summary(self, values: Values, n_labeled: int, files: Sequence[Path]) -> None:
        self.log_round(values, n_labeled)
        for file in files:
            self._client.log_artifact(self.progress.run_id, str(file))

    def close(self, done: bool) -> None:
        self._flush()
        self._client.set_terminated(self.progress.run_id, "FINISHED" if done else "KILLED")

    def _send(self, values: Values, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._client.log_batch(self.progress.run_id, metrics=waiting)
