"""Checks that runs are comparable: on the same data, with the same settings. No torch."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import RunFolderError
from .results import Result, Setting

MAY_DIFFER = frozenset(
    ("strategy", "strategy_params", "seed", "n_rounds", "data_dir", "device", "explore", "stop")
)
"""Settings in which the runs of one comparison may differ; their common range of labels is
compared."""


def tell_apart(results: Iterable[Result]) -> list[Result]:
    """Rename different datasets of the same name, by as much of their paths as needed. Datasets are
    the same if runs with the same seed recorded equal data, and runs with different seeds the same
    classes and number of images.
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
    """Group the dataset paths that hold the same data, as far as runs recorded that."""
    alike: list[list[str]] = []
    for place, ours in runs.items():
        for group in alike:
            theirs = [result for other in group for result in runs[other]]
            if not any(differing_data(one, other) for one in ours for other in theirs):
                group.append(place)
                break
        else:
            alike.append([place])
    return alike


def differing_data(one: Result, other: Result) -> list[str]:
    """Return in which facts the data of two runs differ that are equal for the same images."""
    if not one.data or not other.data:
        # results without a folder only have the dataset's name
        return [] if one.config.dataset == other.config.dataset else ["place"]
    # the test split depends on the seed, so only the total number is comparable
    counts = [sum(result.data["number of images"]) for result in (one, other)]
    differing = ["number of images"] if counts[0] != counts[1] else []
    names = ["classes"]
    if one.config.seed == other.config.seed:
        names += ["number of images", "paths", "test labels"]
        sizes = [(r.data["image shape"], r.config.image_noise, r.setting[2]) for r in (one, other)]
        names += ["pixels"] if sizes[0] == sizes[1] else []
    differing += [name for name in names if one.data.get(name) != other.data.get(name)]
    return list(dict.fromkeys(differing))


def _shortest_names(paths: Sequence[str]) -> list[str]:
    """Return each path's last parts, as many as make all of them different."""
    parts = [Path(path).parts for path in paths]
    for n in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*one[-n:])) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def group_by_setting(
    results: Iterable[Result],
) -> dict[Setting, dict[str, dict[int, Result]]]:
    """Group by setting, strategy and seed, in order of first appearance. Raise a RunFolderError if
    two runs share all three, or runs of one setting differ in other settings or images.
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
        _check_pairs([result for of_seed in group.values() for result in of_seed.values()])
    return groups


def _check_pairs(results: Sequence[Result]) -> None:
    # weights files are compared by hash, which older runs did not record
    first = next((result for result in results if result.weights), results[0])
    of_seed = {result.config.seed: result for result in reversed(results)}
    for result in results:
        pair = of_seed[result.config.seed]
        if why := _differing_settings(first, result):
            _refuse(first, result, why)
        if differing := ", ".join(differing_data(pair, result)):
            _refuse(pair, result, f"their images differ in {differing}")


def _refuse(one: Result, other: Result, why: str) -> None:
    raise RunFolderError(f"{_name(one)} and {_name(other)} cannot be compared: {why}")


def _name(result: Result) -> str:
    return repr(str(result.folder or result.config.strategy))


def _differing_settings(first: Result, result: Result) -> str:
    expected, settings = what_must_agree(first), what_must_agree(result)
    same_weights = _same_weights(first, result)
    for name in sorted(settings.keys() | expected.keys()):
        one, other = expected.get(name), settings.get(name)
        if one != other and not (name == "weights" and same_weights):
            return f"{name} is {one!r} in one and {other!r} in the other"
    if same_weights:
        return ""
    return (
        f"the weights in {result.config.weights!r} differ (SHA-256 {first.weights}..., "
        f"{result.weights}...); run both with the same file"
    )


def what_must_agree(result: Result) -> dict[str, Any]:
    """Return the settings that paired runs must share besides `Setting` and the seed. The path of
    the data is not among them, since their content is compared.
    """
    others = MAY_DIFFER | set(Setting._fields)
    return {name: v for name, v in result.config.as_dict().items() if name not in others}


def _same_weights(first: Result, result: Result) -> bool:
    """Return whether runs started from the same weights, even if the paths differ."""
    if first.weights and result.weights:
        return first.weights == result.weights
    one, other = first.config.weights, result.config.weights
    if one is None or other is None or one == other:
        return one == other
    if Path(one).name != Path(other).name:
        return False
    if not Path(one).is_file() or not Path(other).is_file():
        return True  # only the equal names are known
    return filecmp.cmp(one, other, shallow=False)
