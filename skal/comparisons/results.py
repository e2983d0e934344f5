"""What runs came to, read from their folders. No torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import RunFolderError, UsageError
from ..core.registry import parse_spec
from ..core.settings import resolve_share
from ..runs.config import RunConfig
from ..runs.record import JOURNAL, QUERY_COLUMNS, SUMMARY, Record
from .config import AXES, GRID, read_config
from .folder import GRID_FILE


class Setting(NamedTuple):
    """What runs must share for their strategies to be compared."""

    dataset: str
    model: str
    noise_rate: float
    label_noise: float


@dataclass(frozen=True, eq=False)
class Result:
    """One run: its settings, the contents of its files, and its folder if it has one. `data` is its
    `skal.runs.resuming.fingerprint`, `dataset` a name that `pairs.tell_apart` gave, and `weights`
    the hash of its initial weights, if recorded.
    """

    config: RunConfig
    summary: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    queries: Sequence[Mapping[str, Any]] = ()
    folder: Path | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    weights: str | None = None

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
    """Return ``NAME?K=V&K=V``, and the share drawn at random if it is not 0 (left out for
    `random`).
    """
    label = _label(config.strategy, config.strategy_params)
    explore = resolve_share("explore", config.explore)
    return f"{label}, explore {100 * explore:.12g}%" if explore and label != "random" else label


def _label(strategy: str, params: Mapping[str, Any]) -> str:
    text = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    return f"{strategy}?{text}" if text else strategy


def read_result(folder: str | Path) -> Result:
    """Read a finished run; RunFolderError if there is none, or a file is damaged."""
    folder = Path(folder)
    config = Record.read_config(folder)
    if not (folder / SUMMARY).is_file():
        raise RunFolderError(
            f"the run in {str(folder)!r} is not finished; finish it: skal resume {folder}"
        )
    summary = Record(folder).read_summary()
    rounds, queries = (_read_table(folder / name) for name in ("rounds.csv", "queries.csv"))
    _check_rounds(folder / "rounds.csv", rounds, summary)
    facts = _read_facts(folder / JOURNAL)
    data, weights = dict(facts.get("data", {})), facts.get("weights")
    return Result(config, summary, rounds, queries, folder, data, weights=weights)


def _check_rounds(
    path: Path, rounds: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    """Refuse an incomplete table: unlike the journal, it has no checksums."""
    last = rounds[-1] if rounds else {}
    expected = ("n_labeled", "accuracy")
    whole = [row.get("round") for row in rounds] == list(range(len(rounds)))
    whole &= all(row.get(name) is not None for row in rounds for name in expected)
    whole &= all(last.get(name) == summary.get(name) for name in expected)
    if not whole:
        raise RunFolderError(
            f"{path}: damaged; it does not end with the {summary.get('n_labeled')} labels and the "
            f"accuracy of summary.json, or rounds are missing"
        )


def _read_facts(path: Path) -> dict[str, Any]:
    """Return what a journal's first line says of the initial data and weights."""
    try:
        with path.open("rb") as file:
            start = json.loads(file.readline().partition(b" ")[2])
        return dict(start.get("facts", {}))
    except (ValueError, AttributeError) as error:
        raise RunFolderError(f"{path}, line 1: damaged") from error


_COLUMNS: Mapping[str, type] = {
    **dict.fromkeys(QUERY_COLUMNS, int),
    "n_labeled": int,
    "path": str,
    "label": str,
}
"""What a column of a run's tables holds; all others hold numbers, or nothing."""


def _read_table(path: Path) -> list[dict[str, Any]]:
    def value(name: str, text: str) -> Any:
        kind = _COLUMNS.get(name, float)
        return kind(text) if text or kind is str else None

    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            return [{name: value(name, text) for name, text in row.items()} for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path}: {error}") from error


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Return finished runs in and below folders, sorted; RunFolderError if a folder does not exist
    or has none.
    """
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RunFolderError(f"there is no folder {str(folder)!r}")
        runs = (path.parent for path in folder.rglob("config.toml"))
        below = {run for run in runs if (run / SUMMARY).is_file() and run.name[:1] != "."}
        if not below:
            raise RunFolderError(f"there is no finished run in {str(folder)!r}")
        found |= below
    return sorted(found)


def read_results(folders: Iterable[str | Path]) -> list[Result]:
    """Read finished runs in and below folders, sorted by folder; those of a comparison in the order
    of its grid, so that strategies keep their colours.
    """
    by_grid: dict[Path | None, list[Result]] = {}
    for path in find_runs(folders):
        grid = path.parent.parent / GRID_FILE
        by_grid.setdefault(grid if grid.is_file() else None, []).append(read_result(path))
    ordered = []
    for of_grid, results in by_grid.items():
        ordered += results if of_grid is None else _in_order_of(of_grid, results)
    return ordered


def _in_order_of(path: Path, results: Sequence[Result]) -> list[Result]:
    """Sort a comparison's runs by seed, and by its grid's strategies, models and rates."""
    try:
        grid = read_config(path).get(GRID, {})
    except UsageError as error:
        raise RunFolderError(str(error)) from error
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
