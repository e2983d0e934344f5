"""Statistics of comparisons, each against a computation of another kind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean, stdev

import numpy as np
import pytest
from made_up import BUDGETS, FOUR, drawn
from scipy import stats

from skal.comparisons.statistics import (
    SHARES,
    crossings,
    describe,
    holm,
    label_efficiency,
    paired_difference,
    penalty_matrix,
    rank_strategies,
    seeds_needed,
    signed_rank_test,
    smallest_p,
)


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


def labels_to_reach(
    budgets: Sequence[float], curve: Sequence[float], target: float
) -> float | None:
    (found,) = crossings(np.array(budgets, float), np.array([curve], float), np.array([target]))
    return None if np.isnan(found) else float(found)


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
            rng=np.random.default_rng(0),
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
    unknown = dict.fromkeys(("low", "high", "sd"))
    assert describe([0.7]) == [{"mean": 0.7, **unknown, "lowest": 0.7, "highest": 0.7}]


def test_no_seed_has_nothing() -> None:
    names = ("mean", "low", "high", "sd", "lowest", "highest")
    assert describe([]) == [dict.fromkeys(names)]
    assert describe(np.empty((0, 2))) == [dict.fromkeys(names)] * 2


def test_the_range_is_that_of_the_seeds() -> None:
    found = describe([[0.3, 0.9], [0.1, 0.8], [0.2, 0.95]])
    assert [(one["lowest"], one["highest"]) for one in found] == [(0.1, 0.3), (0.8, 0.95)]


@pytest.mark.parametrize(("n", "expected"), [(2, 0.5), (6, 0.85), (10, 0.9)])
def test_how_often_the_interval_holds_the_mean_is_what_is_said(n: int, expected: float) -> None:
    # what report, README and docstring say; 400 draws leave 3.5 points either way
    draws = np.random.default_rng(n).normal(0, 1, (n, 400))
    held = [one["low"] <= 0 <= one["high"] for one in describe(draws)]
    assert fmean(held) == pytest.approx(expected, abs=0.05)


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
        "lowest": None,
        "highest": None,
        "wins": 0,
        "losses": 0,
        "n_pairs": 0,
        "p": None,
    }


def test_a_rounding_error_is_no_difference() -> None:
    found = paired_difference([0.3, 0.3], [0.1 + 0.2, 0.1 + 0.2])
    assert (found["wins"], found["losses"], found["p"]) == (0, 0, 1)
    assert {str(found[name]) for name in ("mean", "low", "high")} == {"0.0"}


def test_differences_that_cancel_out_leave_no_rounding_error() -> None:
    differences = [0.1, 0.2, -0.3, 0.1, 0.2, -0.3, 0.1, -0.1]
    assert sum(differences) != 0
    found = paired_difference(differences, np.zeros(8))
    assert str(found["mean"]) == "0.0"
    assert (found["wins"], found["losses"]) == (5, 3)
    assert (found["lowest"], found["highest"]) == (-0.3, 0.2)


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
    draws = np.random.default_rng(0).integers(0, 10, (500, 10))
    some = np.stack([(draws == seed).mean(axis=1) for seed in range(10)], axis=1)
    found = label_efficiency(BUDGETS, ours, theirs, resample=lambda n: some)[-1]
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
