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
    """Return the weights of `n` seeds in each bootstrap resample, shape (N_RESAMPLES, n)."""
    drawn = np.random.default_rng(SEED).integers(0, n, (N_RESAMPLES, n))
    return np.stack([(drawn == seed).mean(axis=1) for seed in range(n)], axis=1)


def describe(values: ArrayLike) -> list[dict[str, Any]]:
    """Describe what several seeds came to.

    The interval is the percentile bootstrap's [1]_ of the mean, over seeds. It takes the seeds for
    all there is to know; of few it is too narrow: where accuracies are drawn from a normal
    distribution, it holds their mean in 50% of cases for 2 seeds, 79% for 4, 85% for 6, 90% for 10
    and 93% for 20; where that is skewed, in a few less.

    Parameters
    ----------
    values : array-like of float, shape (n_seeds,) or (n_seeds, n)

    Returns
    -------
    list of dict
        For each column `mean`; `low` and `high`, the 95% interval; `sd`, the standard deviation;
        `lowest` and `highest` of the seeds. Interval and deviation are None for one seed, and all
        are for none.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani. An Introduction to the Bootstrap. Chapman & Hall, 1993,
       chapter 13.
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
    """Compare with a baseline, seed by seed.

    Parameters
    ----------
    values, baseline : array-like of float, shape (n_pairs,)
        Of the same seeds in the same order.

    Returns
    -------
    dict
        `mean`, `low`, `high`, `lowest` and `highest` of the differences, see `describe`; `wins` and
        `losses`, in how many seeds they are above and below 0; `n_pairs`; `p`, see
        `signed_rank_test`, None without pairs.
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
    """Return differences in which what is a rounding error is 0."""
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    rounded: Floats = np.round(differences, _DECIMALS)
    return rounded


def signed_rank_test(differences: ArrayLike) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test [1]_, exact with ties, too.

    If there were no difference, each would be as likely with the other sign. The distribution of
    the sum of positive ranks over all 2^n signs is computed, not sampled or approximated: of n
    ranks it is a convolution of n terms, and needs no enumeration. Zeros are left out (of
    zeros alone p is 1), ties share their mean rank. Without either it is what
    `scipy.stats.wilcoxon` calls exact, which with them is not.

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
    """Correct p-values for their number, by Holm's step-down method [1]_; the order stays.

    Calling significant what is at most 0.05 is wrong about one or more of them in at most 5 of 100
    such families.

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


def seeds_needed(n_differences: int) -> int:
    """Return how many seeds it takes for any of so many differences to be significant."""
    n_pairs = 1
    while n_differences * smallest_p(n_pairs) > ALPHA:
        n_pairs += 1
    return n_pairs


def crossings(labels: Floats, curves: Floats, targets: Floats) -> Floats:
    """Return the number of labels, shape (n_curves,), with which each curve first has its target.

    Between the rising `labels`, shape (n_budgets,), the accuracies in `curves`, shape (n_curves,
    n_budgets), are interpolated linearly. For a curve that begins at its target or above it is the
    first number of labels, which is then an upper bound; NaN for one that does not get there.
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
    """Say how many labels are saved on the way to several accuracies.

    The targets lie at shares of the way from the first to the final accuracy of the baseline's mean
    curve, and are reached where the mean curves first do, see `crossings`. For the interval,
    seeds are resampled in pairs, and targets and crossings found anew each time. A resample in
    which the strategy does not reach the target counts as a ratio of 0, the least that it could be
    with more labels; how many do reach it is told.

    Parameters
    ----------
    n_labeled : array-like of int, shape (n_budgets,)
        Rising.
    accuracy, baseline : array-like of float, shape (n_pairs, n_budgets)
        Of the strategy and of the baseline in the same seeds.
    resample : callable
        See `resamples`.

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
        independent: datasets are, several models or noise rates on one are not.

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
