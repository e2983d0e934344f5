"""Whether a strategy beats random, by how much, and how sure that is. Imports no torch.

The unit of all statistics is the seed: runs of one seed share split, initial images, network
initialisation and training randomness, so that strategies are compared in pairs. The one measure
that the verdict rests on is the area under the learning curve; the final accuracy stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .errors import DataError
from .metrics import area_under_curve
from .results import Result, Setting, group_by_setting

Floats = NDArray[np.float64]
Curves = Mapping[str, Mapping[int, Floats]]
"""Accuracy at the common numbers of labels, by strategy and seed."""

ALPHA = 0.05
SHARES = (0.5, 0.75, 0.9, 1.0)
N_RESAMPLES = 9999
_ENDS = (100 * ALPHA / 2, 100 * (1 - ALPHA / 2))
_SEED = 0
_DECIMALS = 12
"""Differences in further ones are rounding errors, and would untie what is tied."""


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


@lru_cache(maxsize=8)
def _resamples(n: int) -> Floats:
    """Return the weights of `n` seeds in each bootstrap resample, shape (N_RESAMPLES, n)."""
    drawn = np.random.default_rng(_SEED).integers(0, n, (N_RESAMPLES, n))
    return np.stack([(drawn == seed).mean(axis=1) for seed in range(n)], axis=1)


def describe(values: ArrayLike) -> list[dict[str, Any]]:
    """Describe what several seeds came to.

    The interval is the percentile bootstrap's [1]_ of the mean, over seeds. It takes the seeds for
    all there is to know; of few it is too narrow.

    Parameters
    ----------
    values : array-like of float, shape (n_seeds,) or (n_seeds, n)
        One column for each number to be described.

    Returns
    -------
    list of dict
        For each column `mean`; `low` and `high`, the 95% interval; `sd`, the standard deviation.
        These are None for one seed, and the mean, too, for none.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani. An Introduction to the Bootstrap. Chapman & Hall, 1993,
       chapter 13.
    """
    rows = np.asarray(values, dtype=float)
    rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    means = rows.mean(axis=0).tolist() if len(rows) else [None] * rows.shape[1]
    if len(rows) < 2:
        return [{"mean": mean, "low": None, "high": None, "sd": None} for mean in means]
    low, high = np.percentile(_resamples(len(rows)) @ rows, _ENDS, axis=0)
    columns = (means, low.tolist(), high.tolist(), rows.std(axis=0, ddof=1).tolist())
    names = ("mean", "low", "high", "sd")
    return [dict(zip(names, column, strict=True)) for column in zip(*columns, strict=True)]


def paired_difference(values: ArrayLike, baseline: ArrayLike) -> dict[str, Any]:
    """Compare with a baseline, seed by seed.

    Parameters
    ----------
    values, baseline : array-like of float, shape (n_pairs,)
        Of the same seeds in the same order.

    Returns
    -------
    dict
        `mean`, `low` and `high` of the differences, see `describe`; `wins` and `losses`, in how
        many seeds they are above and below 0; `n_pairs`; `p`, see `signed_rank_test`, None without
        pairs.
    """
    differences = _differences(values, baseline)
    description = describe(differences)[0]
    return {
        **{name: description[name] for name in ("mean", "low", "high")},
        "wins": int((differences > 0).sum()),
        "losses": int((differences < 0).sum()),
        "n_pairs": len(differences),
        "p": signed_rank_test(differences) if len(differences) else None,
    }


def _differences(values: ArrayLike, baseline: ArrayLike) -> Floats:
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    rounded: Floats = np.round(differences, _DECIMALS)
    return rounded


def signed_rank_test(differences: ArrayLike) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test [1]_, exact with ties, too.

    If there were no difference, each would be as likely with the other sign. The distribution of
    the sum of positive ranks over all 2^n signs is computed, not sampled or approximated: of n
    ranks it is a convolution of n terms, and needs no enumeration. Zeros are left out, ties share
    their mean rank. Without either it is what `scipy.stats.wilcoxon` calls exact, which with them
    is not.

    Parameters
    ----------
    differences : array-like of float, shape (n,)

    Returns
    -------
    float
        1 if all are 0.

    References
    ----------
    .. [1] F. Wilcoxon. Individual Comparisons by Ranking Methods. Biometrics Bulletin 1(6), 1945.
    """
    found = np.round(np.asarray(differences, dtype=float), _DECIMALS)
    found = found[found != 0]
    # doubled, mean ranks are whole
    ranks = np.rint(2 * stats.rankdata(np.abs(found))).astype(int)
    chance = np.ones(1)
    for rank in ranks:
        none = np.zeros(rank)
        chance = (np.concatenate([chance, none]) + np.concatenate([none, chance])) / 2
    positive = int(ranks[found > 0].sum())
    tail = min(chance[: positive + 1].sum(), chance[positive:].sum())
    return float(min(1.0, 2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, by Holm's step-down method [1]_.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        In the same order. Calling significant what is at most 0.05 is wrong about one or more of
        them in at most 5 of 100 comparisons.

    References
    ----------
    .. [1] S. Holm. A Simple Sequentially Rejective Multiple Test Procedure. Scandinavian Journal
       of Statistics 6(2), 1979.
    """
    found = np.asarray(p_values, dtype=float)
    order = np.argsort(found, kind="stable")
    steps = (len(found) - np.arange(len(found))) * found[order]
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


def smallest_p(n_pairs: int) -> float:
    """Return the smallest p that `signed_rank_test` can reach: all signs are equal."""
    return min(1.0, 2 * 0.5**n_pairs)


def seeds_needed(n_strategies: int) -> int:
    """Return how many seeds it takes for any of so many strategies to differ significantly."""
    n_pairs = 1
    while n_strategies * smallest_p(n_pairs) > ALPHA:
        n_pairs += 1
    return n_pairs


def labels_to_reach(n_labeled: ArrayLike, accuracy: ArrayLike, target: float) -> float | None:
    """Return the number of labels with which a curve first reaches an accuracy.

    Parameters
    ----------
    n_labeled : array-like of float, shape (n_budgets,)
        Rising.
    accuracy : array-like of float, shape (n_budgets,)
        Taken for straight in between.
    target : float

    Returns
    -------
    float or None
        The first number of labels if it begins there or above, which is then an upper bound; None
        if it does not get there.
    """
    labels, curve = np.asarray(n_labeled, dtype=float), np.asarray(accuracy, dtype=float)
    return _number(_crossings(labels, curve[None], np.array([target]))[0])


def _crossings(labels: Floats, curves: Floats, targets: Floats) -> Floats:
    """Return where each curve first reaches its target, nan where it does not."""
    # equal means, summed in another order, may differ in their last digits
    reached = curves >= targets[:, None] - 10.0**-_DECIMALS
    after = reached.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(curves))
    low, high = curves[rows, before], curves[rows, after]
    rise = np.where(high > low, high - low, 1.0)
    way = np.where(after > before, np.clip((targets - low) / rise, 0, 1), 0.0)
    found = labels[before] + way * (labels[after] - labels[before])
    return np.where(reached.any(axis=1), found, np.nan)


def label_efficiency(
    n_labeled: ArrayLike, accuracy: ArrayLike, baseline: ArrayLike
) -> list[dict[str, Any]]:
    """Say how many labels are saved on the way to several accuracies.

    The targets lie at shares of the way from the first to the final accuracy of the baseline's mean
    curve, and are reached where the mean curves first do, see `labels_to_reach`. For the interval,
    seeds are resampled in pairs, and targets and crossings found anew each time. A resample in
    which the strategy does not reach the target counts as a ratio of 0, the least that it could be
    with more labels; how many do reach it is told.

    Parameters
    ----------
    n_labeled : array-like of int, shape (n_budgets,)
        Rising.
    accuracy, baseline : array-like of float, shape (n_pairs, n_budgets)
        Of the strategy and of the baseline in the same seeds.

    Returns
    -------
    list of dict
        One for each share: `target`, an accuracy; `share`; `labels` and `baseline_labels`, with
        which it is reached; `ratio`, the latter over the former, above 1 where labels are saved;
        `low` and `high`, its 95% interval, None for one seed; `reached`, the share of the resamples
        in which the strategy reaches it, None for one seed. Where it is not reached, `labels`,
        `ratio`, `low` and `high` are None. The list is empty if the baseline's accuracy does not
        rise.
    """
    labels = np.asarray(n_labeled, dtype=float)
    ours, theirs = np.asarray(accuracy, dtype=float), np.asarray(baseline, dtype=float)
    n_pairs = len(ours)
    if not n_pairs or _differences(theirs.mean(axis=0)[-1], theirs.mean(axis=0)[0]) <= 0:
        return []
    # the mean over all seeds is the first row, the resamples follow
    weights = np.full((1, n_pairs), 1 / n_pairs)
    if n_pairs > 1:
        weights = np.concatenate([weights, _resamples(n_pairs)])
    means, references = weights @ ours, weights @ theirs
    rows = []
    for share in SHARES:
        first, final = references[:, 0], references[:, -1]
        targets = final - (1 - share) * (final - first)
        needed = _crossings(labels, means, targets)
        reference = _crossings(labels, references, targets)
        ratio = reference / needed
        row = {
            "target": float(targets[0]),
            "share": share,
            "labels": _number(needed[0]),
            "baseline_labels": float(reference[0]),
            "ratio": _number(ratio[0]),
            "low": None,
            "high": None,
            "reached": None,
        }
        if n_pairs > 1:
            missed = np.isnan(ratio[1:])
            row["reached"] = float(1 - missed.mean())
            if row["ratio"] is not None:
                ends = np.percentile(np.where(missed, 0, ratio[1:]), _ENDS)
                row["low"], row["high"] = ends.tolist()
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def penalty_matrix(n_labeled: Sequence[int], curves: Curves) -> dict[str, Any] | None:
    """Count how often strategies beat each other, as in the paper on BADGE [1]_, section 5.

    Strategy i beats j at a number of labels if its accuracy is higher by a two-sided t-test, paired
    by seed, at the level 0.05; the penalty of j against i is the share of the numbers of labels
    where that is so. To count nearly the same twice as little as possible, they double: those of
    the rounds 1, 2, 4, 8 and so on after the initial one. Nothing is corrected for the number of
    tests: it is a picture, not a proof. If the difference is the same in all seeds and not 0, it
    counts as significant.

    Parameters
    ----------
    n_labeled : sequence of int
        Rising; the first are the initial ones.
    curves : mapping of str to mapping of int to ndarray, shape (n_budgets,)
        Accuracy by strategy and seed; two strategies are compared in the seeds that both have, and
        neither beats the other in fewer than two.

    Returns
    -------
    dict or None
        `strategies`; `budgets`, the numbers of labels; `matrix`, where row i, column j is how often
        i beats j, from 0 to 1: a good strategy has a low column; `n`, how many numbers of labels
        there are. None if there is nothing to count: no labels but the initial ones, or no two
        strategies with two seeds in common.

    References
    ----------
    .. [1] J. T. Ash, C. Zhang, A. Krishnamurthy, J. Langford and A. Agarwal. Deep Batch Active
       Learning by Diverse, Uncertain Gradient Lower Bounds. ICLR 2020.
    """
    rounds = [2**k for k in range(len(n_labeled).bit_length()) if 2**k < len(n_labeled)]
    matrix = np.zeros((len(curves), len(curves)))
    countable = False
    for i, ours in enumerate(curves.values()):
        for j, theirs in enumerate(curves.values()):
            seeds = sorted(ours.keys() & theirs.keys())
            if i != j and rounds and len(seeds) > 1:
                countable = True
                pairs = [_differences(ours[seed], theirs[seed])[rounds] for seed in seeds]
                matrix[i, j] = _above_zero(np.array(pairs)).mean()
    if not countable:
        return None
    return {
        "strategies": list(curves),
        "budgets": [n_labeled[k] for k in rounds],
        "matrix": matrix.tolist(),
        "n": len(rounds),
    }


def _above_zero(differences: Floats) -> NDArray[np.bool_]:
    """Tell of each column whether its mean is above 0 by a two-sided t-test."""
    n = len(differences)
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    # multiplied out, for the deviation may be 0
    above: NDArray[np.bool_] = math.sqrt(n) * differences.mean(axis=0) > critical * np.round(
        differences.std(axis=0, ddof=1), _DECIMALS
    )
    return above


def rank_strategies(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Rank strategies over several settings, with Friedman's test, as Demšar proposes [1]_.

    Parameters
    ----------
    values : mapping of str to sequence of float
        By strategy, one number for each setting; higher is better.

    Returns
    -------
    dict
        `mean_rank` by strategy, 1 for one that is always best, ties share theirs; `friedman_p`, for
        whether all are equally good: None for two strategies, for which there is no such test. It
        is that of the chi-squared approximation, rough for few settings, and takes the settings for
        independent, which several noise rates of one dataset are not.

    References
    ----------
    .. [1] J. Demšar. Statistical Comparisons of Classifiers over Multiple Data Sets. JMLR 7, 2006.
    """
    table = np.round(np.array(list(values.values()), dtype=float), _DECIMALS)
    mean_ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    p = None
    if len(table) > 2:
        # where all are tied, scipy divides 0 by 0
        tied = np.ptp(mean_ranks) < 10.0**-_DECIMALS
        p = 1.0 if tied else float(stats.friedmanchisquare(*table).pvalue)
    return {"mean_rank": dict(zip(values, mean_ranks.tolist(), strict=True)), "friedman_p": p}


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
