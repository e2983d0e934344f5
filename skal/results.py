"""What runs came to, read from their folders: the input of statistics, pictures and reports."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .config import RunConfig, resolve_share
from .errors import RunFolderError
from .records import SUMMARY, Record


class Setting(NamedTuple):
    """What runs must share for their strategies to be compared."""

    dataset: str
    model: str
    noise_rate: float
    label_noise: float


@dataclass(frozen=True, eq=False)
class Result:
    """What one run came to.

    Parameters
    ----------
    config : RunConfig
        All its settings.
    summary : mapping
        The content of ``summary.json``.
    rounds : sequence of mappings
        The rows of ``rounds.csv``.
    queries : sequence of mappings
        The rows of ``queries.csv``.
    folder : Path, optional
        The run folder.
    """

    config: RunConfig
    summary: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    queries: Sequence[Mapping[str, Any]] = ()
    folder: Path | None = None

    @property
    def strategy(self) -> str:
        """What its strategy is called where several are compared."""
        return strategy_label(self.config)

    @property
    def setting(self) -> Setting:
        """What its strategy is compared in."""
        return Setting(
            str(self.summary.get("dataset", self.config.dataset)),
            str(self.config.model),
            resolve_share("noise_rate", self.config.noise_rate),
            resolve_share("label_noise", self.config.label_noise),
        )


def read_result(folder: str | Path) -> Result:
    """Read a finished run.

    Parameters
    ----------
    folder : str or Path
        Its run folder. Nothing is written there.

    Returns
    -------
    Result

    Raises
    ------
    RunFolderError
        If it is no run folder, the run is not finished, or a file of it is damaged.
    """
    folder = Path(folder)
    config = Record.read_config(folder)
    if not (folder / SUMMARY).is_file():
        raise RunFolderError(
            f"the run in {str(folder)!r} is not finished; go on with it: skal resume {folder}"
        )
    record = Record(folder)
    rounds = _read_table(folder / "rounds.csv")
    return Result(
        config, record.read_summary(), rounds, _read_table(folder / "queries.csv"), folder
    )


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Return the folders of finished runs in, and below, other folders, sorted.

    Raises
    ------
    RunFolderError
        If a folder is not there, or there is no finished run in it.
    """
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RunFolderError(f"there is no folder {str(folder)!r}")
        below = {
            path.parent
            for path in folder.rglob("config.toml")
            if (path.parent / SUMMARY).is_file() and not path.parent.name.startswith(".")
        }
        if not below:
            raise RunFolderError(f"there is no finished run in {str(folder)!r}")
        found |= below
    return sorted(found)


def group_by_setting(
    results: Iterable[Result],
) -> dict[Setting, dict[str, dict[int, Result]]]:
    """Sort results by setting, strategy and seed, each in the order of first appearance.

    Raises
    ------
    RunFolderError
        If two runs have all three in common, or runs of one setting and seed are no pair: their
        other settings differ.
    """
    groups: dict[Setting, dict[str, dict[int, Result]]] = {}
    for result in results:
        of_strategy = groups.setdefault(result.setting, {}).setdefault(result.strategy, {})
        other = of_strategy.setdefault(result.config.seed, result)
        if other is not result:
            raise RunFolderError(
                f"{_name(other)} and {_name(result)} are both {result.config.strategy}, seed "
                f"{result.config.seed}, on {result.setting.dataset}; leave one of them out"
            )
    for group in groups.values():
        _check_pairs(group)
    return groups


MAY_DIFFER = frozenset(
    ("strategy", "strategy_params", "seed", "n_rounds", "data_dir", "device", "explore", "stop")
)
"""Settings in which the runs of one comparison may differ; to have more rounds is no harm."""


def _check_pairs(group: Mapping[str, Mapping[int, Result]]) -> None:
    results = [result for of_strategy in group.values() for result in of_strategy.values()]
    first = results[0]
    expected = first.config.as_dict()
    for result in results[1:]:
        settings = result.config.as_dict()
        for name in sorted((settings.keys() | expected.keys()) - MAY_DIFFER):
            if settings.get(name) != expected.get(name):
                raise RunFolderError(
                    f"{_name(first)} and {_name(result)} cannot be compared: {name} is "
                    f"{expected.get(name)!r} in one and {settings.get(name)!r} in the other"
                )


def _name(result: Result) -> str:
    return repr(str(result.folder or result.config.strategy))


def _read_table(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [
                {name: _value(name, text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: {error}") from error


_WHOLE = frozenset(("round", "n_labeled", "rank", "index"))
_TEXT = frozenset(("path", "label"))


def _value(name: str, text: str) -> Any:
    if name in _TEXT:
        return text
    if text == "":
        return None
    return int(text) if name in _WHOLE else float(text)


def strategy_label(config: RunConfig) -> str:
    """Return what a strategy is called where several are compared: ``NAME?K=V&K=V``."""
    params = "&".join(f"{name}={value}" for name, value in sorted(config.strategy_params.items()))
    return f"{config.strategy}?{params}" if params else config.strategy
