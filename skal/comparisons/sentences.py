"""Wording of the results of comparisons. No torch.

A `finding` is the outcome of a test: "better", "worse", "none" (no significant difference) or "too
few" (seeds to tell). A `difference` is what `statistics.paired_difference` returns.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core.text import counted, plural

FEWEST = 6
"""Minimum number of seeds for an interval; with fewer, the bootstrap's is much too narrow."""

_PARTS: Mapping[str, Callable[[Any], str]] = {
    "dataset": str,
    "model": str,
    "noise_rate": "noise {:.12g}".format,
    "label_noise": "label noise {:.12g}".format,
}

Difference = Mapping[str, Any]


def name_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name settings by the fields in which they differ, such as "lenet, noise 0.1"; a single one by
    dataset, model and any noise.
    """
    if len(settings) > 1:
        return name_differences(settings)
    return [", ".join(w(one[n]) for n, w in _PARTS.items() if one[n] != 0) for one in settings]


def name_differences(
    settings: Sequence[Mapping[str, Any]], without: Iterable[str] = ()
) -> list[str]:
    """Name each setting by the fields that differ, except those of `without`."""
    differing = [
        (field, word)
        for field, word in _PARTS.items()
        if field not in without and len({one[field] for one in settings}) > 1
    ]
    return [", ".join(word(one[field]) for field, word in differing) for one in settings]


def name_part(field: str, value: Any) -> str:
    """Name a field of a setting, such as "label noise 0.2"."""
    return _PARTS[field](value)


def spread(value: Mapping[str, Any], n_seeds: int) -> tuple[float, float]:
    """Return the ends of the 95% interval, or with fewer than `FEWEST` seeds of the range."""
    low, high = ("low", "high") if n_seeds >= FEWEST else ("lowest", "highest")
    return value[low], value[high]


def name_spread(n_seeds: int) -> str:
    return "95% interval" if n_seeds >= FEWEST else "range of the seeds"


def judge(name: str, other: str, finding: str) -> str:
    return {
        "better": f"{name} beats {other}",
        "worse": f"{name} is worse than {other}",
        "none": f"No significant difference between {name} and {other}",
        "too few": f"Too few seeds to tell whether {name} beats {other}",
    }[finding]


def judge_noise(name: str, noise: str, finding: str) -> str:
    return {
        "worse": f"{name} is worse with {noise}",
        "better": f"{name} is better with {noise}",
        "none": f"No significant effect of {noise} on {name}",
        "too few": f"Too few seeds to tell how {noise} affects {name}",
    }[finding]


def judge_end(name: str, finding: str, at_end: str, difference: Difference) -> str:
    """Describe the finding on final accuracy, if it differs from that on the area."""
    if at_end == finding:
        return ""
    if at_end == "none":
        return ", though not significantly in final accuracy"
    where = " over the whole curve" if finding == "none" else ""
    mean = difference["mean"]
    size = f"{_points(mean)} percentage points {_direction(mean)}"
    return f"{where}, but {name} ends {size}, in {_times(difference)}"


def describe_size(difference: Difference, finding: str, than: str = "") -> str:
    """Describe the size of a paired difference, its interval, and its direction by seed."""
    mean, n_pairs = difference["mean"], difference["n_pairs"]
    wins, losses = difference["wins"], difference["losses"]
    if not wins + losses:
        return f"the same in {_all_seeds(n_pairs)}"
    if not mean:
        of = counted(n_pairs, "seed")
        return f"the same on average, higher in {wins} and lower in {losses} of {of}"
    size = f"{_points(mean)} percentage points {_direction(mean)}{than}"
    if n_pairs == 1:
        return f"{size} in {_all_seeds(1)}"
    sure = "" if finding == "too few" else _interval(difference)
    return f"{size}{sure}, and {_direction(mean)} in {_times(difference)}"


def _interval(difference: Difference) -> str:
    if difference["n_pairs"] < FEWEST:
        return ""
    low, high = difference["low"], difference["high"]
    ends = [_points(end) for end in sorted((low, high), key=abs)]
    if low < 0 < high:
        ends = [f"{_points(low)} lower", f"{_points(high)} higher"]
    return f" (95% interval {' to '.join(ends)})"


def _times(difference: Difference) -> str:
    """Count the seeds in which a difference has the sign of its mean."""
    times = difference["losses" if difference["mean"] < 0 else "wins"]
    return f"{times} of {counted(difference['n_pairs'], 'seed')}"


def _all_seeds(n: int) -> str:
    return {1: "the one seed that both have", 2: "both seeds"}.get(n, f"all {n} seeds")


def _points(difference: float) -> str:
    points = 100 * abs(difference)
    if 0 < points < 0.01:
        return "less than 0.01"
    return f"{points:.1f}" if points >= 1 else f"{points:.2g}"


def _direction(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def describe_labels(labels: float, budgets: Sequence[int], measured: bool = True) -> str:
    """Describe a number of labels, such as "about 86 labels (between 80 and 90)". `measured` means
    that networks were trained at these `budgets`, not interpolated.
    """
    if labels <= budgets[0]:
        return f"at most {counted(budgets[0], 'label')}"
    after = bisect.bisect_left(budgets, labels)
    near = min(budgets[max(after - 1, 0) : after + 1], key=lambda n: abs(n - labels))
    if measured and abs(near - labels) < 1e-6:
        return counted(near, "label")
    between = f" (between {budgets[after - 1]} and {budgets[after]})" if measured else ""
    return f"about {labels:.0f} labels{between}"


def describe_efficiency(
    efficiency: Sequence[Mapping[str, Any]],
    baseline: str,
    budgets: Sequence[int],
    measured: bool = True,
) -> str:
    """Describe how many labels reach the baseline's final accuracy."""
    if len(budgets) == 1:
        return ""
    if not efficiency:
        return f"; {baseline} itself does not improve with more labels"
    final = efficiency[-1]
    target = f"{baseline}'s final accuracy of {final['target']:.1%}"
    if final["labels"] is None:
        return f"; it does not reach {target}"
    ours, theirs = (
        describe_labels(final[key], budgets, measured) for key in ("labels", "baseline_labels")
    )
    return f"; it reaches {target} with {ours}, {baseline} with {theirs.replace(' labels', '')}"


def list_runs(runs: Iterable[tuple[str, int]], seeds: Mapping[str, Sequence[int]]) -> str:
    """List runs, given as strategy and seed, for at most five strategies; seeds are left out if a
    strategy has all its `seeds` in the list.
    """
    meant: dict[str, list[int]] = {}
    for strategy, seed in runs:
        meant.setdefault(strategy, []).append(seed)
    named = [
        name
        if len(found) == len(seeds[name]) > 1
        else f"{name}, {plural(len(found), 'seed')} {', '.join(map(str, sorted(found)))}"
        for name, found in meant.items()
    ]
    more = f"; and {len(named) - 5} more strategies" if len(named) > 5 else ""
    return f"{'; '.join(named[:5])}{more}"
