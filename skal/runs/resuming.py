"""What must still hold when a run is gone on with."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataError, ParameterError, RunFolderError
from ..core.settings import RunConfig
from ..datasets import ImageDataset
from ..datasets.oracles import NoisyLabels, Oracle, TrueLabels
from .checks import plain_params, who_labels
from .record import ENVIRONMENT, Record, environment

_log = logging.getLogger("skal")


def fingerprint(data: ImageDataset) -> dict[str, Any]:
    """Return what data must agree in for a run on them to be gone on with.

    Of the pixels only a sample counts, since a pool may be larger than memory. The labels of the
    pool are left to the oracle.
    """
    pixels = 0
    for images in (data.X, data.X_test):
        for index in np.unique(np.linspace(0, len(images) - 1, 64).astype(int)):
            pixels = zlib.crc32(images[index].tobytes(), pixels)
    return {
        "number of images": [len(data.X), len(data.X_test)],
        "image shape": list(data.X.shape[1:]),
        "classes": list(data.classes),
        "paths": zlib.crc32("\0".join(data.paths).encode(errors="surrogateescape")),
        "pixels": pixels,
        "test labels": zlib.crc32(data.y_test.astype("<i8").tobytes()),
    }


SIMULATED = frozenset((TrueLabels.__name__, NoisyLabels.__name__))
"""Oracles that are made of the dataset, and can be again."""
MAY_CHANGE = frozenset(("dataset", "data_dir", "device", "weights", "n_rounds"))
"""Settings that may be edited before a run is gone on with: data can move, rounds be added."""


def facts_to_keep(
    config: RunConfig, data: ImageDataset, oracle: Oracle, strategy_params: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what `check_resumable` will compare."""
    not_kept = plain_params(strategy_params)[1]
    if not_kept:
        _log.warning(
            "config.toml cannot hold the strategy's %s: it will not repeat the run, nor can the "
            "run be gone on with if it stops",
            ", ".join(not_kept),
        )
    return {
        "config": config.as_dict(),
        "data": fingerprint(data),
        "oracle": type(oracle).__name__,
        "params_not_kept": not_kept,
        "weights": _digest_of(config.weights),
    }


def _digest_of(weights: str | None) -> str | None:
    """Return the start of the SHA-256 of a file of weights; None, if there is none to be had."""
    if weights is None:
        return None
    try:
        with Path(weights).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read the weights {weights!r}: {reason}") from error


def check_resumable(
    record: Record, config: RunConfig, data: ImageDataset, oracle_given: bool
) -> None:
    """Check that going on ends as if the run had never been stopped."""
    facts = record.facts
    if not facts:
        raise RunFolderError(f"{record.folder}: the journal has no start; begin the run anew")
    kept, current = facts["config"], config.as_dict()
    # a stream is cut into as many chunks as there are rounds
    may_change = MAY_CHANGE - ({"n_rounds"} if config.stream != "off" else set())
    for name in sorted((kept.keys() | current.keys()) - may_change):
        if kept.get(name) != current.get(name):
            raise ParameterError(
                f"{name} in config.toml was {kept.get(name)!r} when the run was started and is "
                f"{current.get(name)!r} now; set it back, or begin a new run"
            )
    most = len(record.labels) - 1
    if config.n_rounds < most:
        raise ParameterError(
            f"n_rounds in config.toml is {config.n_rounds}, but labels were taken for round {most} "
            "already"
        )
    if "weights" in facts:  # else the run is older than this check
        _check_weights(facts["weights"], config.weights)
    _tell_other_environment(record, config)
    now = fingerprint(data)
    changed = [name for name, value in facts["data"].items() if now[name] != value]
    simulated = facts["oracle"] in SIMULATED
    if simulated and not oracle_given and not changed and _answers_differ(record, config, data):
        changed.append("labels")
    if changed:
        raise DataError(
            f"the data are not those that the run was started on: other {', '.join(changed)}; if "
            "they were loaded in another way, go on from Python: skal.resume(folder, data=...)"
        )
    if not simulated and not oracle_given:
        raise ParameterError(
            f"the run was labelled by {facts['oracle']}, not by the dataset; go on with it from "
            "Python: skal.resume(folder, oracle=...)"
        )
    if facts["params_not_kept"]:
        raise ParameterError(
            f"the run cannot be gone on with: the strategy's {', '.join(facts['params_not_kept'])} "
            "could not be kept in config.toml"
        )


def _check_weights(expected: str | None, weights: str | None) -> None:
    found = _digest_of(weights)
    if found != expected:
        raise DataError(
            f"weights in config.toml is {weights!r} (SHA-256 {found}...), and the run was started "
            f"with other weights (SHA-256 {expected}...); name the file that has those, or begin a "
            "new run"
        )


def _answers_differ(record: Record, config: RunConfig, data: ImageDataset) -> bool:
    """Tell whether the oracle would now answer otherwise than it did."""
    oracle = who_labels(config, data)
    known = list(record.labels)
    if record.valid:
        known.append((record.valid["indices"], record.valid["labels"]))
    return any(
        not np.array_equal(oracle.label(np.array(indices, dtype=np.int64)), labels)
        for indices, labels in known
    )


def _tell_other_environment(record: Record, config: RunConfig) -> None:
    """Warn where what computes is not what the run was started with: figures may then differ."""
    assert record.folder is not None
    before = _flat(json.loads((record.folder / ENVIRONMENT).read_text()))
    now = _flat(environment(config))
    for name in sorted((before.keys() & now.keys()) - {"command"}):
        if before[name] != now[name]:
            _log.warning(
                "the run was started with %s %s and goes on with %s: picks and figures may differ",
                name,
                before[name],
                now[name],
            )


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, **facts.get("packages", {}), "packages": None}
