"""Checks that a resumed run has the settings, data and oracle that it started with."""

from __future__ import annotations

import hashlib
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..core.durable import locked
from ..core.errors import DataError, ParameterError
from ..core.trust import check_trusted, foreign_names
from ..datasets import ImageDataset
from ..datasets.oracles import AnyOracle, Oracle, is_named
from ..models.classifier import ImageClassifier
from .config import RunConfig
from .environment import changed_code, environment
from .plan import Chooser, Plan, plain_params
from .preparation import load_again, with_noise, without_duplicates
from .record import JOURNAL, MAY_CHANGE, Record, check_run_folder

_log = logging.getLogger("skal")


def fingerprint(data: ImageDataset) -> dict[str, Any]:
    """Return the facts that data must match for a run to be resumed. Only a sample of the pixels is
    read, since a pool may exceed memory. Pool labels are left to `check_oracle`.
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


def facts_to_keep(plan: Plan, oracle: Oracle | None) -> dict[str, Any]:
    """Return the facts that `check_same` and `check_oracle` compare; `oracle` is None if the labels
    are taught.
    """
    params_not_kept = [name for name in plan.chooser.given if name not in plan.chooser.plain]
    classifier, classifier_not_kept = plain_params(plan.own)
    for whose, names in (("strategy", params_not_kept), ("classifier", classifier_not_kept)):
        if names:
            _log.warning(
                "config.toml cannot hold the %s's %s: the run can be repeated or resumed only "
                "from Python",
                whose,
                ", ".join(names),
            )
    return {
        "config": plan.config.as_dict(),
        "data": fingerprint(plan.data),
        "oracle": None if oracle is None else type(oracle).__name__,
        "params_not_kept": params_not_kept,
        "classifier": classifier,
        "classifier_not_kept": classifier_not_kept,
        "weights": _digest_of(plan.config.weights),
    }


def _digest_of(weights: str | None) -> str | None:
    """Return the start of a weights file's SHA-256, None without weights."""
    if weights is None:
        return None
    try:
        with Path(weights).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read the weights {weights!r}: {reason}") from error


def reopened(
    folder: Path, data: ImageDataset | None, classifier: ImageClassifier | None, trust: bool
) -> tuple[Plan, Record]:
    """Return the plan and the record of a run folder to resume; see `ActiveLearner.open`."""
    check_run_folder(folder)
    with locked(folder / JOURNAL):  # else a line still being written would look torn
        record, config = Record.open(folder)
    check_trusted(folder, foreign_names(config), trust)
    data = without_duplicates(config, load_again(config) if data is None else data)
    data = with_noise(config, data)
    check_same(record, config, data)
    chooser = Chooser.of(config.strategy, config.strategy_params, config.stream != "off")
    return Plan.make(config, data, chooser, classifier).with_kept(record.facts), record


def check_same(record: Record, config: RunConfig, data: ImageDataset) -> None:
    """Raise a `SkalError` if settings, weights or images have changed since the run started."""
    facts = record.facts
    kept, current = facts["config"], config.as_dict()
    # a stream is cut into as many chunks as there are rounds
    may_change = MAY_CHANGE - ({"n_rounds"} if config.stream != "off" else set())
    for name in sorted((kept.keys() | current.keys()) - may_change):
        if kept.get(name) != current.get(name):
            raise ParameterError(
                f"{name} in config.toml was {kept.get(name)!r} when the run started and is now "
                f"{current.get(name)!r}; set it back, or start a new run"
            )
    found = _digest_of(config.weights)
    if found != facts["weights"]:
        raise DataError(
            f"weights in config.toml is {config.weights!r} (SHA-256 {found}...), but the run "
            f"started with other weights (SHA-256 {facts['weights']}...); name the file with "
            "those weights, or start a new run"
        )
    _warn_of_changes(record, config)
    now = fingerprint(data)
    changed = [name for name, value in facts["data"].items() if now[name] != value]
    if changed:
        raise _other_data(changed)
    if facts["params_not_kept"]:
        raise ParameterError(
            f"the run cannot be resumed: config.toml cannot hold the strategy's "
            f"{', '.join(facts['params_not_kept'])}; start a new run"
        )


def check_oracle(record: Record, plan: Plan, oracle: AnyOracle | None) -> Oracle:
    """Return the oracle of a resumed run. One created by name replays all earlier answers, so that
    its random draws continue. Raise a `ParameterError` if fewer rounds are planned than were
    labelled or the oracle must be given again, a `DataError` if its answers have changed.
    """
    most, name = len(record.labels) - 1, plan.config.oracle
    if plan.config.n_rounds < most:
        raise ParameterError(
            f"n_rounds in config.toml is {plan.config.n_rounds}, but round {most} is already "
            f"labelled; set it to {most} or more"
        )
    if oracle is not None:
        return plan.oracle(oracle)
    by_hand = record.facts["oracle"] is None
    if by_hand or not is_named(name):
        raise ParameterError(
            f"the run was labelled by {'hand' if by_hand else f'an {name}'}; resume it from "
            "Python: skal.resume(folder, oracle=...), or skal.ActiveLearner.open(folder)"
        )
    again = plan.oracle()
    if _answers_differ(record, again):
        if name == "true":
            raise _other_data(["labels"])
        raise DataError(
            f"the oracle {name} gives other labels than when the run started; start a new run"
        )
    return again


def _answers_differ(record: Record, oracle: Oracle) -> bool:
    known = [(record.valid["indices"], record.valid["labels"])] if record.valid else []
    for indices, labels in [*known, *record.labels]:
        answer = oracle.replay(np.array(indices, dtype=np.int64))
        if answer is not None and not np.array_equal(answer, labels):
            return True
    return False


def _other_data(changed: list[str]) -> DataError:
    return DataError(
        f"the data have changed since the run started: different {', '.join(changed)}; if they "
        "were loaded in another way, resume from Python: skal.resume(folder, data=...)"
    )


def _warn_of_changes(record: Record, config: RunConfig) -> None:
    """Warn if code, packages or device have changed, since results may then differ."""
    found = environment(config)
    for module in changed_code(record.environment, found["code"]):
        _log.warning(
            "the code of %s has changed since the run started: picks and metrics may differ",
            module,
        )
    before, now = _flat(record.environment), _flat(found)
    for name in sorted((before.keys() & now.keys()) - {"command", "code"}):
        if before[name] != now[name]:
            _log.warning(
                "the run started with %s %s and is resumed with %s: picks and metrics may differ",
                name,
                before[name],
                now[name],
            )


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, **facts.get("packages", {}), "packages": None}
