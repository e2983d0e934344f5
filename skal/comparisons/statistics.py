"""What is computed of learning curves that are paired by seed. No torch.

The unit of all statistics is the seed: runs of one seed share split, initial images, network
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
"""Differences in further ones are rounding errors, and would untie what is tied."""


@lru_cache(maxsize=8)
def resamples(n: int) -> Floats:
    """Return the weights of seeds in each bootstrap resample, shape (N_RESAMPLES, n)."""
    drawn = np.random.default_rng(SEED).integers(0, n, (N_RESAMPLES, n))
    return np.stack([(drawn == seed).mean(axis=1) for seed in range(n)], axis=1)


def describe(values: ArrayLike) -> list[dict[str, Any]]:
    """Describe each column of `values`, shape (n_seeds,) or (n_seeds, n): `mean`, `sd`, `lowest`,
    `highest`, and `low` and `high`, the 95% percentile bootstrap interval of the mean (Efron and
    Tibshirani, 1993, chapter 13). It is too narrow for few seeds: of normally distributed
    accuracies it covers the mean in 50% of cases for 2 seeds, 79% for 4, 85% for 6, 90% for 10 and
    93% for 20. Interval and `sd` are None for one seed, all are for none.
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
    """Compare with a baseline in the same seeds, shape (n_pairs,): the differences' entries of
    `describe` without `sd`, `wins` and `losses` in seeds, `n_pairs`, and `p` of `signed_rank_test`,
    None without pairs.
    """
    differences = paired_differences(values, baseline)
    description = describe(differences)[0]
    del description["sd"]
    return {
        # what is left of differences that cancel out is a rounding error; 0.0 for -0.0
        **{k: v if v is None else round(v, _DECIMALS) + 0.0 for k, v in description.items()},
        "wins": int((differences > 0).sum()),
        "losses": int((differences < 0).sum()),
        "n_pairs": len(differences),
        "p": signed_rank_test(differences) if len(differences) else None,
    }


def paired_differences(values: ArrayLike, baseline: ArrayLike) -> Floats:
    """Return differences with rounding errors set to 0."""
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    return np.asarray(np.round(differences, _DECIMALS))


def signed_rank_test(differences: ArrayLike) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test (1945), exact with ties and zeros, too,
    where `scipy.stats.wilcoxon` is not. Zeros are left out (p is 1 if all are) and ties share mean
    ranks; the null distribution over all 2^n signs is a convolution of n terms.
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
    """Correct p-values by Holm's step-down method (1979); the order stays. Of results at most 0.05,
    any is a false finding in at most 5% of such families.
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


def seeds_needed(n_differences: int) -> int:
    """Return how many seeds any of that many differences needs to be significant."""
    n_pairs = 1
    while n_differences * smallest_p(n_pairs) > ALPHA:
        n_pairs += 1
    return n_pairs


def crossings(labels: Floats, curves: Floats, targets: Floats) -> Floats:
    """Return the labels, shape (n_curves,), at which each curve, interpolated linearly, first
    reaches its target: NaN if never, and the first number of labels, an upper bound, if it starts
    there. `labels`, shape (n_budgets,), rise; `curves` have shape (n_curves, n_budgets).
    """
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
    n_labeled: ArrayLike,
    accuracy: ArrayLike,
    baseline: ArrayLike,
    resample: Callable[[int], Floats] = resamples,
) -> list[dict[str, Any]]:
    """Compare the labels that mean curves need, for targets at `SHARES` of the baseline's gain.
    `n_labeled`, shape (n_budgets,), rises; `accuracy` and `baseline` have shape (n_pairs,
    n_budgets). Each target has `share`, `target`, `labels`, `baseline_labels`, their `ratio` (above
    1 where labels are saved), its 95% interval `low` and `high` over resampled pairs, and
    `reached`, the share of resamples that reach the target; the others count as ratio 0. All but
    `share`, `target`, `baseline_labels` and `reached` are None if it is not reached, interval and
    `reached` for one seed; the list is empty if the baseline does not rise.
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
    """Return the penalty matrix of BADGE (Ash et al., ICLR 2020, section 5): row i, column j of
    `matrix` is the share of the `n` numbers of labels `budgets`, those of rounds 1, 2, 4, 8, ...,
    where i beats j in a two-sided paired t-test at 0.05, uncorrected, in at least two common seeds.
    None if there are only initial labels or no such seeds.
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
    """Tell of each column whether its mean is above 0 by a two-sided t-test."""
    n = len(differences)
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)
    # multiplied out, for the deviation may be 0
    deviation = np.round(differences.std(axis=0, ddof=1), _DECIMALS)
    return np.asarray(math.sqrt(n) * differences.mean(axis=0) > critical * deviation)


def rank_strategies(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return each strategy's `mean_rank` over settings (1 is best, ties share ranks) and Friedman's
    `friedman_p` (Demšar, JMLR 7, 2006), None for two strategies. It is the chi-squared
    approximation, rough for few settings, and assumes them to be independent.
    """
    table = np.round(np.array(list(values.values()), dtype=float), _DECIMALS)
    mean_ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    p = None
    if len(table) > 2:
        # where all are tied, scipy divides 0 by 0
        tied = np.ptp(mean_ranks) < 10.0**-_DECIMALS
        p = 1.0 if tied else float(stats.friedmanchisquare(*table).pvalue)
    return {"mean_rank": dict(zip(values, mean_ranks.tolist(), strict=True)), "friedman_p": p}
