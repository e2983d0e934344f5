"""Statistics of comparisons, each against a computation of another kind."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from scipy import stats

import skal.statistics
from skal.config import RunConfig
from skal.errors import DataError, RunFolderError
from skal.results import Result
from skal.statistics import (
    N_RESAMPLES,
    SHARES,
    analyse,
    describe,
    holm,
    label_efficiency,
    labels_to_reach,
    paired_difference,
    penalty_matrix,
    rank_strategies,
    seeds_needed,
    signed_rank_test,
    smallest_p,
)

BUDGETS = (20, 40, 60, 80, 100)


def result(
    strategy: str,
    seed: int,
    accuracy: Iterable[float],
    budgets: Sequence[int] = BUDGETS,
    **settings: Any,
) -> Result:
    rows = [
        {"round": i, "n_labeled": n, "accuracy": value}
        for i, (n, value) in enumerate(zip(budgets, accuracy, strict=False))
    ]
    settings = {"model": "small-cnn", **settings}
    return Result(RunConfig(strategy=strategy, seed=seed, **settings), {}, rows)


def results(curves: Mapping[str, Mapping[int, Any]], **settings: Any) -> list[Result]:
    return [
        result(name, seed, curve, **settings)
        for name, of_seed in curves.items()
        for seed, curve in of_seed.items()
    ]


def drawn(
    gains: Mapping[str, float], n_seeds: int = 10, n_budgets: int = len(BUDGETS), noise: int = 0
) -> dict[str, dict[int, list[float]]]:
    """Return learning curves that rise from 0.5 towards 0.95, the faster the larger the gain."""
    curves: dict[str, dict[int, list[float]]] = {}
    for number, (name, gain) in enumerate(gains.items()):
        for seed in range(n_seeds):
            shared = np.random.default_rng([seed, noise]).normal(0, 0.01)
            own = np.random.default_rng([seed, noise, number]).normal(0, 0.004, n_budgets)
            own[0] = 0
            rise = 0.45 * (1 - np.exp(-0.4 * gain * np.arange(n_budgets)))
            curves.setdefault(name, {})[seed] = (0.5 + shared + rise + own).tolist()
    return curves


FOUR = drawn({"random": 1.0, "badge": 2.0, "margin": 1.0, "bald": 0.5})


def plain(value: Any) -> bool:
    """Tell whether a value is made of Python's own types, and its numbers are numbers."""
    if isinstance(value, dict):
        return all(type(key) is str and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(plain(item) for item in value)
    return type(value) in (str, int, bool, type(None)) or (
        type(value) is float and math.isfinite(value)
    )


def trapezoids(curve: Sequence[float], budgets: Sequence[int] = BUDGETS) -> float:
    area = sum(
        (budgets[i + 1] - budgets[i]) * (curve[i] + curve[i + 1]) / 2
        for i in range(len(budgets) - 1)
    )
    return area / (budgets[-1] - budgets[0])


def by_all_signs(differences: Sequence[float]) -> float:
    """Return the p of the signed-rank test from its definition, with exact fractions."""
    sizes = [Fraction(str(value)) for value in differences if value]
    ranks = [
        Fraction(
            sum(abs(other) < abs(size) for other in sizes) * 2
            + sum(abs(other) == abs(size) for other in sizes)
            + 1,
            2,
        )
        for size in sizes
    ]
    observed = sum((rank for rank, size in zip(ranks, sizes, strict=True) if size > 0), Fraction(0))
    sums = [
        sum((rank for rank, sign in zip(ranks, signs, strict=True) if sign), Fraction(0))
        for signs in itertools.product((False, True), repeat=len(ranks))
    ]
    tail = min(sum(s <= observed for s in sums), sum(s >= observed for s in sums))
    return min(1.0, 2 * tail / len(sums))


def crossing_by_small_steps(
    budgets: Sequence[float], curve: Sequence[float], target: float
) -> float:
    labels = np.linspace(budgets[0], budgets[-1], 1_000_001)
    return float(labels[np.argmax(np.interp(labels, budgets, curve) >= target)])


# intervals


@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap(n: int) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.02, (n, 3))
    for found, column in zip(describe(values), values.T, strict=True):
        expected = stats.bootstrap(
            (column,),
            np.mean,
            n_resamples=9999,
            method="percentile",
            rng=np.random.default_rng(skal.statistics._SEED),
        )
        assert found["low"] == pytest.approx(expected.confidence_interval.low, abs=1e-12)
        assert found["high"] == pytest.approx(expected.confidence_interval.high, abs=1e-12)
        assert found["mean"] == pytest.approx(fmean(column))
        assert found["sd"] == pytest.approx(stdev(column))


def test_the_interval_is_near_that_of_all_possible_resamples() -> None:
    values = [0.1, 0.25, 0.3, 0.55, 0.9, 0.97]
    means = [fmean(resample) for resample in itertools.product(values, repeat=6)]
    low, high = np.percentile(means, [2.5, 97.5])
    found = describe(values)[0]
    assert found["low"] == pytest.approx(low, abs=0.01)
    assert found["high"] == pytest.approx(high, abs=0.01)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert describe([0.7]) == [{"mean": 0.7, "low": None, "high": None, "sd": None}]


def test_no_seed_has_nothing() -> None:
    assert describe([]) == [{"mean": None, "low": None, "high": None, "sd": None}]


def test_equal_seeds_have_an_interval_of_no_width() -> None:
    found = describe([0.75] * 4)[0]
    assert [found[name] for name in ("mean", "low", "high", "sd")] == [0.75, 0.75, 0.75, 0]


def test_differences_are_those_of_the_pairs_and_not_of_the_means() -> None:
    # the seeds differ much more than the strategies
    baseline = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    differences = [0.01, 0.02, 0.03, -0.01, 0.0, 0.02]
    found = paired_difference(np.add(baseline, differences), baseline)
    assert found["mean"] == pytest.approx(0.07 / 6)
    expected = describe(differences)[0]
    assert (found["low"], found["high"]) == pytest.approx((expected["low"], expected["high"]))
    assert found["high"] - found["low"] < 0.025
    assert (found["wins"], found["losses"], found["n_pairs"]) == (4, 1, 6)
    assert found["p"] == by_all_signs(differences)


def test_without_pairs_nothing_is_known_of_the_difference() -> None:
    found = paired_difference([], [])
    assert found == {
        "mean": None,
        "low": None,
        "high": None,
        "wins": 0,
        "losses": 0,
        "n_pairs": 0,
        "p": None,
    }


def test_a_rounding_error_is_no_difference() -> None:
    found = paired_difference([0.3, 0.3], [0.1 + 0.2, 0.1 + 0.2])
    assert (found["wins"], found["losses"], found["p"]) == (0, 0, 1)
    assert {str(found[name]) for name in ("mean", "low", "high")} == {"0.0"}


# the signed-rank test


@pytest.mark.parametrize("n", [1, 2, 5, 10, 30])
def test_p_without_ties_is_scipys_exact_one(n: int) -> None:
    for seed in range(5):
        differences = np.random.default_rng([n, seed]).normal(0.3, 1, n)
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert signed_rank_test(differences) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
        [0.1, 0.1, -0.1, 0.2, 0.2, 0.3, 0.1],
        [0.1, 0.0, 0.0, 0.2, -0.1],
        [-0.1, -0.2, -0.2, -0.3, 0.1, -0.5, -0.5, 0.0],
        [0.1, -0.1],
        [0.0, 0.3],
        [0.01, 0.02, 0.02, 0.03, -0.03, 0.04, 0.04, 0.04, 0.05, -0.01],
    ],
)
def test_p_with_ties_and_zeros_is_that_of_all_signs(differences: list[float]) -> None:
    assert signed_rank_test(differences) == pytest.approx(by_all_signs(differences), rel=1e-12)
    if any(differences):
        method = stats.PermutationMethod(n_resamples=np.inf)
        expected = stats.wilcoxon(differences, method=method).pvalue
        assert signed_rank_test(differences) == pytest.approx(expected, rel=1e-9)


def test_p_is_the_same_for_the_opposite_differences() -> None:
    differences = np.array([0.3, 0.1, 0.1, -0.2, 0.25, 0.4])
    assert signed_rank_test(differences) == signed_rank_test(-differences)


def test_p_of_no_difference_at_all_is_one() -> None:
    assert signed_rank_test([0.0, 0.0, 0.0]) == 1


def test_ties_are_seen_through_rounding_errors() -> None:
    tied = [0.93 - 0.91, 0.95 - 0.93, 0.5 - 0.52, 0.1 + 0.2 - 0.3, 0.9 - 0.85]
    assert len(set(tied[:2])) == 2  # a rounding error apart
    assert signed_rank_test(tied) == by_all_signs([0.02, 0.02, -0.02, 0.0, 0.05])


def test_p_of_many_pairs_is_near_the_approximation_for_large_samples() -> None:
    differences = np.round(np.random.default_rng(0).normal(0.1, 1, 200), 1)
    expected = stats.wilcoxon(differences, method="asymptotic", correction=True).pvalue
    assert signed_rank_test(differences) == pytest.approx(expected, rel=0.01)


def test_the_smallest_p_is_that_of_equal_signs() -> None:
    for n in range(1, 9):
        assert smallest_p(n) == signed_rank_test(np.arange(1, n + 1)) == 2 / 2**n
    assert smallest_p(0) == 1


def test_five_seeds_are_never_enough_and_more_strategies_need_more() -> None:
    # by hand: 2/32 = 0.0625 and 2/64 = 0.031; 3 x 2/128 = 0.047; 4 x 2/256 = 0.031
    assert [seeds_needed(k) for k in (1, 2, 3, 4, 6, 7)] == [6, 7, 7, 8, 8, 9]


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.2 times 4, 3, 2, 1, and never below the one before
    assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    assert holm([0.5, 0.6, 0.7]) == [1, 1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_calls_significant_what_its_steps_do() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = (rng.random(rng.integers(1, 7)) ** 3 / 4).tolist()
        rejected = set()
        for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[i] > 0.05 / (len(p) - step):
                break
            rejected.add(i)
        assert {i for i, value in enumerate(holm(p)) if value <= 0.05} == rejected


# labels


def test_labels_to_reach_by_hand() -> None:
    budgets, curve = [20, 40, 80], [0.5, 0.7, 0.9]
    assert labels_to_reach(budgets, curve, 0.6) == pytest.approx(30)
    assert labels_to_reach(budgets, curve, 0.7) == pytest.approx(40)
    assert labels_to_reach(budgets, curve, 0.85) == pytest.approx(70)
    assert labels_to_reach(budgets, curve, 0.9) == 80
    assert labels_to_reach(budgets, curve, 0.9001) is None


def test_a_curve_that_begins_above_the_target_reached_it_with_its_first_labels() -> None:
    assert labels_to_reach([20, 40], [0.5, 0.7], 0.4) == 20
    assert labels_to_reach([20, 40], [0.5, 0.7], 0.5) == 20
    assert labels_to_reach([20], [0.5], 0.4) == 20
    assert labels_to_reach([20], [0.5], 0.6) is None


def test_the_first_of_several_crossings_counts() -> None:
    assert labels_to_reach([20, 40, 60, 80], [0.5, 0.8, 0.6, 0.9], 0.7) == pytest.approx(
        20 + 20 * 2 / 3
    )
    assert labels_to_reach([20, 40, 60], [0.6, 0.5, 0.7], 0.65) == pytest.approx(55)


def test_a_flat_curve_is_crossed_where_it_first_is_high_enough() -> None:
    assert labels_to_reach([20, 40, 60, 80], [0.5, 0.7, 0.7, 0.7], 0.7) == 40


@pytest.mark.parametrize("seed", range(5))
def test_labels_to_reach_is_where_small_steps_get_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    budgets = np.cumsum(rng.integers(5, 50, 8))
    curve = np.sort(rng.random(8)) + rng.normal(0, 0.05, 8)
    target = float(rng.uniform(curve[0], curve.max()))
    found = labels_to_reach(budgets, curve, target)
    assert found == pytest.approx(crossing_by_small_steps(budgets, curve, target), abs=0.01)


def test_efficiency_by_hand() -> None:
    baseline = [[0.5, 0.6, 0.7, 0.8, 0.9]]  # 0.1 every 20 labels, from 20 on
    strategy = [[0.5, 0.7, 0.9, 0.9, 0.9]]  # twice as fast
    rows = label_efficiency(BUDGETS, strategy, baseline)
    assert [row["share"] for row in rows] == list(SHARES) == [0.5, 0.75, 0.9, 1.0]
    assert [row["target"] for row in rows] == pytest.approx([0.7, 0.8, 0.86, 0.9])
    assert [row["baseline_labels"] for row in rows] == pytest.approx([60, 80, 92, 100])
    assert [row["labels"] for row in rows] == pytest.approx([40, 50, 56, 60])
    assert [row["ratio"] for row in rows] == pytest.approx([60 / 40, 80 / 50, 92 / 56, 100 / 60])
    assert all(row[name] is None for row in rows for name in ("low", "high", "reached"))


def test_a_target_that_is_not_reached_has_no_ratio() -> None:
    baseline = [[0.5, 0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7, 0.8, 0.9]]
    strategy = [[0.5, 0.55, 0.6, 0.65, 0.72], [0.5, 0.55, 0.6, 0.65, 0.72]]
    half, *others = label_efficiency(BUDGETS, strategy, baseline)
    assert half["ratio"] == pytest.approx(60 / (80 + 20 * 5 / 7))
    assert half["low"] == pytest.approx(half["ratio"]) == pytest.approx(half["high"])
    assert half["reached"] == 1
    for row in others:
        assert [row[name] for name in ("labels", "ratio", "low", "high")] == [None] * 4
        assert row["reached"] == 0
    assert [row["baseline_labels"] for row in others] == pytest.approx([80, 92, 100])


def test_the_baselines_final_accuracy_may_be_reached_by_it_before_the_end() -> None:
    baseline = [[0.5, 0.7, 0.9, 0.85, 0.8]]
    final = label_efficiency(BUDGETS, baseline, baseline)[-1]
    assert final["target"] == 0.8
    assert final["baseline_labels"] == final["labels"] == pytest.approx(50)


def test_identical_curves_save_nothing() -> None:
    curves = np.array(list(FOUR["margin"].values()))
    for row in label_efficiency(BUDGETS, curves, curves):
        assert (row["ratio"], row["low"], row["high"], row["reached"]) == (1, 1, 1, 1)


def test_an_equal_mean_is_reached_whatever_the_order_of_its_sum() -> None:
    target = 0.1 + 0.2 + 0.3
    assert target > 0.3 + 0.2 + 0.1
    assert labels_to_reach([20, 40, 60], [0.5, 0.3 + 0.2 + 0.1, 0.9], target) == 40


def test_where_the_baseline_does_not_rise_there_is_no_way_to_share() -> None:
    flat, falling = [[0.5] * 5] * 3, [[0.5, 0.6, 0.4, 0.4, 0.4]] * 3
    rising = [[0.5, 0.6, 0.7, 0.8, 0.9]] * 3
    assert label_efficiency(BUDGETS, rising, flat) == []
    assert label_efficiency(BUDGETS, rising, falling) == []
    assert label_efficiency([20], [[0.5]], [[0.5]]) == []
    assert label_efficiency([20, 40], np.empty((0, 2)), np.empty((0, 2))) == []


def test_the_interval_of_the_efficiency_resamples_pairs_of_seeds() -> None:
    ours, theirs = (np.array(list(FOUR[name].values())) for name in ("margin", "random"))
    draws = np.random.default_rng(skal.statistics._SEED).integers(0, 10, (N_RESAMPLES, 10))[:500]
    some = np.stack([(draws == seed).mean(axis=1) for seed in range(10)], axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skal.statistics, "_resamples", lambda n: some)
        found = label_efficiency(BUDGETS, ours, theirs)[-1]
    ratios, reached = [], 0
    for draw in draws:
        one = [fmean(ours[i][k] for i in draw) for k in range(5)]
        other = [fmean(theirs[i][k] for i in draw) for k in range(5)]
        needed = labels_to_reach(BUDGETS, one, other[-1])
        reference = labels_to_reach(BUDGETS, other, other[-1])
        assert reference is not None
        reached += needed is not None
        ratios.append(0 if needed is None else reference / needed)
    assert 0 < reached < 500  # margin is as good as random here
    assert found["reached"] == pytest.approx(reached / 500)
    assert found["low"] == pytest.approx(np.percentile(ratios, 2.5))
    assert found["high"] == pytest.approx(np.percentile(ratios, 97.5))


def test_resamples_that_miss_the_target_take_the_interval_down_to_zero() -> None:
    rng = np.random.default_rng(1)
    baseline = np.tile([0.5, 0.6, 0.7, 0.8, 0.9], (8, 1))
    strategy = baseline + np.array([0, 0.02, 0.02, 0.02, 0.001]) + rng.normal(0, 0.01, (8, 1))
    final = label_efficiency(BUDGETS, strategy, baseline)[-1]
    assert final["ratio"] is not None
    assert 0.5 < final["reached"] < 0.9
    assert final["low"] == 0
    assert final["high"] > final["ratio"] > 1


# the penalty matrix


def test_five_seeds_beat_at_a_t_of_2_776_as_in_the_paper() -> None:
    for t, beaten in ((2.77, 0.0), (2.78, 1.0)):
        noise = np.array([-2.0, -1, 0, 1, 2])
        differences = 0.01 * (noise + t * stdev(noise.tolist()) / math.sqrt(5))
        curves = {
            "one": {seed: np.array([0.5, 0.6 + differences[seed]]) for seed in range(5)},
            "other": {seed: np.array([0.5, 0.6]) for seed in range(5)},
        }
        found = penalty_matrix([20, 40], curves)
        assert found is not None
        assert found["matrix"] == [[0, beaten], [0, 0]]


def test_the_penalty_is_that_of_scipys_paired_t_test_at_doubling_rounds() -> None:
    curves = {
        name: {seed: np.array(curve) for seed, curve in of_seed.items()}
        for name, of_seed in drawn(
            {"random": 1.0, "badge": 1.03, "margin": 1.05, "bald": 0.97}, n_budgets=12
        ).items()
    }
    budgets = list(range(20, 260, 20))
    found = penalty_matrix(budgets, curves)
    assert found is not None
    assert found["strategies"] == ["random", "badge", "margin", "bald"]
    assert found["budgets"] == [40, 60, 100, 180]  # after 1, 2, 4 and 8 rounds of 20
    assert found["n"] == 4
    expected = np.zeros((4, 4))
    for i, j in itertools.permutations(range(4), 2):
        ours, theirs = (np.array(list(list(curves.values())[k].values())) for k in (i, j))
        for budget in found["budgets"]:
            k = budgets.index(budget)
            test = stats.ttest_rel(ours[:, k], theirs[:, k])
            expected[i, j] += (test.pvalue < 0.05 and test.statistic > 0) / 4
    assert found["matrix"] == expected.tolist()
    assert len(set(expected.flat)) > 2  # neither all nor nothing


def test_the_same_difference_in_all_seeds_beats_and_none_does_not() -> None:
    of_seed = {seed: np.array([0.5, 0.1 * seed]) for seed in range(3)}
    curves = {
        "low": of_seed,
        "same": of_seed,
        "high": {seed: curve + 0.01 for seed, curve in of_seed.items()},
    }
    found = penalty_matrix([20, 40], curves)
    assert found is not None
    assert found["matrix"] == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("n_budgets", "rounds"),
    [(2, [1]), (3, [1, 2]), (4, [1, 2]), (5, [1, 2, 4]), (8, [1, 2, 4]), (9, [1, 2, 4, 8])],
)
def test_rounds_that_count_double(n_budgets: int, rounds: list[int]) -> None:
    budgets = [10 * (k + 1) for k in range(n_budgets)]
    curves = {name: {s: np.zeros(n_budgets) for s in range(2)} for name in "ab"}
    found = penalty_matrix(budgets, curves)
    assert found is not None
    assert found["budgets"] == [budgets[k] for k in rounds]


def test_without_pairs_or_rounds_there_is_no_penalty_matrix() -> None:
    curve = np.array([0.5, 0.6])
    assert penalty_matrix([20, 40], {"a": {0: curve}, "b": {0: curve}}) is None
    assert penalty_matrix([20, 40], {"a": {0: curve, 1: curve}}) is None
    assert penalty_matrix([20, 40], {"a": {0: curve, 1: curve}, "b": {2: curve, 3: curve}}) is None
    assert penalty_matrix([20], {"a": {0: curve, 1: curve}, "b": {0: curve, 1: curve}}) is None


# ranks


def test_ranks_by_hand() -> None:
    values = {"a": [0.9, 0.8, 0.7], "b": [0.8, 0.8, 0.9], "c": [0.7, 0.6, 0.5]}
    found = rank_strategies(values)
    # 1, 1.5, 2; 2, 1.5, 1; 3, 3, 3
    assert found["mean_rank"] == pytest.approx({"a": 1.5, "b": 1.5, "c": 3})
    assert found["friedman_p"] == pytest.approx(stats.friedmanchisquare(*values.values()).pvalue)


def test_a_rounding_error_makes_no_rank() -> None:
    found = rank_strategies({"a": [0.3, 0.4], "b": [0.1 + 0.2, 0.4]})
    assert found["mean_rank"] == {"a": 1.5, "b": 1.5}


def test_friedmans_p_without_ties_is_that_of_its_formula() -> None:
    table = np.random.default_rng(3).random((4, 6))  # strategies by settings
    found = rank_strategies({f"s{i}": row.tolist() for i, row in enumerate(table)})
    ranks = [[sum(column >= value) for value in column] for column in table.T]
    means = np.mean(ranks, axis=0)
    k, n = table.shape
    statistic = 12 * n / (k * (k + 1)) * (sum(means**2) - k * (k + 1) ** 2 / 4)
    assert list(found["mean_rank"].values()) == pytest.approx(means.tolist())
    assert found["friedman_p"] == pytest.approx(stats.chi2.sf(statistic, k - 1))


def test_strategies_that_are_all_tied_differ_with_p_of_one() -> None:
    assert rank_strategies({name: [0.5, 0.6] for name in "abc"}) == {
        "mean_rank": {"a": 2, "b": 2, "c": 2},
        "friedman_p": 1,
    }


def test_two_strategies_have_ranks_and_no_friedman_test() -> None:
    found = rank_strategies({"a": [0.5, 0.6], "b": [0.4, 0.7]})
    assert found == {"mean_rank": {"a": 1.5, "b": 1.5}, "friedman_p": None}


# all together


def test_the_numbers_of_a_comparison_are_those_of_its_runs() -> None:
    found = analyse(results(FOUR))
    assert found["baseline"] == "random"
    assert found["ranks"] is None
    assert list(found["strategies"]) == ["random", "badge", "margin", "bald"]
    areas = {name: [trapezoids(c) for c in of_seed.values()] for name, of_seed in FOUR.items()}
    for name, entry in found["strategies"].items():
        curves = list(FOUR[name].values())
        assert entry["strategy"] == name
        assert (entry["dataset"], entry["model"]) == ("digits", "small-cnn")
        assert (entry["noise_rate"], entry["label_noise"]) == (0, 0)
        assert entry["seeds"] == list(range(10))
        assert entry["n_seeds"] == 10
        assert [point["n_labeled"] for point in entry["curve"]] == list(BUDGETS)
        for k, point in enumerate(entry["curve"]):
            expected = describe([curve[k] for curve in curves])[0]
            assert point.keys() - expected.keys() == {"n_labeled"}
            for key, value in expected.items():
                assert point[key] == pytest.approx(value, abs=1e-12)
            assert point["mean"] == pytest.approx(fmean(curve[k] for curve in curves))
        assert entry["aulc"]["mean"] == pytest.approx(fmean(areas[name]))
        assert entry["aulc"]["sd"] == pytest.approx(stdev(areas[name]))
        assert entry["accuracy"]["mean"] == pytest.approx(fmean(curve[-1] for curve in curves))
    others = ["badge", "margin", "bald"]
    measures = {
        "aulc": areas,
        "accuracy": {name: [c[-1] for c in of_seed.values()] for name, of_seed in FOUR.items()},
    }
    for measure, values in measures.items():
        entries = [found["strategies"][name]["difference"][measure] for name in others]
        p_values = []
        for name, entry in zip(others, entries, strict=True):
            pairs = np.subtract(values[name], values["random"])
            p_values.append(stats.wilcoxon(pairs, method="exact").pvalue)
            assert entry["mean"] == pytest.approx(fmean(pairs))
            assert entry["p"] == pytest.approx(p_values[-1])
            assert entry["wins"] == sum(pairs > 0)
            assert entry["losses"] == sum(pairs < 0)
            assert entry["n_pairs"] == 10
            assert entry["low"] < entry["mean"] < entry["high"]
        assert [entry["p_holm"] for entry in entries] == pytest.approx(holm(p_values))
    assert found["strategies"]["random"]["difference"] is None
    assert found["strategies"]["random"]["efficiency"] is None
    efficiency = found["strategies"]["badge"]["efficiency"]
    curves = [np.array(list(FOUR[name].values())) for name in ("badge", "random")]
    assert efficiency == label_efficiency(BUDGETS, *curves)
    (group,) = found["groups"]
    assert group["strategies"] == {name: name for name in FOUR}
    assert group["n_labeled"] == list(BUDGETS)
    assert group["seeds"] == list(range(10))
    assert group["warnings"] == []
    assert group["penalty"]["matrix"][1][0] == 1
    assert group["penalty"]["budgets"] == [40, 60, 100]


COMPARISONS: dict[str, list[Result]] = {
    "four strategies": results(FOUR),
    "one seed": results(drawn({"random": 1.0, "badge": 2.0}, 1)),
    "two seeds": results(drawn({"random": 1.0, "badge": 2.0}, 2)),
    "no baseline": results(drawn({"margin": 1.0, "badge": 2.0}, 3)),
    "the baseline alone": results(drawn({"random": 1.0}, 3)),
    "one round": results(drawn({"random": 1.0, "badge": 2.0}, 8, 1)),
    "no seed in common": [
        *results({"random": {0: FOUR["random"][0]}}),
        *results({"badge": {1: FOUR["badge"][1]}}),
    ],
    "identical": results(dict.fromkeys(("random", "margin", "badge"), FOUR["random"])),
    "several settings": [
        *results(drawn({"random": 1.0, "badge": 2.0, "bald": 1.0}), dataset="digits"),
        *results(drawn({"random": 1.0, "badge": 2.0, "bald": 1.0}, 3), dataset="mnist"),
    ],
    "nothing": [],
}


@pytest.mark.parametrize("runs", COMPARISONS.values(), ids=COMPARISONS)
def test_the_answer_is_plain_json_without_nan_and_always_the_same(runs: list[Result]) -> None:
    found = analyse(runs)
    assert plain(found)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    skal.statistics._resamples.cache_clear()
    assert json.dumps(analyse(runs), allow_nan=False) == text


def test_the_order_of_the_runs_does_not_change_a_number() -> None:
    runs = results(FOUR)
    found, other = analyse(runs), analyse(runs[::-1])
    assert found["strategies"] == other["strategies"]
    others = [name for name in list(FOUR)[::-1] if name != "random"]
    assert list(other["strategies"]) == ["random", *others]  # the baseline comes first


def test_one_seed_gives_means_and_no_intervals() -> None:
    found = analyse(COMPARISONS["one seed"])
    badge = found["strategies"]["badge"]
    assert badge["aulc"] == {
        "mean": badge["aulc"]["mean"],
        "low": None,
        "high": None,
        "sd": None,
    }
    difference = badge["difference"]["aulc"]
    assert (difference["low"], difference["high"], difference["p_holm"]) == (None, None, 1)
    assert badge["efficiency"][-1]["ratio"] > 1.2
    assert badge["efficiency"][-1]["low"] is None
    assert found["groups"][0]["penalty"] is None
    assert badge["verdict"].startswith("Too few seeds to tell whether badge beats random: ")
    assert "percentage points higher in the one seed that both have; " in badge["verdict"]


def test_a_comparison_without_rounds_compares_the_initial_accuracies() -> None:
    found = analyse(COMPARISONS["one round"])
    badge = found["strategies"]["badge"]
    assert badge["aulc"] == badge["accuracy"]
    assert badge["efficiency"] == []
    assert found["groups"][0]["penalty"] is None
    assert badge["verdict"] == (
        "No difference between badge and random could be shown: with 20 labels its accuracy is the "
        "same in all 8 seeds."
    )


# verdicts and warnings


def steady(difference: float, n_seeds: int, final: float = 0.9) -> list[Result]:
    """Return runs of random and badge, whose accuracies after the start differ all the same."""
    slow = [0.5, 0.6, 0.7, 0.8, final]
    fast = [0.5, *(value + difference for value in slow[1:])]
    return results(
        {
            "random": dict.fromkeys(range(n_seeds), slow),
            "badge": dict.fromkeys(range(n_seeds), fast),
        }
    )


def test_the_verdict_on_what_is_better() -> None:
    # by hand: 3 points at all budgets but the first are 3 - 3/8 on average over the curve; at 80
    # labels it is at 0.83, at 100 at 0.93
    found = analyse(steady(0.03, 8))
    assert found["strategies"]["badge"]["verdict"] == (
        "badge beats random: on average over its curve its accuracy is 2.6 percentage points "
        "higher (likely between 2.6 and 2.6), and higher in 8 of 8 seeds; it reaches random's "
        "final accuracy of 90.0% with 94 labels, random with 100."
    )
    assert found["strategies"]["random"]["verdict"] == (
        "random is what the others are compared with: it ends at an accuracy of 90.0% with 100 "
        "labels."
    )


def test_the_verdict_on_what_is_worse() -> None:
    assert analyse(steady(-0.03, 8))["strategies"]["badge"]["verdict"] == (
        "badge is worse than random: on average over its curve its accuracy is 2.6 percentage "
        "points lower (likely between 2.6 and 2.6), and lower in 8 of 8 seeds; it does not reach "
        "random's final accuracy of 90.0%."
    )


def test_the_verdict_on_what_is_neither() -> None:
    runs = results(drawn({"random": 1.0, "margin": 1.0}, noise=3))
    entry = analyse(runs)["strategies"]["margin"]
    difference = entry["difference"]["aulc"]
    assert difference["p_holm"] > 0.05
    assert difference["low"] < 0 < difference["high"]
    assert entry["verdict"].startswith("No difference between margin and random could be shown: ")
    low, high = -100 * difference["low"], 100 * difference["high"]
    assert f"(likely between {low:.2g} lower and {high:.2g} higher)" in entry["verdict"]


@pytest.mark.parametrize(
    ("lost", "p", "words"), [(3, 0.0390625, "odd beats random"), (4, 0.0546875, "No difference")]
)
def test_the_line_is_drawn_at_the_level_of_the_test(lost: int, p: float, words: str) -> None:
    # by hand: of 256 choices of signs 5 have negative ranks that sum to 3 or less, 7 to 4 or less
    ends = [0.6 + 0.01 * rank * (-1 if rank == lost else 1) for rank in range(1, 9)]
    curves = {
        "random": dict.fromkeys(range(8), (0.5, 0.6)),
        "odd": {seed: [0.5, end] for seed, end in enumerate(ends)},
    }
    entry = analyse(results(curves, budgets=(20, 40)))["strategies"]["odd"]
    assert entry["difference"]["aulc"]["p_holm"] == p
    assert entry["verdict"].startswith(words)


def test_the_verdict_on_identical_curves() -> None:
    for name in ("margin", "badge"):
        entry = analyse(COMPARISONS["identical"])["strategies"][name]
        assert entry["difference"]["aulc"]["p"] == entry["difference"]["aulc"]["p_holm"] == 1
        assert str(entry["difference"]["aulc"]["mean"]) == "0.0"
        assert "its accuracy is the same in all 10 seeds; it reaches random's" in entry["verdict"]


def test_one_large_loss_does_not_make_many_small_gains_worse() -> None:
    baseline = {seed: [0.5, 0.6] for seed in range(12)}
    gains = [0.01 + 0.001 * seed for seed in range(11)] + [-0.9]
    curves = {"random": baseline, "odd": {s: [0.5, 0.6 + gain] for s, gain in enumerate(gains)}}
    entry = analyse(results(curves, budgets=(20, 40)))["strategies"]["odd"]
    assert entry["difference"]["accuracy"]["p_holm"] <= 0.05
    assert entry["difference"]["accuracy"]["mean"] < 0
    assert entry["verdict"].startswith("No difference between odd and random could be shown")


def test_a_baseline_that_does_not_learn_is_said_to() -> None:
    entry = analyse(steady(0.03, 8, final=0.5))["strategies"]["badge"]
    assert entry["efficiency"] == []
    assert entry["verdict"].endswith("; random itself does not get better with more labels.")


@pytest.mark.parametrize(
    ("n_strategies", "n_seeds", "needed"),
    [(1, 5, 6), (1, 6, None), (2, 6, 7), (2, 7, None), (3, 5, 7), (4, 7, 8), (4, 8, None)],
)
def test_too_few_seeds_are_said_to_be_too_few(
    n_strategies: int, n_seeds: int, needed: int | None
) -> None:
    gains = {"random": 1.0, **{f"s{i}": 3.0 for i in range(n_strategies)}}
    found = analyse(results(drawn(gains, n_seeds)))
    warnings = found["groups"][0]["warnings"]
    verdicts = [entry["verdict"] for entry in found["strategies"].values()][1:]
    p_values = [e["difference"]["aulc"]["p_holm"] for e in list(found["strategies"].values())[1:]]
    # each wins in every seed: no p can be smaller
    assert p_values == pytest.approx([n_strategies * 2 / 2**n_seeds] * n_strategies)
    if needed is None:
        assert warnings == []
        assert all(" beats random: " in verdict for verdict in verdicts)
        return
    names = ", ".join(f"s{i}" for i in range(n_strategies))
    strategies = "1 strategy" if n_strategies == 1 else f"{n_strategies} strategies"
    assert warnings == [
        f"with {n_seeds} seeds no difference of {names} from random can be called significant, "
        f"whatever its size: at least {needed} seeds are needed to compare {strategies} with it"
    ]
    assert all(verdict.startswith("Too few seeds to tell whether s") for verdict in verdicts)
    assert all(f"higher in {n_seeds} of {n_seeds} seeds" in verdict for verdict in verdicts)


def test_seeds_that_one_lacks_are_left_out_of_its_pairs_alone() -> None:
    curves = {name: dict(of_seed) for name, of_seed in FOUR.items()}
    del curves["badge"][3], curves["badge"][9], curves["random"][0]
    found = analyse(results(curves))
    (group,) = found["groups"]
    assert group["seeds"] == [1, 2, 4, 5, 6, 7, 8]
    assert group["warnings"] == [
        "random lacks seed 0; badge lacks seeds 3, 9: strategies are compared in the seeds that "
        "both have; the others are left out of the pairs"
    ]
    entries = found["strategies"]
    assert entries["badge"]["seeds"] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert entries["badge"]["n_seeds"] == 8
    pairs = {"badge": [1, 2, 4, 5, 6, 7, 8], "margin": [1, 2, 3, 4, 5, 6, 7, 8, 9]}
    for name, seeds in pairs.items():
        difference = entries[name]["difference"]["aulc"]
        expected = [trapezoids(FOUR[name][s]) - trapezoids(FOUR["random"][s]) for s in seeds]
        assert difference["n_pairs"] == len(seeds)
        assert difference["mean"] == pytest.approx(fmean(expected))
        both = [[FOUR[n][s] for s in seeds] for n in (name, "random")]
        assert entries[name]["efficiency"] == label_efficiency(BUDGETS, *both)


def test_pairs_are_by_seed_and_not_by_order() -> None:
    runs = results(FOUR)
    shuffled = [runs[i] for i in np.random.default_rng(0).permutation(len(runs))]
    for name, entry in analyse(shuffled)["strategies"].items():
        assert entry == analyse(runs)["strategies"][name]


def test_a_strategy_with_few_seeds_takes_nothing_from_the_others() -> None:
    curves = {**FOUR, "margin": {seed: FOUR["margin"][seed] for seed in range(3)}}
    found = analyse(results(curves))
    assert found["strategies"]["badge"]["verdict"].startswith("badge beats random")
    assert found["strategies"]["margin"]["verdict"].startswith("Too few seeds to tell")
    warnings = found["groups"][0]["warnings"]
    assert warnings[0].startswith("margin lacks seeds 3, 4, 5, 6, 7, 8, 9: ")
    assert warnings[1].startswith("with 3 seeds no difference of margin from random can be ")
    assert len(warnings) == 2


def test_without_a_seed_in_common_nothing_is_said() -> None:
    found = analyse(COMPARISONS["no seed in common"])
    badge = found["strategies"]["badge"]
    assert badge["difference"]["aulc"]["n_pairs"] == 0
    assert badge["difference"]["aulc"]["p_holm"] is None
    assert badge["efficiency"] == []
    assert badge["verdict"] == "badge cannot be judged: it has no seed in common with random."
    assert found["groups"][0]["seeds"] == []


def test_without_a_baseline_there_are_curves_and_no_comparison() -> None:
    found = analyse(COMPARISONS["no baseline"])
    for name, entry in found["strategies"].items():
        assert (entry["difference"], entry["efficiency"]) == (None, None)
        assert entry["verdict"] == (
            f"{name} cannot be judged: there is no run of random to compare it with."
        )
    (group,) = found["groups"]
    assert group["warnings"] == ["there is no run of random: nothing can be compared with it"]
    assert group["penalty"]["strategies"] == ["margin", "badge"]


def test_another_strategy_can_be_the_baseline() -> None:
    found = analyse(results(FOUR), baseline="badge")
    assert found["baseline"] == "badge"
    assert found["strategies"]["badge"]["difference"] is None
    there = found["strategies"]["random"]["difference"]["aulc"]
    back = analyse(results(FOUR))["strategies"]["badge"]["difference"]["aulc"]
    assert there["mean"] == pytest.approx(-back["mean"])
    assert (there["wins"], there["p"]) == (back["losses"], back["p"])
    assert found["strategies"]["random"]["verdict"].startswith("random is worse than badge")


def test_runs_of_different_length_are_compared_where_both_have_been() -> None:
    longer = drawn({"random": 1.0}, 8, 7)["random"]
    shorter = drawn({"random": 1.0, "badge": 2.0}, 8, 5)["badge"]
    runs = [
        *results({"random": longer}, budgets=(*BUDGETS, 120, 140), n_rounds=6),
        *results({"badge": shorter}, n_rounds=4),
    ]
    found = analyse(runs)
    (group,) = found["groups"]
    assert group["n_labeled"] == list(BUDGETS)
    assert group["warnings"] == [
        "the runs have different numbers of labels: they are compared at the 5 that all have, "
        "20 to 100; 2 more are left out"
    ]
    random = found["strategies"]["random"]
    assert [point["n_labeled"] for point in random["curve"]] == list(BUDGETS)
    assert random["aulc"]["mean"] == pytest.approx(
        fmean(trapezoids(curve[:5]) for curve in longer.values())
    )
    assert random["accuracy"]["mean"] == pytest.approx(fmean(c[4] for c in longer.values()))


def test_runs_that_share_their_first_labels_alone_are_compared_there() -> None:
    runs = [
        *(result("random", seed, [0.5, 0.6], (20, 40)) for seed in range(2)),
        *(result("badge", seed, [0.5, 0.7], (20, 41 + seed)) for seed in range(2)),
    ]
    (group,) = analyse(runs)["groups"]
    assert group["n_labeled"] == [20]
    assert group["warnings"][0] == (
        "the runs have different numbers of labels: they are compared at 20, which all have; 3 "
        "more are left out"
    )


def test_runs_without_a_number_of_labels_in_common_cannot_be_compared() -> None:
    runs = [
        result("random", 0, [0.5, 0.6], (20, 40)),
        result("badge", 0, [0.5, 0.6], (30, 50)),
    ]
    with pytest.raises(DataError, match=r"runs of random, badge on digits .* no number of labels"):
        analyse(runs)


def test_of_rounds_with_the_same_labels_the_last_counts() -> None:
    # as a stream leaves them whose chunk had nothing worth a label
    runs = [
        result(name, seed, [0.5, 0.6, 0.7, 0.8], (20, 40, 40, 60))
        for name in ("random", "badge")
        for seed in range(2)
    ]
    curve = analyse(runs)["strategies"]["badge"]["curve"]
    assert [(point["n_labeled"], point["mean"]) for point in curve] == [
        (20, 0.5),
        (40, 0.7),
        (60, 0.8),
    ]


def test_runs_that_are_no_pair_are_refused() -> None:
    runs = [result("random", 0, [0.5, 0.6]), result("badge", 0, [0.5, 0.6], lr=0.1)]
    with pytest.raises(RunFolderError, match="lr"):
        analyse(runs)


# several settings


def test_labels_name_what_differs_among_settings_alone() -> None:
    gains = {"random": 1.0, "badge": 2.0}
    runs = [
        *results(drawn(gains, 6), model="lenet"),
        *results(drawn(gains, 6), model="lenet", noise_rate="10%"),
        *results(drawn(gains, 6), model="resnet18"),
        *results(drawn(gains, 6), model="resnet18", noise_rate=0.1),
    ]
    found = analyse(runs)
    assert list(found["strategies"]) == [
        "random, lenet, noise 0",
        "badge, lenet, noise 0",
        "random, lenet, noise 0.1",
        "badge, lenet, noise 0.1",
        "random, resnet18, noise 0",
        "badge, resnet18, noise 0",
        "random, resnet18, noise 0.1",
        "badge, resnet18, noise 0.1",
    ]
    assert found["groups"][1]["strategies"] == {
        "random": "random, lenet, noise 0.1",
        "badge": "badge, lenet, noise 0.1",
    }
    assert found["groups"][1]["noise_rate"] == 0.1
    entry = found["strategies"]["badge, lenet, noise 0.1"]
    assert (entry["strategy"], entry["model"], entry["noise_rate"]) == ("badge", "lenet", 0.1)
    assert entry["verdict"].startswith("badge (lenet, noise 0.1) beats random: ")
    assert found["ranks"]["settings"] == [
        "digits, lenet, noise 0",
        "digits, lenet, noise 0.1",
        "digits, resnet18, noise 0",
        "digits, resnet18, noise 0.1",
    ]


def test_label_noise_makes_a_setting_too() -> None:
    runs = [
        *results(drawn({"random": 1.0}, 2)),
        *results(drawn({"random": 1.0}, 2), label_noise=0.2),
    ]
    found = analyse(runs)
    assert list(found["strategies"]) == ["random, label noise 0", "random, label noise 0.2"]
    assert found["ranks"] is None  # of one strategy there is nothing to rank


def test_settings_do_not_mix() -> None:
    gains = {"random": 1.0, "badge": 2.0}
    one, other = drawn(gains, 6), drawn({"random": 1.0, "badge": 0.5}, 6, noise=1)
    found = analyse([*results(one), *results(other, dataset="mnist")])
    alone = analyse(results(other, dataset="mnist"))
    for name in gains:
        entry = found["strategies"][f"{name}, mnist"]
        expected = alone["strategies"][name]
        assert {**entry, "verdict": ""} == {**expected, "verdict": ""}


def test_strategies_are_ranked_over_settings() -> None:
    orders = [("random", "badge", "bald"), ("random", "bald", "badge"), ("badge", "bald", "random")]
    names = ("random", "badge", "bald")
    by_dataset = {
        dataset: drawn({name: 1.0 + order.index(name) for name in names}, 4)
        for dataset, order in zip(("digits", "mnist", "cifar10"), orders, strict=True)
    }
    found = analyse(
        [run for dataset, curves in by_dataset.items() for run in results(curves, dataset=dataset)]
    )["ranks"]
    assert found["settings"] == ["digits, small-cnn", "mnist, small-cnn", "cifar10, small-cnn"]
    assert found["strategies"] == list(names)
    for name in names:
        expected = [fmean(map(trapezoids, c[name].values())) for c in by_dataset.values()]
        assert found["values"][name] == pytest.approx(expected)
    # by hand, from the orders above: the last is the best
    assert found["mean_rank"] == pytest.approx({"random": 7 / 3, "badge": 2, "bald": 5 / 3})
    expected = stats.friedmanchisquare(*found["values"].values()).pvalue
    assert found["friedman_p"] == pytest.approx(expected)


def test_settings_with_other_strategies_are_not_ranked() -> None:
    runs = [
        *results(drawn({"random": 1.0, "badge": 2.0}, 2)),
        *results(drawn({"random": 1.0, "bald": 2.0}, 2), dataset="mnist"),
    ]
    assert analyse(runs)["ranks"] is None
