"""Verdicts: whether strategies beat random, by how much, and how certainly. No torch.

A verdict is based on the area under the learning curve; final accuracy is reported in addition.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.text import counted, plural
from . import sentences, statistics
from .curves import MEASURES, Group, difference_between
from .pairs import group_by_setting, tell_apart
from .results import Result

NOISES = ("noise_rate", "label_noise")

Findings = Mapping[str, str]
"""Findings by measure; see `sentences`."""


def analyse(
    results: Sequence[Result], baseline: str = "random", failed: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the content of ``comparison.json``. Curves are compared at the numbers of labels that
    all runs of a setting share, else interpolated at as many over their common range, for the seeds
    that both strategies have. For each measure, `p_holm` is corrected for all comparisons with the
    baseline in all settings (`n_verdicts`); those in `models` and in `noise` are corrected
    separately. `failed` names runs to warn about. Raise a RunFolderError if runs cannot be
    compared, see `group_by_setting`, a DataError if those of a setting share no range of labels.
    """
    ordered = sorted(tell_apart(results), key=lambda result: result.strategy != baseline)
    groups = [Group.make(*item) for item in group_by_setting(ordered).items()]
    titles = sentences.name_settings([group.setting._asdict() for group in groups])
    differences = [group.differences(baseline) for group in groups]
    rows = [row for of_group in differences for row in of_group.values()]
    findings = iter(_correct(rows))
    strategies: dict[str, Any] = {}
    described = []
    for group, title, of_group in zip(groups, titles, differences, strict=True):
        place = title if len(groups) > 1 else ""
        labels = {name: ", ".join(filter(None, (name, place))) for name in group.curves}
        found = {name: next(findings) for name in of_group}
        for name, label in labels.items():
            entry = _describe_strategy(group, name, baseline, of_group.get(name))
            entry["verdict"] = _verdict(entry, baseline, place, found.get(name, {}), group)
            strategies[label] = entry
        short = [name for name, finding in found.items() if finding["aulc"] == "too few"]
        n_pairs = {name: row["aulc"]["n_pairs"] for name, row in of_group.items()}
        described.append(
            {
                **group.setting._asdict(),
                "name": title,
                "n_labeled": list(group.n_labeled),
                "interpolated": group.interpolated,
                "seeds": group.seeds,
                "strategies": labels,
                "penalty": statistics.penalty_matrix(group.n_labeled, group.curves),
                "warnings": _warn(group, baseline, n_pairs, short, len(rows)),
            }
        )
    return {
        "baseline": baseline,
        "n_verdicts": sum(row["aulc"]["n_pairs"] > 0 for row in rows),
        "strategies": strategies,
        "groups": described,
        "ranks": _ranks(groups),
        "models": _compare_models(groups),
        "noise": _compare_rates(groups),
        "failed": list(failed),
    }


def _correct(rows: Sequence[Mapping[str, Any]]) -> list[Findings]:
    """Add `p_holm`, corrected for all rows, to each measure, and return the findings. "too few"
    depends only on numbers of seeds, not on results.
    """
    tested = [row for row in rows if row["aulc"]["n_pairs"]]
    least = iter(statistics.holm([statistics.smallest_p(row["aulc"]["n_pairs"]) for row in tested]))
    for measure in MEASURES:
        corrected = iter(statistics.holm([row[measure]["p"] for row in tested]))
        for row in rows:
            row[measure]["p_holm"] = next(corrected) if row["aulc"]["n_pairs"] else None
    findings: list[Findings] = []
    for row in rows:
        enough = row["aulc"]["n_pairs"] > 0 and next(least) <= statistics.ALPHA
        findings.append({m: _finding(row[m]) if enough else "too few" for m in MEASURES})
    return findings


def _finding(difference: Mapping[str, Any]) -> str:
    # one large difference can give the mean another sign than most differences have
    clear = difference["mean"] * (difference["wins"] - difference["losses"]) > 0
    if difference["p_holm"] > statistics.ALPHA or not clear:
        return "none"
    return "better" if difference["mean"] > 0 else "worse"


def _describe_strategy(
    group: Group, name: str, baseline: str, difference: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a strategy's entry without its verdict."""
    of_seed = group.curves[name]
    points = statistics.describe(np.array(list(of_seed.values())))
    along, efficiency = None, None
    if difference is not None:
        ours, theirs = group.pairs(name, baseline)
        differences = (
            statistics.describe(statistics.paired_differences(ours, theirs)) if len(ours) else []
        )
        along = _points(group.n_labeled, differences) if differences else []
        efficiency = statistics.label_efficiency(group.n_labeled, ours, theirs)
    return {
        "strategy": name,
        **group.setting._asdict(),
        "seeds": list(of_seed),
        "n_seeds": len(of_seed),
        "curve": _points(group.n_labeled, points),
        "aulc": statistics.describe(group.aulc(name))[0],
        "accuracy": points[-1],
        "difference": difference,
        "differences": along,
        "efficiency": efficiency,
    }


def _points(budgets: Sequence[int], points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"n_labeled": n, **point} for n, point in zip(budgets, points, strict=True)]


def _verdict(
    entry: Mapping[str, Any], baseline: str, place: str, found: Findings, group: Group
) -> str:
    name = _placed(entry, place)
    budgets = group.n_labeled
    if entry["strategy"] == baseline:
        accuracy = entry["accuracy"]["mean"]
        return (
            f"{name} is the baseline: its final accuracy is {accuracy:.1%} with "
            f"{counted(budgets[-1], 'label')}."
        )
    if entry["difference"] is None:
        return f"{name} cannot be judged: there is no run of {baseline} to compare it with."
    area, end = (entry["difference"][measure] for measure in MEASURES)
    if not area["n_pairs"]:
        return f"{name} cannot be judged: it has no seed in common with {baseline}."
    head = sentences.judge(name, baseline, found["aulc"])
    head += sentences.judge_end(entry["strategy"], found["aulc"], found["accuracy"], end)
    size = sentences.describe_size(area, found["aulc"])
    saved = sentences.describe_efficiency(
        entry["efficiency"], baseline, budgets, not group.interpolated
    )
    return f"{head}: its {_name_area(budgets)} is {size}{saved}."


def _placed(row: Mapping[str, Any], place: str) -> str:
    return f"{row['strategy']} ({place})" if place else str(row["strategy"])


def _name_area(budgets: Sequence[int]) -> str:
    """Name the area under a curve between the first and the last of the budgets."""
    if budgets[0] < budgets[-1]:
        return "mean accuracy over the curve"
    return f"accuracy with {counted(budgets[-1], 'label')}"


def _ranks(groups: Sequence[Group]) -> dict[str, Any] | None:
    """Rank strategies over datasets, if all settings have the same strategies. Models and noise
    rates on one dataset are not independent, so they are averaged.
    """
    datasets = list(dict.fromkeys(group.setting.dataset for group in groups))
    names = list(groups[0].curves) if groups else []
    same = all(group.curves.keys() == set(names) for group in groups)
    if len(datasets) < 2 or len(names) < 2 or not same:
        return None
    values = {
        name: [
            float(np.mean([g.aulc(name).mean() for g in groups if g.setting.dataset == dataset]))
            for dataset in datasets
        ]
        for name in names
    }
    return {
        "settings": datasets,
        "strategies": names,
        **statistics.rank_strategies(values),
        "values": values,
    }


def _places(groups: Sequence[Group], without: str) -> list[str]:
    """Name each group by its setting, without the field that is compared."""
    return sentences.name_differences([group.setting._asdict() for group in groups], (without,))


def _compare_models(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Compare each pair of models by strategy, in otherwise equal settings."""
    rows, places = list[dict[str, Any]](), list[str]()
    named = zip(groups, _places(groups, "model"), strict=True)
    for (other, _), (model, place) in itertools.combinations(named, 2):
        if model.setting != other.setting._replace(model=model.setting.model):
            continue
        facts = model.setting._asdict()
        facts["models"] = [facts.pop("model"), other.setting.model]
        compared = _between(model, other, facts)
        rows += compared
        places += [place] * len(compared)
    for row, place, found in zip(rows, places, _correct(rows), strict=True):
        name, other = row["models"]
        head = sentences.judge(name, other, found["aulc"])
        head += sentences.judge_end(name, found["aulc"], found["accuracy"], row["accuracy"])
        area = _name_area(row["n_labeled"])
        size = sentences.describe_size(row["aulc"], found["aulc"])
        row["sentence"] = f"{_placed(row, place)}: {head}: the {area} of {name} is {size}."
    return rows


def _compare_rates(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Compare each noise rate with the lowest one, by strategy and model."""
    rows, places = list[dict[str, Any]](), list[str]()
    for noise in NOISES:
        for group, place in zip(groups, _places(groups, noise), strict=True):
            lowest = _lowest(groups, group, noise)
            if lowest is not group:
                facts = {"noise": noise, "lowest_rate": getattr(lowest.setting, noise)}
                compared = _between(group, lowest, {**group.setting._asdict(), **facts})
                rows += compared
                places += [place] * len(compared)
    for row, place, found in zip(rows, places, _correct(rows), strict=True):
        rate, least = (
            sentences.name_part(row["noise"], row[key]) for key in (row["noise"], "lowest_rate")
        )
        head = sentences.judge_noise(_placed(row, place), rate, found["aulc"])
        size = sentences.describe_size(row["aulc"], found["aulc"], f" than with {least}")
        row["sentence"] = f"{head}: its {_name_area(row['n_labeled'])} is {size}."
    return rows


def _between(ours: Group, theirs: Group, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare each strategy in two settings, if possible."""
    found = {name: difference_between(ours, theirs, name) for name in ours.curves}
    return [{"strategy": name, **facts, **row} for name, row in found.items() if row is not None]


def _lowest(groups: Sequence[Group], group: Group, noise: str) -> Group:
    """Return the group with the lowest rate among those that differ from `group` only in it."""
    rate = getattr(group.setting, noise)
    alike = [one for one in groups if one.setting._replace(**{noise: rate}) == group.setting]
    return min(alike, key=lambda one: float(getattr(one.setting, noise)))


def _warn(
    group: Group,
    baseline: str,
    n_pairs: Mapping[str, int],
    too_few: Sequence[str],
    n_tested: int,
) -> list[str]:
    """Return the warnings about one setting's runs. `n_pairs` is the number of seeds that each
    strategy shares with the baseline, `too_few` names strategies with too few, and `n_tested`
    counts the comparisons in all settings.
    """
    purpose = f"make all {n_tested} comparisons with it"
    if n_tested == len(n_pairs):
        several = plural(n_tested, "strategy", "strategies")
        purpose = f"compare {n_tested} {several} with it"
    needed = statistics.seeds_needed(n_tested)
    short: dict[int, list[str]] = {}
    for name in too_few:
        short.setdefault(n_pairs[name], []).append(name)
    return [
        *_warn_of_budgets(group),
        *_warn_of_seeds(group, baseline),
        *(
            f"with {counted(n, 'seed')} no difference of {', '.join(names)} from "
            f"{baseline} can be significant, however large: at least {needed} seeds are needed to "
            f"{purpose}"
            for n, names in sorted(short.items())
        ),
    ]


def _warn_of_budgets(group: Group) -> list[str]:
    """Name the runs that start later or end earlier than others, and so narrow the comparison."""

    def budgets(end: Callable[[Mapping[int, float]], int]) -> dict[tuple[str, int], int]:
        return {
            (name, seed): end(curve)
            for name, of_seed in group.known.items()
            for seed, curve in of_seed.items()
        }

    starts, ends = budgets(min), budgets(max)
    first, last = group.n_labeled[0], group.n_labeled[-1]
    seeds = {name: list(of_seed) for name, of_seed in group.known.items()}
    notes = []
    if len(set(starts.values())) > 1:
        late = sentences.list_runs((run for run, n in starts.items() if n == first), seeds)
        notes.append(f"{first} is the start of {late}; others start with {min(starts.values())}")
    if len(set(ends.values())) > 1:
        short = sentences.list_runs((run for run, n in ends.items() if n == last), seeds)
        notes.append(f"{last} is the end of {short}; others continue to {max(ends.values())}")
    if group.interpolated:
        notes.append("each run's accuracy is interpolated linearly between its numbers of labels")
    if not notes:
        return []
    n = len(group.n_labeled)
    where = f"at {n} numbers from {first} to {last}" if n > 1 else f"at {first} only"
    return [
        f"the runs have different numbers of labels: they are compared {where}; {'; '.join(notes)}"
    ]


def _warn_of_seeds(group: Group, baseline: str) -> list[str]:
    if baseline not in group.curves:
        return [f"there is no run of {baseline} to compare strategies with"]
    seeds = set().union(*group.curves.values())
    missing = {name: sorted(seeds - of_seed.keys()) for name, of_seed in group.curves.items()}
    lacking = [
        f"{name} lacks {plural(len(lost), 'seed')} {', '.join(map(str, lost))}"
        for name, lost in missing.items()
        if lost
    ]
    if not lacking:
        return []
    return [f"{'; '.join(lacking)}: strategies are compared only in the seeds that both have"]
