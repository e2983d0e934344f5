"""How what was found in comparisons is put into words, and how much of it is shown. No torch."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

FEWEST = 6
"""Seeds, below which no interval is shown: of so few the bootstrap's is much too narrow."""

_PARTS: Mapping[str, Callable[[Any], str]] = {
    "dataset": str,
    "model": str,
    "noise_rate": "noise {:.12g}".format,
    "label_noise": "label noise {:.12g}".format,
}

Found = Mapping[str, Any]
"""What `skal.comparisons.statistics.paired_difference` returns."""


def name_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what each setting is, as briefly as the others allow.

    Parameters
    ----------
    settings : sequence of mappings
        With `dataset`, `model`, `noise_rate` and `label_noise`. What they all share is left out;
        of a single one dataset and model are named, and noise if there is some.

    Returns
    -------
    list of str
        One a setting, such as "lenet, noise 0.1".
    """
    if len(settings) > 1:
        return name_differences(settings)
    return [", ".join(w(one[n]) for n, w in _PARTS.items() if one[n] != 0) for one in settings]


def name_differences(
    settings: Sequence[Mapping[str, Any]], without: Iterable[str] = ()
) -> list[str]:
    """Say of each setting in what it differs from others, but for some fields."""
    told = [
        (field, word)
        for field, word in _PARTS.items()
        if field not in without and len({one[field] for one in settings}) > 1
    ]
    return [", ".join(word(one[field]) for field, word in told) for one in settings]


def name_part(field: str, value: Any) -> str:
    """Say what a field of a setting is, such as "label noise 0.2"."""
    return _PARTS[field](value)


def spread(value: Mapping[str, Any], n_seeds: int) -> tuple[float, float]:
    """Return the ends of what is shown around a mean.

    Parameters
    ----------
    value : mapping
        See `skal.comparisons.statistics.describe`.
    n_seeds : int
        How many seeds it describes; at least one.

    Returns
    -------
    low, high : float
        The 95% interval of the mean; of fewer than `FEWEST` seeds the lowest and the highest.
    """
    return (
        (value["low"], value["high"]) if n_seeds >= FEWEST else (value["lowest"], value["highest"])
    )


def name_spread(n_seeds: int) -> str:
    """Say what `spread` returns."""
    return "95% interval" if n_seeds >= FEWEST else "range of the seeds"


def plural(n: int, one: str, several: str | None = None) -> str:
    """Return the word that fits a number."""
    return one if n == 1 else several or f"{one}s"


def judge(name: str, other: str, outcome: str) -> str:
    """Say which of two is better.

    Parameters
    ----------
    name, other : str
        What they are called.
    outcome : {"better", "worse", "none", "too few"}
        What could be shown of `name`.
    """
    return {
        "better": f"{name} beats {other}",
        "worse": f"{name} is worse than {other}",
        "none": f"No difference between {name} and {other} could be shown",
        "too few": f"Too few seeds to tell whether {name} beats {other}",
    }[outcome]


def judge_end(name: str, outcome: str, at_end: str, found: Found) -> str:
    """Say what the final accuracy shows, where that is another story than the curve's.

    Parameters
    ----------
    name : str
        What is judged.
    outcome, at_end : {"better", "worse", "none", "too few"}
        What could be shown over the curve, and at its end.
    found : mapping
        The difference at the end.

    Returns
    -------
    str
        Empty, if it is the same story.
    """
    if at_end == outcome:
        return ""
    if at_end == "none":
        return ", though at the end no difference could be shown"
    where = " over the whole curve" if outcome == "none" else ""
    size = f"{_points(found['mean'])} percentage points {_direction(found['mean'])}"
    return f"{where}, but {name} ends {size}, in {_times(found)}"


def say_size(found: Found, outcome: str, than: str = "") -> str:
    """Say how large a paired difference of accuracies is, in how many seeds, and how sure.

    How sure it is, is left out where the outcome is that there are too few seeds to tell.
    """
    mean, n_pairs = found["mean"], found["n_pairs"]
    if not found["wins"] + found["losses"]:
        return f"the same in {_all_seeds(n_pairs)}"
    if not mean:
        return (
            f"the same on average, higher in {found['wins']} and lower in {found['losses']} of "
            f"{n_pairs} seeds"
        )
    size = f"{_points(mean)} percentage points {_direction(mean)}{than}"
    if n_pairs == 1:
        return f"{size} in {_all_seeds(1)}"
    sure = "" if outcome == "too few" else _interval(found)
    return f"{size}{sure}, and {_direction(mean)} in {_times(found)}"


def _interval(found: Found) -> str:
    if found["n_pairs"] < FEWEST:
        return ""
    low, high = found["low"], found["high"]
    ends = [_points(end) for end in sorted((low, high), key=abs)]
    if low < 0 < high:
        ends = [f"{_points(low)} lower", f"{_points(high)} higher"]
    return f" (likely between {' and '.join(ends)})"


def _times(found: Found) -> str:
    """Say in how many seeds a difference had the direction of its mean."""
    return f"{found['losses' if found['mean'] < 0 else 'wins']} of {found['n_pairs']} seeds"


def _all_seeds(n: int) -> str:
    return {1: "the one seed that both have", 2: "both seeds"}.get(n, f"all {n} seeds")


def _points(difference: float) -> str:
    points = 100 * abs(difference)
    if 0 < points < 0.01:
        return "less than 0.01"
    return f"{points:.1f}" if points >= 1 else f"{points:.2g}"


def _direction(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def say_labels(labels: float, budgets: Sequence[int], measured: bool = True) -> str:
    """Say with how many labels a curve first is high enough.

    Parameters
    ----------
    labels : float
        Where it crosses.
    budgets : sequence of int
        Where it is known, rising; in between it is taken for straight.
    measured : bool, default=True
        Whether networks were trained with just those numbers of labels.

    Returns
    -------
    str
        Such as "about 86 labels (between 80 and 100)".
    """
    if labels <= budgets[0]:
        return f"{budgets[0]} labels at most"
    after = bisect.bisect_left(budgets, labels)
    near = min(budgets[max(after - 1, 0) : after + 1], key=lambda n: abs(n - labels))
    if measured and abs(near - labels) < 1e-6:
        return f"{near} labels"
    between = f" (between {budgets[after - 1]} and {budgets[after]})" if measured else ""
    return f"about {labels:.0f} labels{between}"


def say_saved(
    efficiency: Sequence[Mapping[str, Any]],
    baseline: str,
    budgets: Sequence[int],
    measured: bool = True,
) -> str:
    """Say how many labels are saved on the way to the baseline's final accuracy."""
    if len(budgets) == 1:
        return ""
    if not efficiency:
        return f"; {baseline} itself does not get better with more labels"
    final = efficiency[-1]
    target = f"{baseline}'s final accuracy of {final['target']:.1%}"
    if final["labels"] is None:
        return f"; it does not reach {target}"
    ours, theirs = (
        say_labels(final[key], budgets, measured) for key in ("labels", "baseline_labels")
    )
    return f"; it reaches {target} with {ours}, {baseline} with {theirs.replace(' labels', '')}"


def say_runs(runs: Iterable[tuple[str, int]], seeds: Mapping[str, Sequence[int]]) -> str:
    """Name runs by strategy and seeds; of a strategy whose runs are all meant the name is enough.

    Parameters
    ----------
    runs : iterable of (str, int)
        Strategies and seeds.
    seeds : mapping of str to sequence of int
        All seeds of each strategy.

    Returns
    -------
    str
        At most five strategies by name.
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
