"""Statistics of learning curves that are paired by seed. No torch.

The unit of all statistics is the seed: runs with the same seed share split, initial set, network
initialisation and training randomness, so that strategies are compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Curves = Mapping[str, Mapping[int, Floats]]
"""Accuracy at the common numbers of labels, by strategy and seed."""

ALPHA = 0.05
SHARES = (0.5, 0.75, 0.9, 1.0)
N_RESAMPLES = 9999
_ENDS = (100 * ALPHA / 2, 100 * (1 - ALPHA / 2))
SEED = 0
_DECIMALS = 12
"""Decimals that count; differences in further ones are rounding errors and would break ties."""


@lru_cache(maxsize=8)
def resamples(n: int) -> Floats:
    """Return the weight of each seed in each bootstrap resample, shape (N_RESAMPLES, n)."""
    drawn = np.random.default_rng(SEED).integers(0, n, (N_RESAMPLES, n))
    return np.stack([(drawn == seed).mean(axis=1) for seed in range(n)], axis=1)


def describe(values: ArrayLike) -> list[dict[str, Any]]:
    """Describe each column of `values`, shape (n_seeds,) or (n_seeds, n): `mean`, `sd`, `lowest`,
    `highest`, and `low` and `high`, the 95% percentile bootstrap interval of the mean (Efron and
    Tibshirani, 1993, chapter 13). The interval is too narrow with few seeds: for normally
    distributed accuracies it covers the mean in 50% of cases with 2 seeds, 79% with 4, 85% with 6,
    90% with 10 and 93% with 20. Interval and `sd` are None with one seed, all values without any.
    """
    rows = np.asarray(values, dtype=float)
    rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    unknown = [None] * rows.shape[1]
    found: dict[str, Sequence[float | None]] = dict.fromkeys(
        ("mean", "low", "high", "sd", "lowest", "highest"), unknown
    )
    if len(rows):
        found["mean"] = rows.mean(axis=0).tolist()
        found["lowest"], found["highest"] = rows.min(axis=0).tolist(), rows.max(axis=0).tolist()
    if len(rows) > 1:
        low, high = np.percentile(resamples(len(rows)) @ rows, _ENDS, axis=0)
        found["low"], found["high"] = low.tolist(), high.tolist()
        found["sd"] = rows.std(axis=0, ddof=1).tolist()
    columns = zip(*found.values(), strict=True)
    return [dict(zip(found, column, strict=True)) for column in columns]


def paired_difference(values: ArrayLike, baseline: ArrayLike) -> dict[str, Any]:
    """Compare values with a baseline's in the same seeds, both of shape (n_pairs,): return the
    differences' entries of `describe` except `sd`, the number of seeds with `wins` and `losses`,
    `n_pairs`, and `p` of `signed_rank_test`, None without pairs.
    """
    differences = paired_differences(values, baseline)
    description = describe(differences)[0]
    del description["sd"]
    return {
        # differences that cancel out leave a rounding error; + 0.0 turns -0.0 into 0.0
        **{k: v if v is None else round(v, _DECIMALS) + 0.0 for k, v in description.items()},
        "wins": int((differences > 0).sum()),
        "losses": int((differences < 0).sum()),
        "n_pairs": len(differences),
        "p": signed_rank_test(differences) if len(differences) else None,
    }


def paired_differences(values: ArrayLike, baseline: ArrayLike) -> Floats:
    """Return the differences, with rounding errors set to 0."""
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    return np.asarray(np.round(differences, _DECIMALS))


def signed_rank_test(differences: ArrayLike) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test (1945). Unlike `scipy.stats.wilcoxon`
    it is exact even with ties and zeros. Zeros are dropped (p is 1 if all are), ties share mean
    ranks, and the null distribution over all 2^n signs is a convolution of n terms.
    """
    found = np.round(np.asarray(differences, dtype=float), _DECIMALS)
    found = found[found != 0]
    # doubled mean ranks are integers
    ranks = np.rint(2 * stats.rankdata(np.abs(found))).astype(int)
    chance = np.ones(1)
    for rank in ranks:
        none = np.zeros(rank)
        chance = (np.concatenate([chance, none]) + np.concatenate([none, chance])) / 2
    positive = int(ranks[found > 0].sum())
    tail = min(chance[: positive + 1].sum(), chance[positive:].sum())
    return float(min(1.0, 2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down method (1979), in the given order. It bounds the
    family-wise error rate: rejecting at 0.05 makes any false finding in at most 5% of families.
    """
    found = np.asarray(p_values, dtype=float)
    order = np.argsort(found, kind="stable")
    steps = (len(found) - np.arange(len(found))) * found[order]
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


def smallest_p(n_pairs: int) -> float:
    """Return the smallest p that `signed_rank_test` can reach, with all signs equal."""
    return min(1.0, 2 * 0.5**n_pairs)


def seeds_needed(n_differences: int) -> int:
    """Return the number of seeds with which any of `n_differences` can be significant."""
    n_pairs = 1
    while n_differences * smallest_p(n_pairs) > ALPHA:
        n_pairs += 1
    return n_pairs


def crossings(labels: Floats, curves: Floats, targets: Floats) -> Floats:
    """Return the number of labels, shape (n_curves,), at which each linearly interpolated curve
    first reaches its target: NaN if never, and `labels[0]`, an upper bound, if it starts at or
    above it. `labels`, shape (n_budgets,), must increase; `curves` has shape (n_curves, n_budgets).
    """
    # the order of summation may change the last digits of equal means
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
    n_labeled: ArrayLike,
    accuracy: ArrayLike,
    baseline: ArrayLike,
    resample: Callable[[int], Floats] = resamples,
) -> list[dict[str, Any]]:
    """Compare the labels that mean curves need for targets at `SHARES` of the baseline's gain.
    `n_labeled`, shape (n_budgets,), must increase; `accuracy` and `baseline` have shape (n_pairs,
    n_budgets). Each target has `share`, `target`, `labels`, `baseline_labels`, their `ratio` (above
    1 if labels are saved), its 95% interval `low` and `high` over resampled pairs, and `reached`,
    the share of resamples that reach the target; the others count as ratio 0. If the target is not
    reached, `labels`, `ratio`, `low` and `high` are None; with one seed, `low`, `high` and
    `reached` are. The list is empty if the baseline's mean curve does not rise.
    """
    labels = np.asarray(n_labeled, dtype=float)
    ours, theirs = np.asarray(accuracy, dtype=float), np.asarray(baseline, dtype=float)
    n_pairs = len(ours)
    if not n_pairs or paired_differences(theirs.mean(axis=0)[-1], theirs.mean(axis=0)[0]) <= 0:
        return []
    # the mean over all seeds is the first row, the resamples follow
    weights = np.full((1, n_pairs), 1 / n_pairs)
    if n_pairs > 1:
        weights = np.concatenate([weights, resample(n_pairs)])
    means, references = weights @ ours, weights @ theirs
    rows = []
    for share in SHARES:
        first, final = references[:, 0], references[:, -1]
        targets = final - (1 - share) * (final - first)
        needed = crossings(labels, means, targets)
        reference = crossings(labels, references, targets)
        ratio = reference / needed
        missed = np.isnan(ratio)
        low = high = None
        if n_pairs > 1 and not missed[0]:
            low, high = np.percentile(np.where(missed, 0, ratio)[1:], _ENDS).tolist()
        row = {
            "target": float(targets[0]),
            "share": share,
            "labels": None if missed[0] else float(needed[0]),
            "baseline_labels": float(reference[0]),
            "ratio": None if missed[0] else float(ratio[0]),
            "low": low,
            "high": high,
            "reached": float(1 - missed[1:].mean()) if n_pairs > 1 else None,
        }
        rows.append(row)
    return rows


def penalty_matrix(n_labeled: Sequence[int], curves: Curves) -> dict[str, Any] | None:
    """Return the penalty matrix of BADGE (Ash et al., ICLR 2020, section 5). Row i, column j of
    `matrix` is the share of the `n` `budgets` (numbers of labels of rounds 1, 2, 4, 8, ...) at
    which i beats j in an uncorrected two-sided paired t-test at 0.05 over at least two common
    seeds. Return None without such rounds or seeds.
    """
    rounds = [2**k for k in range(len(n_labeled).bit_length()) if 2**k < len(n_labeled)]
    matrix = np.zeros((len(curves), len(curves)))
    countable = False
    for i, ours in enumerate(curves.values()):
        for j, theirs in enumerate(curves.values()):
            seeds = sorted(ours.keys() & theirs.keys())
            if i != j and rounds and len(seeds) > 1:
                countable = True
                pairs = [paired_differences(ours[seed], theirs[seed])[rounds] for seed in seeds]
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
    """Return for each column whether its mean is above 0 by a two-sided t-test."""
    n = len(differences)
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    # multiplied out, since the deviation may be 0
    deviation = np.round(differences.std(axis=0, ddof=1), _DECIMALS)
    return np.asarray(math.sqrt(n) * differences.mean(axis=0) > critical * deviation)


def rank_strategies(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return each strategy's `mean_rank` over settings (1 is best, ties share ranks) and the p of
    Friedman's test, `friedman_p` (Demšar, JMLR 7, 2006), None for two strategies. It uses the
    chi-squared approximation, rough for few settings, and assumes independent settings.
    """
    table = np.round(np.array(list(values.values()), dtype=float), _DECIMALS)
    mean_ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    p = None
    if len(table) > 2:
        # scipy divides 0 by 0 if all are tied
        tied = np.ptp(mean_ranks) < 10.0**-_DECIMALS
        p = 1.0 if tied else float(stats.friedmanchisquare(*table).pvalue)
    return {"mean_rank": dict(zip(values, mean_ranks.tolist(), strict=True)), "friedman_p": p}
