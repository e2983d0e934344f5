"""Whether a strategy beats random, by how much, and how sure that is. Imports no torch.

The one measure that the verdict rests on is the area under the learning curve; the final accuracy
stands beside it. `skal.statistics` has the measures, and says what they rest on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import DataError
from .metrics import area_under_curve
from .results import Result, Setting, group_by_setting
from .statistics import (
    ALPHA,
    Curves,
    Floats,
    describe,
    holm,
    label_efficiency,
    paired_difference,
    penalty_matrix,
    rank_strategies,
    seeds_needed,
    smallest_p,
)


def analyse(results: Sequence[Result], baseline: str = "random") -> dict[str, Any]:
    """Compare strategies with a baseline.

    Parameters
    ----------
    results : sequence of Result
        Of any number of settings, strategies and seeds.
    baseline : str
        The strategy that the others are compared with, in each setting.

    Returns
    -------
    dict
        The content of ``comparison.json``: plain values, None for what is not known. All of it is
        computed at the numbers of labels that all runs of a setting have; a strategy is compared
        with the baseline in the seeds that both have.

    Raises
    ------
    RunFolderError
        If runs cannot be compared; see `group_by_setting`.
    DataError
        If the runs of a setting have no number of labels in common.
    """
    ordered = sorted(results, key=lambda result: result.strategy != baseline)  # it comes first
    groups = [_Group.make(*item) for item in group_by_setting(ordered).items()]
    names = _name_settings([group.setting for group in groups])
    strategies: dict[str, Any] = {}
    described = []
    for group in groups:
        place = names[group.setting]
        labels = {name: ", ".join((name, *place)) for name in group.curves}
        for name, entry in _compare(group, baseline, place).items():
            strategies[labels[name]] = entry
        described.append(
            {
                **group.setting._asdict(),
                "n_labeled": list(group.n_labeled),
                "seeds": group.seeds,
                "strategies": labels,
                "penalty": penalty_matrix(group.n_labeled, group.curves),
                "warnings": _warnings(group, baseline),
            }
        )
    return {
        "baseline": baseline,
        "strategies": strategies,
        "groups": described,
        "ranks": _ranks(groups),
    }


@dataclass(frozen=True)
class _Group:
    """The runs of one setting, cut to the numbers of labels that all have."""

    setting: Setting
    n_labeled: tuple[int, ...]
    n_left_out: int
    curves: Curves

    @classmethod
    def make(cls, setting: Setting, results: Mapping[str, Mapping[int, Result]]) -> _Group:
        accuracy = {
            name: {
                # a round that brought no labels replaces the one before
                seed: {int(row["n_labeled"]): float(row["accuracy"]) for row in result.rounds}
                for seed, result in sorted(of_strategy.items())
            }
            for name, of_strategy in results.items()
        }
        budgets = [curve.keys() for of_seed in accuracy.values() for curve in of_seed.values()]
        common = sorted(set.intersection(*map(set, budgets)))
        if not common:
            raise DataError(
                f"the runs of {', '.join(results)} on {setting.dataset} cannot be compared: they "
                "have no number of labels in common; give all the same n_init and n_query"
            )
        curves = {
            name: {
                seed: np.array([curve[n] for n in common], dtype=float)
                for seed, curve in of_seed.items()
            }
            for name, of_seed in accuracy.items()
        }
        return cls(setting, tuple(common), len(set().union(*budgets)) - len(common), curves)

    @property
    def seeds(self) -> list[int]:
        """Those that all strategies have."""
        return sorted(set.intersection(*(set(of_seed) for of_seed in self.curves.values())))

    def pairs(self, name: str, baseline: str) -> tuple[Floats, Floats]:
        """Return the curves of two strategies in the seeds that both have."""
        ours, theirs = self.curves[name], self.curves[baseline]
        seeds = sorted(ours.keys() & theirs.keys())
        shape = (len(seeds), len(self.n_labeled))
        one = np.array([ours[seed] for seed in seeds], dtype=float).reshape(shape)
        other = np.array([theirs[seed] for seed in seeds], dtype=float).reshape(shape)
        return one, other

    def rivals(self, baseline: str) -> dict[str, tuple[Floats, Floats]]:
        """Return the pairs of every other strategy and the baseline; none without a baseline."""
        if baseline not in self.curves:
            return {}
        return {name: self.pairs(name, baseline) for name in self.curves if name != baseline}

    def aulc(self, curves: Floats) -> Floats:
        """Return the area under each curve."""
        rows = [
            [{"n_labeled": n, "accuracy": a} for n, a in zip(self.n_labeled, curve, strict=True)]
            for curve in curves
        ]
        return np.array([area_under_curve(row) for row in rows], dtype=float)

    def mean_aulc(self, name: str) -> float:
        return float(self.aulc(np.array(list(self.curves[name].values()))).mean())


def _compare(group: _Group, baseline: str, place: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the entry of each strategy of a setting."""
    differences = _compare_pairs(group, baseline)
    reachable = _reachable_p(group, baseline)
    entries = {}
    for name, of_seed in group.curves.items():
        curves = np.array(list(of_seed.values()))
        difference = differences.get(name)
        efficiency = None
        if difference is not None:
            efficiency = label_efficiency(group.n_labeled, *group.pairs(name, baseline))
        points = describe(curves)
        entry = {
            "strategy": name,
            **group.setting._asdict(),
            "seeds": list(of_seed),
            "n_seeds": len(of_seed),
            "curve": [
                {"n_labeled": n, **point} for n, point in zip(group.n_labeled, points, strict=True)
            ],
            "aulc": describe(group.aulc(curves))[0],
            "accuracy": points[-1],
            "difference": difference,
            "efficiency": efficiency,
        }
        tellable = reachable.get(name, 1.0) <= ALPHA
        entry["verdict"] = _verdict(entry, baseline, place, tellable)
        entries[name] = entry
    return entries


def _compare_pairs(group: _Group, baseline: str) -> dict[str, dict[str, Any]]:
    """Return the differences of each strategy from the baseline, corrected for their number."""
    measures: dict[str, Callable[[Floats], Floats]] = {
        "aulc": group.aulc,
        "accuracy": lambda curves: curves[:, -1],
    }
    differences: dict[str, dict[str, Any]] = {
        name: {
            measure: paired_difference(*map(values, pair)) for measure, values in measures.items()
        }
        for name, pair in group.rivals(baseline).items()
    }
    for measure in measures:
        tested = [found[measure] for found in differences.values() if found[measure]["n_pairs"]]
        for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
            one["p_holm"] = p
        for found in differences.values():
            found[measure].setdefault("p_holm", None)
    return differences


def _reachable_p(group: _Group, baseline: str) -> dict[str, float]:
    """Return the smallest corrected p that each strategy can reach, whatever its accuracies."""
    n_pairs = {name: len(pair[0]) for name, pair in group.rivals(baseline).items()}
    tested = {name: smallest_p(n) for name, n in n_pairs.items() if n}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: corrected.get(name, 1.0) for name in n_pairs}


def _ranks(groups: Sequence[_Group]) -> dict[str, Any] | None:
    """Rank the strategies over the settings, if each setting has the same ones."""
    if len(groups) < 2:
        return None
    names = list(groups[0].curves)
    if len(names) < 2 or any(group.curves.keys() != set(names) for group in groups):
        return None
    values = {name: [group.mean_aulc(name) for group in groups] for name in names}
    places = _name_settings([group.setting for group in groups], always=("dataset", "model"))
    return {
        "settings": [", ".join(place) for place in places.values()],
        "strategies": names,
        **rank_strategies(values),
        "values": values,
    }


_PARTS: dict[str, Callable[[Any], str]] = {
    "dataset": str,
    "model": str,
    "noise_rate": "noise {:.12g}".format,
    "label_noise": "label noise {:.12g}".format,
}


def _name_settings(
    settings: Sequence[Setting], always: Sequence[str] = ()
) -> dict[Setting, tuple[str, ...]]:
    """Say of each setting in what it differs from others, and what shall be said in any case."""
    parts = [
        (field, word)
        for field, word in _PARTS.items()
        if field in always or len({getattr(setting, field) for setting in settings}) > 1
    ]
    return {
        setting: tuple(word(getattr(setting, field)) for field, word in parts)
        for setting in settings
    }


def _warnings(group: _Group, baseline: str) -> list[str]:
    return [
        *_warn_of_budgets(group),
        *_warn_of_seeds(group, baseline),
        *_warn_of_too_few(group, baseline),
    ]


def _warn_of_budgets(group: _Group) -> list[str]:
    if not group.n_left_out:
        return []
    n, first, last = len(group.n_labeled), group.n_labeled[0], group.n_labeled[-1]
    common = f"the {n} that all have, {first} to {last}" if n > 1 else f"{first}, which all have"
    return [
        f"the runs have different numbers of labels: they are compared at {common}; "
        f"{group.n_left_out} more {_plural(group.n_left_out, 'is', 'are')} left out"
    ]


def _warn_of_seeds(group: _Group, baseline: str) -> list[str]:
    if baseline not in group.curves:
        return [f"there is no run of {baseline}: nothing can be compared with it"]
    seeds = set().union(*group.curves.values())
    lacking = [
        f"{name} lacks {_plural(len(seeds - of_seed.keys()), 'seed')} "
        + ", ".join(map(str, sorted(seeds - of_seed.keys())))
        for name, of_seed in group.curves.items()
        if seeds - of_seed.keys()
    ]
    if not lacking:
        return []
    return [
        f"{'; '.join(lacking)}: strategies are compared in the seeds that both have; the others "
        "are left out of the pairs"
    ]


def _warn_of_too_few(group: _Group, baseline: str) -> list[str]:
    n_pairs = {name: len(pair[0]) for name, pair in group.rivals(baseline).items()}
    reachable = _reachable_p(group, baseline)
    short: dict[int, list[str]] = {}
    for name in n_pairs:
        if reachable[name] > ALPHA:
            short.setdefault(n_pairs[name], []).append(name)
    k = len(n_pairs)
    return [
        f"with {n} {_plural(n, 'seed')} no difference of {', '.join(names)} from {baseline} can be "
        f"called significant, whatever its size: at least {seeds_needed(k)} seeds are needed to "
        f"compare {k} {_plural(k, 'strategy', 'strategies')} with it"
        for n, names in sorted(short.items())
    ]


def _verdict(entry: Mapping[str, Any], baseline: str, place: Sequence[str], tellable: bool) -> str:
    """Say in a sentence what the numbers mean; `tellable` if there are seeds enough for a test."""
    name = f"{entry['strategy']} ({', '.join(place)})" if place else entry["strategy"]
    last = entry["curve"][-1]["n_labeled"]
    if entry["strategy"] == baseline:
        accuracy = entry["accuracy"]["mean"]
        return (
            f"{name} is what the others are compared with: it ends at an accuracy of "
            f"{accuracy:.1%} with {last} labels."
        )
    if entry["difference"] is None:
        return f"{name} cannot be judged: there is no run of {baseline} to compare it with."
    found = entry["difference"]["aulc"]
    if not found["n_pairs"]:
        return f"{name} cannot be judged: it has no seed in common with {baseline}."
    budgets = len(entry["curve"])
    where = "on average over its curve" if budgets > 1 else f"with {last} labels"
    return (
        f"{_finding(name, baseline, found, tellable)}: {where} its accuracy is {_size(found)}"
        f"{_saved(entry['efficiency'], baseline, budgets)}."
    )


def _finding(name: str, baseline: str, found: Mapping[str, Any], tellable: bool) -> str:
    if not tellable:
        return f"Too few seeds to tell whether {name} beats {baseline}"
    # one large difference may turn the mean against all the others
    clear = found["mean"] * (found["wins"] - found["losses"]) > 0
    if found["p_holm"] > ALPHA or not clear:
        return f"No difference between {name} and {baseline} could be shown"
    return f"{name} {'beats' if found['mean'] > 0 else 'is worse than'} {baseline}"


def _size(found: Mapping[str, Any]) -> str:
    mean, low, high, n_pairs = (found[key] for key in ("mean", "low", "high", "n_pairs"))
    seeds = "the one seed that both have" if n_pairs == 1 else f"all {n_pairs} seeds"
    if not found["wins"] + found["losses"]:
        return f"the same in {seeds}"
    direction = _direction(mean)
    size = f"{_points(mean)} percentage points {direction}"
    if low is None:
        return f"{size} in {seeds}"
    ends = [_points(end) for end in sorted((low, high), key=abs)]
    if low < 0 < high:
        ends = [f"{_points(low)} lower", f"{_points(high)} higher"]
    times = found["losses" if direction == "lower" else "wins"]
    return (
        f"{size} (likely between {' and '.join(ends)}), and {direction} in {times} of "
        f"{n_pairs} seeds"
    )


def _points(difference: float) -> str:
    points = 100 * abs(difference)
    return f"{points:.1f}" if points >= 1 else f"{points:.2g}"


def _direction(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def _saved(efficiency: Sequence[Mapping[str, Any]], baseline: str, budgets: int) -> str:
    """Say how many labels are saved on the way to the baseline's final accuracy."""
    if budgets == 1:
        return ""
    if not efficiency:
        return f"; {baseline} itself does not get better with more labels"
    final = efficiency[-1]
    target = f"{baseline}'s final accuracy of {final['target']:.1%}"
    if final["labels"] is None:
        return f"; it does not reach {target}"
    return (
        f"; it reaches {target} with {final['labels']:.0f} labels, {baseline} with "
        f"{final['baseline_labels']:.0f}"
    )


def _plural(n: int, one: str, several: str | None = None) -> str:
    return one if n == 1 else several or f"{one}s"
