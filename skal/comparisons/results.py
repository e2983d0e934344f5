"""Results of runs, read from their folders. No torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import RunFolderError, UsageError
from ..core.kinds import resolve_share
from ..core.registry import parse_spec
from ..core.text import counted
from ..runs.config import RunConfig
from ..runs.record import EVALUATION, JOURNAL, ROUNDS, Record, is_finished
from .config import AXES, GRID
from .folder import CELLS, GRID_FILE, read_grid

_log = logging.getLogger("skal")


class Setting(NamedTuple):
    """Values that runs must share for their strategies to be compared."""

    dataset: str
    model: str
    noise_rate: float
    label_noise: float


@dataclass(frozen=True, eq=False)
class Result:
    """One run: its settings, the contents of its files, and its folder if it has one. `data` is its
    `skal.runs.resuming.fingerprint`, `dataset` a name given by `pairs.tell_apart`, `weights` the
    hash of its initial weights, if recorded; `environment` and `evaluation` are the contents of
    ``environment.json`` and ``evaluation.json``, empty if missing.
    """

    config: RunConfig
    summary: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    queries: Sequence[Mapping[str, Any]] = ()
    folder: Path | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    weights: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def strategy(self) -> str:
        return strategy_label(self.config)

    @property
    def setting(self) -> Setting:
        return Setting(
            self.dataset or str(self.summary.get("dataset", self.config.dataset)),
            str(self.config.model),
            resolve_share("noise_rate", self.config.noise_rate),
            resolve_share("label_noise", self.config.label_noise),
        )


def strategy_label(config: RunConfig) -> str:
    """Return ``NAME?K=V&K=V``, with the share drawn at random unless it is 0 or for `random`."""
    label = _label(config.strategy, config.strategy_params)
    explore = resolve_share("explore", config.explore)
    return f"{label}, explore {100 * explore:.12g}%" if explore and label != "random" else label


def _label(strategy: str, params: Mapping[str, Any]) -> str:
    text = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    return f"{strategy}?{text}" if text else strategy


def read_result(folder: str | Path) -> Result:
    """Read a finished run; raise a RunFolderError if it is missing, unfinished or damaged."""
    folder = Path(folder)
    record, config = Record.read(folder)
    if record.summary is None:
        raise RunFolderError(
            f"the run in {str(folder)!r} is not finished; finish it with skal resume {folder}"
        )
    record.altered()  # only for its warnings
    evaluation: dict[str, Any] = {}
    if record.is_whole(EVALUATION):
        evaluation = json.loads((folder / EVALUATION).read_bytes())
    elif EVALUATION in record.digests:
        _log.warning("%s is missing or damaged, and left out", folder / EVALUATION)
    return Result(
        config,
        record.summary,
        record.rounds,
        record.queries,
        folder,
        dict(record.facts.get("data", {})),
        weights=record.facts.get("weights"),
        environment=record.environment,
        evaluation=evaluation,
    )


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Return the finished runs in and below folders, sorted. Raise a RunFolderError if a folder
    does not exist or has none.
    """
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RunFolderError(f"there is no folder {str(folder)!r}")
        signs = (JOURNAL, ROUNDS)
        runs = {path.parent for name in signs for path in folder.rglob(name)}
        runs = {run for run in runs if run.name[:1] != "."}
        below = {run for run in runs if is_finished(run)}
        others = sorted(runs - below)
        unfinished = ""
        if others:
            unfinished = f"{counted(len(others), 'unfinished run')} (see {others[0] / JOURNAL})"
        if not below:
            reason = f"; it has {unfinished}" if others else ""
            raise RunFolderError(f"there is no finished run in {str(folder)!r}{reason}")
        if others:
            _log.info("skipped in %s, of %s: %s", folder, counted(len(runs), "run"), unfinished)
        found |= below
    return sorted(found)


def read_results(folders: Iterable[str | Path]) -> list[Result]:
    """Read finished runs in and below folders, sorted by folder. Runs of a comparison are in the
    order of its grid, so that strategies keep their colours.
    """
    by_grid: dict[Path | None, list[Result]] = {}
    for path in find_runs(folders):
        grid = path.parent.parent / GRID_FILE
        is_cell = path.parent.name == CELLS or grid.is_file()
        by_grid.setdefault(grid if is_cell else None, []).append(read_result(path))
    ordered = []
    for of_grid, results in by_grid.items():
        ordered += results if of_grid is None else _in_order_of(of_grid, results)
    return ordered


def _in_order_of(path: Path, results: list[Result]) -> list[Result]:
    """Sort a comparison's runs by seed, then as its grid lists strategies, models and rates."""
    try:
        grid = read_grid(path).get(GRID, {})
    except (RunFolderError, UsageError) as error:
        _log.warning("%s; its runs are sorted by name", error)
        return results
    strategies = [_label(*parse_spec(text)) for text in grid.get("strategies", ())]
    known = {axis: list(grid.get(axis, ())) for axis in AXES}
    for axis in ("noise_rates", "label_noises"):
        known[axis] = [resolve_share(AXES[axis], rate) for rate in known[axis]]

    def rank(values: Sequence[Any], value: Any) -> int:
        return values.index(value) if value in values else len(values)

    def place(result: Result) -> tuple[int, ...]:
        strategy = _label(result.config.strategy, result.config.strategy_params)
        axes = (rank(known[axis], getattr(result.setting, name)) for axis, name in AXES.items())
        return (result.config.seed, rank(strategies, strategy), *axes)

    return sorted(results, key=place)
