"""Analyses of comparisons: their numbers against other computations, and their words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from made_up import BUDGETS, FOUR, drawn
from scipy import stats

import skal.statistics
from skal.analysis import analyse
from skal.config import RunConfig
from skal.errors import DataError, RunFolderError
from skal.results import Result
from skal.statistics import (
    describe,
    holm,
    label_efficiency,
)


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
