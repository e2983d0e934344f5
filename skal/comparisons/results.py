"""What runs came to, read from their folders: the input of statistics, pictures and reports."""

from __future__ import annotations

import csv
import filecmp
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import RunFolderError, UsageError
from ..core.registry import parse_spec
from ..core.values import resolve_share
from ..runs.config import RunConfig
from ..runs.record import JOURNAL, SUMMARY, Record
from .config import GRID, read_config

COMPARISON = "compare.toml"
"""What makes a comparison's folder of a folder: the settings of its grid."""


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
    data : mapping, optional
        What the run must be gone on with, see `skal.runs.resuming.fingerprint`; of the same data
        wherever they lie.
    dataset : str, optional
        What its dataset is called, where others have the same name; see `tell_apart`.
    weights : str, optional
        Hash of the file of weights that it started from, where that was kept.
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
        """What its strategy is called where several are compared."""
        return strategy_label(self.config)

    @property
    def setting(self) -> Setting:
        """What its strategy is compared in."""
        return Setting(
            self.dataset or str(self.summary.get("dataset", self.config.dataset)),
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
    summary = Record(folder).read_summary()
    rounds = _read_table(folder / "rounds.csv")
    _check_rounds(folder / "rounds.csv", rounds, summary)
    queries = _read_table(folder / "queries.csv")
    facts = _read_facts(folder)
    data = dict(facts.get("data", {}))
    return Result(config, summary, rounds, queries, folder, data, weights=facts.get("weights"))


def _check_rounds(
    path: Path, rounds: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    """Make sure that the table is whole: unlike the journal, it has no checksums."""
    numbers = [row.get("round") for row in rounds]
    last = rounds[-1] if rounds else {}
    ends = [last.get(name) == summary.get(name) for name in ("n_labeled", "accuracy")]
    whole = all({row.get("n_labeled"), row.get("accuracy")}.isdisjoint({None}) for row in rounds)
    if numbers != list(range(len(rounds))) or not all(ends) or not whole:
        raise RunFolderError(
            f"{path}: damaged; it does not end with the {summary.get('n_labeled')} labels and the "
            f"accuracy of summary.json, or rounds are missing"
        )


def _read_facts(folder: Path) -> dict[str, Any]:
    """Return what is kept of the data and the weights that a run was begun on."""
    path = folder / JOURNAL
    try:
        with path.open("rb") as file:
            start = json.loads(file.readline().partition(b" ")[2])
        return dict(start.get("facts", {}))
    except (ValueError, AttributeError) as error:
        raise RunFolderError(f"{path}, line 1: damaged") from error


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


def read_results(folders: Iterable[str | Path]) -> list[Result]:
    """Read the finished runs in, and below, folders.

    Parameters
    ----------
    folders : iterable of str or Path
        See `find_runs`.

    Returns
    -------
    list of Result
        By folder; those of a comparison in the order of its grid, so that strategies keep their
        order and their colours.

    Raises
    ------
    RunFolderError
        See `find_runs` and `read_result`.
    """
    by_grid: dict[Path | None, list[Result]] = {}
    for path in find_runs(folders):
        grid = path.parent.parent / COMPARISON
        by_grid.setdefault(grid if grid.is_file() else None, []).append(read_result(path))
    ordered = []
    for of_grid, results in by_grid.items():
        ordered += results if of_grid is None else _in_order_of(of_grid, results)
    return ordered


def _in_order_of(path: Path, results: Sequence[Result]) -> list[Result]:
    """Sort the runs of a comparison as it was asked for: by seed, strategy, model and rates."""
    try:
        grid = read_config(path).get(GRID, {})
    except UsageError as error:
        raise RunFolderError(str(error)) from error
    rates = {
        axis: [resolve_share(setting, rate) for rate in grid.get(axis, ())]
        for axis, setting in (("noise_rates", "noise_rate"), ("label_noises", "label_noise"))
    }
    strategies = [_label(*parse_spec(text)) for text in grid.get("strategies", ())]

    def place(result: Result) -> tuple[int, ...]:
        found: tuple[tuple[list[Any], Any], ...] = (
            (strategies, _label(result.config.strategy, result.config.strategy_params)),
            (grid.get("models", []), result.setting.model),
            (rates["noise_rates"], result.setting.noise_rate),
            (rates["label_noises"], result.setting.label_noise),
        )
        ranks = [known.index(one) if one in known else len(known) for known, one in found]
        return (result.config.seed, *ranks)

    return sorted(results, key=place)


def tell_apart(results: Iterable[Result]) -> list[Result]:
    """Name datasets so that one name is one dataset.

    The same images may lie at several places, and other images in folders of the same name. What
    counts is what the runs keep of their data: those of the same seed must be alike in all, others
    in the number of images and their classes.

    Parameters
    ----------
    results : iterable of Result
        The runs.

    Returns
    -------
    list of Result
        In the same order; where other data have the same name, so much of the path is added to it
        as tells them apart.
    """
    found = list(results)
    places: dict[str, dict[str, list[Result]]] = {}
    for result in found:
        of_name = places.setdefault(result.setting.dataset, {})
        of_name.setdefault(result.config.dataset, []).append(result)
    called: dict[tuple[str, str], str] = {}
    for name, of_name in places.items():
        alike = _sort_places(of_name)
        if len(alike) > 1:
            names = _shortest_names([group[0] for group in alike])
            for group, new in zip(alike, names, strict=True):
                called.update({(name, place): new for place in group})
    renamed = (called.get((r.setting.dataset, r.config.dataset)) for r in found)
    return [
        replace(result, dataset=name) if name else result
        for result, name in zip(found, renamed, strict=True)
    ]


def _sort_places(runs: Mapping[str, Sequence[Result]]) -> list[list[str]]:
    """Put together the places that have the same data."""
    alike: list[list[str]] = []
    for place in runs:
        for group in alike:
            if all(_same_data(runs[place], runs[other]) for other in group):
                group.append(place)
                break
        else:
            alike.append([place])
    return alike


def _same_data(ours: Sequence[Result], theirs: Sequence[Result]) -> bool:
    """Tell whether runs at two places were on the same data, as far as they can be compared."""
    return all(not differing_data(one, other) for one in ours for other in theirs)


def differing_data(one: Result, other: Result) -> list[str]:
    """Say in what the data of two runs differ that should be alike on the same images."""
    if not one.data or not other.data:
        # of arrays nothing is kept but what they are called
        return [] if one.config.dataset == other.config.dataset else ["place"]
    # which of the images are the test set depends on the seed
    counts = [sum(result.data["number of images"]) for result in (one, other)]
    differing = ["number of images"] if counts[0] != counts[1] else []
    told = ["classes"]
    if one.config.seed == other.config.seed:
        told += ["number of images", "paths", "test labels"]
        sizes = [(r.data["image shape"], r.config.image_noise, r.setting[2]) for r in (one, other)]
        told += ["pixels"] if sizes[0] == sizes[1] else []
    differing += [name for name in told if one.data.get(name) != other.data.get(name)]
    return list(dict.fromkeys(differing))


def _shortest_names(paths: Sequence[str]) -> list[str]:
    """Return so many of the last parts of each path as tell all apart."""
    parts = [Path(path).parts for path in paths]
    for n in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*one[-n:])) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


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
    # a file of weights is known by its hash, which older runs do not have
    first = next((result for result in results if result.weights), results[0])
    expected = what_must_agree(first)
    of_seed = {result.config.seed: result for result in reversed(results)}
    for result in results:
        settings = what_must_agree(result)
        for name in sorted(settings.keys() | expected.keys()):
            one, other = expected.get(name), settings.get(name)
            if one != other and not (name == "weights" and _same_weights(first, result)):
                raise RunFolderError(
                    f"{_name(first)} and {_name(result)} cannot be compared: {name} is "
                    f"{one!r} in one and {other!r} in the other"
                )
        if not _same_weights(first, result):
            raise RunFolderError(
                f"{_name(first)} and {_name(result)} cannot be compared: the file "
                f"{result.config.weights!r} had other weights (SHA-256 {first.weights}..., "
                f"{result.weights}...); run both with the same"
            )
        pair = of_seed[result.config.seed]
        differing = differing_data(pair, result)
        if differing:
            raise RunFolderError(
                f"{_name(pair)} and {_name(result)} cannot be compared: they are not on the same "
                f"images, which differ in {', '.join(differing)}"
            )


def what_must_agree(result: Result) -> dict[str, Any]:
    """Return the settings that runs must share to be pairs, beside `Setting` and the seed.

    Where the data lie is not among them; whether they are the same is seen from themselves.
    """
    others = MAY_DIFFER | set(Setting._fields)
    return {name: v for name, v in result.config.as_dict().items() if name not in others}


def _same_weights(first: Result, result: Result) -> bool:
    """Tell whether runs started from the same weights, wherever they lie."""
    if first.weights and result.weights:
        return first.weights == result.weights
    one, other = first.config.weights, result.config.weights
    if one is None or other is None or one == other:
        return one == other
    if Path(one).name != Path(other).name:
        return False
    if not Path(one).is_file() or not Path(other).is_file():
        return True  # it is called the same, and that is all there is to know
    return filecmp.cmp(one, other, shallow=False)


def _name(result: Result) -> str:
    return repr(str(result.folder or result.config.strategy))


def _read_table(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [
                {name: _value(name, text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
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
    """Return what a strategy is called where several are compared.

    ``NAME?K=V&K=V``, and after it the share that is drawn at random, if it is not 0. `random`
    draws all of it in any case.
    """
    label = _label(config.strategy, config.strategy_params)
    explore = resolve_share("explore", config.explore)
    return f"{label}, explore {100 * explore:.12g}%" if explore and label != "random" else label


def _label(strategy: str, params: Mapping[str, Any]) -> str:
    text = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    return f"{strategy}?{text}" if text else strategy
