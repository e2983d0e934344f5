"""`Run`: the results of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import RunFolderError
from ..datasets import ImageDataset
from ..models.classifier import ImageClassifier
from ..models.persistence import load_classifier, save_classifier
from .config import RunConfig
from .metrics import area_under_curve
from .record import METRICS, Record

COLUMNS = {
    "round": "round",
    "n_labeled": "labels",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "nll": "NLL",
    "ece": "ECE",
}
"""Columns of ``rounds.csv`` that `Run.table` shows, and their headings."""

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The results of a run.

    Parameters
    ----------
    config : RunConfig
        All settings, resolved.
    summary, rounds, queries : dict, list of dict, list of dict
        The content of ``summary.json``, ``rounds.csv`` and ``queries.csv``.
    classifier : ImageClassifier
        The network of the last round.
    folder : Path or None
        The run folder; None if nothing was written.

    Examples
    --------
    >>> import skal
    >>> run = skal.run("digits", "random", n_init=20, n_query=10, n_rounds=1, steps=5)
    >>> run.summary["n_labeled"], len(run.rounds), len(run.queries)
    (30, 2, 30)
    >>> print(run.table().splitlines()[0].split())
    ['round', 'labels', 'accuracy', 'balanced', 'macro', 'F1', 'NLL', 'ECE']
    """

    config: RunConfig
    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    queries: list[dict[str, Any]]
    classifier: ImageClassifier
    folder: Path | None

    def __repr__(self) -> str:
        return f"{self.title}\n{self.table()}"

    @property
    def title(self) -> str:
        """Dataset, strategy, model and seed in one line."""
        return title_of(self.summary["dataset"], self.config)

    def table(self) -> str:
        """Return the rounds as a text table."""
        return table_of(self.rounds)

    @classmethod
    def read(cls, folder: Path, trust: bool = False) -> Run:
        """Read a finished run from its folder; for `trust` see `load_classifier`. Raise a
        `RunFolderError` if it is unfinished, or its journal or network is damaged.
        """
        record, config = Record.open(folder)
        if record.summary is None:
            raise RunFolderError(f"the run in {str(folder)!r} is not finished")
        record.repair()
        classifier = load_classifier(folder, trust=trust)
        return cls(config, record.summary, record.rounds, record.queries, classifier, folder)

    def write(self, record: Record, data: ImageDataset) -> None:
        """Write learning curve and network, then the summary, which marks the run as finished."""
        from .plots import learning_curve  # imports matplotlib

        assert self.folder is not None
        for form, picture in learning_curve(self.rounds, self.title).items():
            record.write(f"learning_curve.{form}", picture)
        save_classifier(
            self.classifier,
            self.folder,
            class_names=data.classes,
            dataset=self.summary["dataset"],
            **data.decoded_as,
        )
        _log.info("\n%s", self.table(), extra={"result": True})
        record.write_summary(self.summary)


def title_of(dataset: str, config: RunConfig) -> str:
    """Return dataset, strategy, model and seed in one line."""
    return f"{dataset}: {config.strategy}, {config.model}, seed {config.seed}"


def table_of(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return rounds as a text table."""
    lines = ["".join(f"{heading:>10}" for heading in COLUMNS.values())]
    for row in rounds:
        shown = (f"{row[name]:.4f}" if name in METRICS else row[name] for name in COLUMNS)
        lines.append("".join(f"{value:>10}" for value in shown))
    return "\n".join(lines)


def summarise(
    config: RunConfig, data: ImageDataset, record: Record, stop_round: int | None
) -> dict[str, Any]:
    """Return the content of ``summary.json``."""
    last = record.rounds[-1]
    return {
        "dataset": data.name,
        "strategy": config.strategy,
        "model": config.model,
        "seed": config.seed,
        "n_labeled": last["n_labeled"],
        "accuracy": last["accuracy"],
        "aulc": area_under_curve(record.rounds),
        "seconds": round(record.seconds, 3),
        "n_skipped_images": len(data.skipped),
        "stop_round": stop_round,
    }
