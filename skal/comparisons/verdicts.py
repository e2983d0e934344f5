"""Whether a strategy beats random, by how much, and how sure that is. Imports no torch.

The one measure that the verdict rests on is the area under the learning curve; the final accuracy
stands beside it. `statistics` has the measures, and says what they rest on; `wording` has the
sentences.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import DataError
from ..runs.metrics import area_under_curve
from .results import Result, Setting, differing_data, group_by_setting, tell_apart, what_must_agree
from .statistics import (
    ALPHA,
    Curves,
    Floats,
    describe,
    holm,
    label_efficiency,
    paired_difference,
    paired_differences,
    penalty_matrix,
    rank_strategies,
    seeds_needed,
    smallest_p,
)
from .wording import (
    judge,
    judge_end,
    name_differences,
    name_part,
    name_settings,
    plural,
    say_runs,
    say_saved,
    say_size,
)

MEASURES = ("aulc", "accuracy")
NOISES = ("noise_rate", "label_noise")


def analyse(
    results: Sequence[Result], baseline: str = "random", failed: Sequence[str] = ()
) -> dict[str, Any]:
    """Compare strategies with a baseline.

    Parameters
    ----------
    results : sequence of Result
        Of any number of settings, strategies and seeds.
    baseline : str
        The strategy that the others are compared with, in each setting.
    failed : sequence of str
        Names of runs that should be among the results and failed; they are warned of.

    Returns
    -------
    dict
        The content of ``comparison.json``: plain values, None for what is not known. All of it is
        computed at the numbers of labels that all runs of a setting have, or, where they have
        others, as in streams, at as many over the span that all share, where accuracy is taken for
        straight in between; a strategy is compared with the baseline in the seeds that both have.

        `p_holm` is corrected, for each measure, for all comparisons with the baseline in all
        settings (`n_verdicts`); in `models` and `noise`, where models and rates are compared in
        pairs of seeds, for all of each.

    Raises
    ------
    RunFolderError
        If runs cannot be compared; see `group_by_setting`.
    DataError
        If the runs of a setting share no span of labels.
    """
    ordered = sorted(tell_apart(results), key=lambda result: result.strategy != baseline)
    groups = [_Group.make(*item) for item in group_by_setting(ordered).items()]
    settings = [group.setting._asdict() for group in groups]
    titles = name_settings(settings)
    differences = [_compare_pairs(group, baseline) for group in groups]
    found = [row for of_group in differences for row in of_group.values()]
    reachable = iter(_correct(found))
    strategies: dict[str, Any] = {}
    described = []
    for group, title, of_group in zip(groups, titles, differences, strict=True):
        place = title if len(groups) > 1 else ""
        labels = {name: ", ".join(filter(None, (name, place))) for name in group.curves}
        tellable = {name: next(reachable) for name in of_group}
        for name, entry in _compare(group, baseline, of_group).items():
            entry["verdict"] = _verdict(entry, baseline, place, tellable.get(name, False), group)
            strategies[labels[name]] = entry
        described.append(
            {
                **group.setting._asdict(),
                "name": title,
                "n_labeled": list(group.n_labeled),
                "interpolated": group.interpolated,
                "seeds": group.seeds,
                "strategies": labels,
                "penalty": penalty_matrix(group.n_labeled, group.curves),
                "warnings": _warnings(group, baseline, of_group, tellable, found),
            }
        )
    return {
        "baseline": baseline,
        "n_verdicts": sum(row["aulc"]["n_pairs"] > 0 for row in found),
        "strategies": strategies,
        "groups": described,
        "ranks": _ranks(groups),
        "models": _compare_models(groups),
        "noise": _compare_rates(groups),
        "failed": list(failed),
    }


def _common_budgets(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], bool]:
    """Return the numbers of labels to compare curves at, and whether some do not have them.

    They lie in the span that all share; none are returned if there is no such span.
    """
    first, last = max(map(min, curves)), min(map(max, curves))
    if first > last:
        return [], False
    inside = [tuple(sorted(n for n in curve if first <= n <= last)) for curve in curves]
    if len(set(inside)) == 1:
        return list(inside[0]), False
    number = max(2, *map(len, inside))
    return sorted(set(np.linspace(first, last, number).round().astype(int).tolist())), True


def _at(curve: Mapping[int, float], budgets: Sequence[int]) -> Floats:
    """Return a curve's accuracy at some numbers of labels, straight between its own."""
    own = sorted(curve)
    found: Floats = np.interp(budgets, own, [curve[n] for n in own])
    return found


def _areas(budgets: Sequence[int], curves: Floats) -> Floats:
    """Return the area under each curve."""
    rows = [
        [{"n_labeled": n, "accuracy": a} for n, a in zip(budgets, curve, strict=True)]
        for curve in curves
    ]
    return np.array([area_under_curve(row) for row in rows], dtype=float)


def _measure(budgets: Sequence[int], ours: Floats, theirs: Floats) -> dict[str, Any]:
    """Return the paired differences of curves by each measure."""
    measures: Mapping[str, Callable[[Floats], Floats]] = {
        "aulc": lambda curves: _areas(budgets, curves),
        "accuracy": lambda curves: curves[:, -1],
    }
    return {name: paired_difference(of(ours), of(theirs)) for name, of in measures.items()}


@dataclass(frozen=True)
class _Group:
    """The runs of one setting, at the numbers of labels that they are compared at."""

    setting: Setting
    runs: Mapping[str, Mapping[int, Result]]
    known: Mapping[str, Mapping[int, Mapping[int, float]]]
    """Accuracy by strategy, seed and number of labels, as the runs left it."""
    n_labeled: tuple[int, ...]
    interpolated: bool
    curves: Curves

    @classmethod
    def make(cls, setting: Setting, results: Mapping[str, Mapping[int, Result]]) -> _Group:
        known = {
            name: {
                # a round that brought no labels replaces the one before
                seed: {int(row["n_labeled"]): float(row["accuracy"]) for row in result.rounds}
                for seed, result in sorted(of_strategy.items())
            }
            for name, of_strategy in results.items()
        }
        budgets, interpolated = _common_budgets(
            [curve for of_seed in known.values() for curve in of_seed.values()]
        )
        if not budgets:
            raise DataError(
                f"the runs of {', '.join(results)} on {setting.dataset} cannot be compared: they "
                "have no number of labels in common; give all the same n_init and n_query"
            )
        curves = {
            name: {seed: _at(curve, budgets) for seed, curve in of_seed.items()}
            for name, of_seed in known.items()
        }
        return cls(setting, results, known, tuple(budgets), interpolated, curves)

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

    def aulc(self, name: str) -> Floats:
        """Return the area under each curve of a strategy."""
        return _areas(self.n_labeled, np.array(list(self.curves[name].values())))


def _compare_pairs(group: _Group, baseline: str) -> dict[str, dict[str, Any]]:
    """Return the differences of each strategy from the baseline, by measure."""
    return {name: _measure(group.n_labeled, *pair) for name, pair in group.rivals(baseline).items()}


def _correct(rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Correct the p of each measure for the number of `rows`; say which could be significant.

    Whether one could is a matter of how many seeds it has alone, and not of its accuracies.
    """
    for measure in MEASURES:
        for row in rows:
            row[measure]["p_holm"] = None
        tested = [row[measure] for row in rows if row[measure]["n_pairs"]]
        for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
            one["p_holm"] = p
    least = holm([smallest_p(row["aulc"]["n_pairs"]) for row in rows if row["aulc"]["n_pairs"]])
    reached = iter(least)
    return [row["aulc"]["n_pairs"] > 0 and next(reached) <= ALPHA for row in rows]


def _compare(
    group: _Group, baseline: str, differences: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the entry of each strategy of a setting, without its verdict."""
    entries = {}
    for name, of_seed in group.curves.items():
        points = describe(np.array(list(of_seed.values())))
        difference = differences.get(name)
        of_pairs = None if difference is None else _compare_curves(group, name, baseline)
        entries[name] = {
            "strategy": name,
            **group.setting._asdict(),
            "seeds": list(of_seed),
            "n_seeds": len(of_seed),
            "curve": _points(group.n_labeled, points),
            "aulc": describe(group.aulc(name))[0],
            "accuracy": points[-1],
            "difference": difference,
            "differences": of_pairs and of_pairs[0],
            "efficiency": of_pairs and of_pairs[1],
        }
    return entries


def _compare_curves(group: _Group, name: str, baseline: str) -> tuple[list[Any], list[Any]]:
    """Return the paired differences along the curve, and the label efficiency."""
    ours, theirs = group.pairs(name, baseline)
    differences = describe(paired_differences(ours, theirs)) if len(ours) else []
    along = _points(group.n_labeled, differences) if differences else []
    return along, label_efficiency(group.n_labeled, ours, theirs)


def _points(budgets: Sequence[int], points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"n_labeled": n, **point} for n, point in zip(budgets, points, strict=True)]


def _outcome(found: Mapping[str, Any], tellable: bool) -> str:
    """Say what could be shown of a difference."""
    if not tellable:
        return "too few"
    # one large difference may turn the mean against all the others
    clear = found["mean"] * (found["wins"] - found["losses"]) > 0
    if found["p_holm"] > ALPHA or not clear:
        return "none"
    return "better" if found["mean"] > 0 else "worse"


def _verdict(
    entry: Mapping[str, Any], baseline: str, place: str, tellable: bool, group: _Group
) -> str:
    """Say in a sentence what the numbers mean; `tellable` if there are seeds enough for a test."""
    name = _placed(entry, place)
    last = group.n_labeled[-1]
    if entry["strategy"] == baseline:
        accuracy = entry["accuracy"]["mean"]
        return (
            f"{name} is what the others are compared with: it ends at an accuracy of "
            f"{accuracy:.1%} with {last} labels."
        )
    if entry["difference"] is None:
        return f"{name} cannot be judged: there is no run of {baseline} to compare it with."
    area, end = (entry["difference"][measure] for measure in MEASURES)
    if not area["n_pairs"]:
        return f"{name} cannot be judged: it has no seed in common with {baseline}."
    outcome = _outcome(area, tellable)
    story = judge_end(entry["strategy"], outcome, _outcome(end, tellable), end)
    where = _where(group.n_labeled)
    saved = say_saved(entry["efficiency"], baseline, group.n_labeled, not group.interpolated)
    size = say_size(area, outcome)
    return f"{judge(name, baseline, outcome)}{story}: {where} its accuracy is {size}{saved}."


def _ranks(groups: Sequence[_Group]) -> dict[str, Any] | None:
    """Rank the strategies over the datasets, if each setting has the same ones.

    Only datasets are independent of each other. What a strategy came to with several models and
    rates of noise on one of them is averaged first.
    """
    datasets = list(dict.fromkeys(group.setting.dataset for group in groups))
    if len(datasets) < 2:
        return None
    names = list(groups[0].curves)
    if len(names) < 2 or any(group.curves.keys() != set(names) for group in groups):
        return None
    values = {
        name: [
            float(np.mean([g.aulc(name).mean() for g in groups if g.setting.dataset == dataset]))
            for dataset in datasets
        ]
        for name in names
    }
    return {"settings": datasets, "strategies": names, **rank_strategies(values), "values": values}


def _between(ours: _Group, theirs: _Group, name: str) -> dict[str, Any] | None:
    """Compare a strategy's runs in two settings in pairs of seeds; None if that cannot be done."""
    one, other = (group.known.get(name, {}) for group in (ours, theirs))
    seeds = sorted(one.keys() & other.keys())
    if not seeds or not all(_alike(ours.runs[name][s], theirs.runs[name][s]) for s in seeds):
        return None
    budgets = _common_budgets([known[seed] for seed in seeds for known in (one, other)])[0]
    if not budgets:
        return None
    curves = [np.array([_at(known[seed], budgets) for seed in seeds]) for known in (one, other)]
    return {"n_labeled": [budgets[0], budgets[-1]], **_measure(budgets, *curves)}


def _alike(one: Result, other: Result) -> bool:
    """Tell whether two runs of a seed differ in `Setting` alone."""
    return what_must_agree(one) == what_must_agree(other) and not differing_data(one, other)


def _compare_models(groups: Sequence[_Group]) -> list[dict[str, Any]]:
    """Compare each pair of models, strategy by strategy, in settings that are alike otherwise."""
    rows, places = [], []
    named = zip(groups, _places(groups, "model"), strict=True)
    for (other, _), (model, place) in itertools.combinations(named, 2):
        if model.setting != other.setting._replace(model=model.setting.model):
            continue
        for name in model.curves:
            found = _between(model, other, name)
            if found is not None:
                facts = model.setting._asdict()
                models = [facts.pop("model"), other.setting.model]
                rows.append({"strategy": name, **facts, "models": models, **found})
                places.append(place)
    for row, place, tellable in zip(rows, places, _correct(rows), strict=True):
        row["sentence"] = f"{_placed(row, place)}: {_judge_models(row, tellable)}"
    return rows


def _judge_models(row: Mapping[str, Any], tellable: bool) -> str:
    name, other = row["models"]
    area, end = (row[measure] for measure in MEASURES)
    outcome = _outcome(area, tellable)
    story = judge_end(name, outcome, _outcome(end, tellable), end)
    return (
        f"{judge(name, other, outcome)}{story}: {_where(row['n_labeled'])} the accuracy of {name} "
        f"is {say_size(area, outcome)}."
    )


def _compare_rates(groups: Sequence[_Group]) -> list[dict[str, Any]]:
    """Compare each rate of noise with the lowest one, by strategy and model."""
    rows, places = [], []
    for axis in NOISES:
        for group, place in zip(groups, _places(groups, axis), strict=True):
            lowest = _lowest(groups, group, axis)
            for name in group.curves if lowest is not group else ():
                found = _between(group, lowest, name)
                if found is not None:
                    facts = {"strategy": name, **group.setting._asdict(), "noise": axis}
                    rows.append({**facts, "lowest_rate": getattr(lowest.setting, axis), **found})
                    places.append(place)
    for row, place, tellable in zip(rows, places, _correct(rows), strict=True):
        row["sentence"] = _judge_loss(row, _placed(row, place), tellable)
    return rows


def _lowest(groups: Sequence[_Group], group: _Group, axis: str) -> _Group:
    """Return the group with the lowest rate of those that differ from one in it alone."""
    alike = [
        other
        for other in groups
        if other.setting._replace(**{axis: getattr(group.setting, axis)}) == group.setting
    ]
    return min(alike, key=lambda other: float(getattr(other.setting, axis)))


def _judge_loss(row: Mapping[str, Any], name: str, tellable: bool) -> str:
    noise, least = (name_part(row["noise"], row[key]) for key in (row["noise"], "lowest_rate"))
    outcome = _outcome(row["aulc"], tellable)
    head = {
        "worse": f"{name} loses by {noise}",
        "better": f"{name} gains by {noise}",
        "none": f"It could not be shown that {name} loses by {noise}",
        "too few": f"Too few seeds to tell what {name} loses by {noise}",
    }[outcome]
    size = say_size(row["aulc"], outcome, f" than with {least}")
    return f"{head}: {_where(row['n_labeled'])} its accuracy is {size}."


def _placed(row: Mapping[str, Any], place: str) -> str:
    return f"{row['strategy']} ({place})" if place else str(row["strategy"])


def _where(span: Sequence[int]) -> str:
    """Say what an area is of; `span` begins and ends with its numbers of labels."""
    return "on average over its curve" if span[0] < span[-1] else f"with {span[-1]} labels"


def _places(groups: Sequence[_Group], without: str) -> list[str]:
    """Say of each group what it is in, but for what is compared."""
    return name_differences([group.setting._asdict() for group in groups], (without,))


def _warnings(
    group: _Group,
    baseline: str,
    differences: Mapping[str, Any],
    tellable: Mapping[str, bool],
    tested: Sequence[Any],
) -> list[str]:
    n_pairs = {name: found["aulc"]["n_pairs"] for name, found in differences.items()}
    short = {name: n for name, n in n_pairs.items() if not tellable[name]}
    n_tested = len(tested)
    if n_tested == len(n_pairs):
        purpose = f"compare {n_tested} {plural(n_tested, 'strategy', 'strategies')} with it"
    else:
        purpose = f"make all {n_tested} comparisons with it"
    return [
        *_warn_of_budgets(group),
        *_warn_of_seeds(group, baseline),
        *_warn_of_too_few(short, baseline, purpose, n_tested),
    ]


def _warn_of_budgets(group: _Group) -> list[str]:
    """Name the runs that end before others, or begin after them, so that less is compared."""
    ends = dict(_runs(group, max))
    starts = dict(_runs(group, min))
    first, last = group.n_labeled[0], group.n_labeled[-1]
    seeds = {name: list(of_seed) for name, of_seed in group.known.items()}
    told = []
    if len(set(starts.values())) > 1:
        late = say_runs((run for run, n in starts.items() if n == first), seeds)
        told.append(f"{first} is the start of {late}; others begin with {min(starts.values())}")
    if len(set(ends.values())) > 1:
        short = say_runs((run for run, n in ends.items() if n == last), seeds)
        told.append(f"{last} is the end of {short}; others go on to {max(ends.values())}")
    if not told and not group.interpolated:
        return []
    if group.interpolated:
        told.append("between its own numbers of labels each run's accuracy is taken for straight")
    n = len(group.n_labeled)
    where = f"at {n} numbers from {first} to {last}" if n > 1 else f"at {first} alone"
    return [
        f"the runs have different numbers of labels: they are compared {where}; {'; '.join(told)}"
    ]


def _runs(
    group: _Group, end: Callable[[Mapping[int, float]], int]
) -> Iterator[tuple[tuple[str, int], int]]:
    """Yield each run, as strategy and seed, with an end of its numbers of labels."""
    for name, of_seed in group.known.items():
        for seed, curve in of_seed.items():
            yield (name, seed), end(curve)


def _warn_of_seeds(group: _Group, baseline: str) -> list[str]:
    if baseline not in group.curves:
        return [f"there is no run of {baseline}: nothing can be compared with it"]
    seeds = set().union(*group.curves.values())
    lacking = [
        f"{name} lacks {plural(len(seeds - of_seed.keys()), 'seed')} "
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


def _warn_of_too_few(
    n_pairs: Mapping[str, int], baseline: str, purpose: str, n_tested: int
) -> list[str]:
    short: dict[int, list[str]] = {}
    for name, n in n_pairs.items():
        short.setdefault(n, []).append(name)
    needed = f"at least {seeds_needed(n_tested)} seeds are needed to {purpose}"
    return [
        f"with {n} {plural(n, 'seed')} no difference of {', '.join(names)} from {baseline} can be "
        f"called significant, whatever its size: {needed}"
        for n, names in sorted(short.items())
    ]
