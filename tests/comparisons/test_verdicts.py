"""Analyses of comparisons: their numbers against other computations, and their words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from made_up import BUDGETS, FOUR, drawn
from scipy import stats

from skal.comparisons.results import Result
from skal.comparisons.statistics import describe, holm, label_efficiency, resamples
from skal.comparisons.verdicts import analyse
from skal.core.errors import DataError, RunFolderError
from skal.runs.config import RunConfig


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
    resamples.cache_clear()
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
        "lowest": badge["aulc"]["mean"],
        "highest": badge["aulc"]["mean"],
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
        "No significant difference between badge and random: its accuracy with 20 labels is the "
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
        "badge beats random: its mean accuracy over the curve is 2.6 percentage points "
        "higher (95% interval 2.6 to 2.6), and higher in 8 of 8 seeds; it reaches random's "
        "final accuracy of 90.0% with about 94 labels (between 80 and 100), random with 100."
    )
    assert found["strategies"]["random"]["verdict"] == (
        "random is the baseline: its final accuracy is 90.0% with 100 labels."
    )


def test_the_verdict_on_what_is_worse() -> None:
    assert analyse(steady(-0.03, 8))["strategies"]["badge"]["verdict"] == (
        "badge is worse than random: its mean accuracy over the curve is 2.6 percentage "
        "points lower (95% interval 2.6 to 2.6), and lower in 8 of 8 seeds; it does not reach "
        "random's final accuracy of 90.0%."
    )


def test_the_verdict_on_what_is_neither() -> None:
    runs = results(drawn({"random": 1.0, "margin": 1.0}, noise=3))
    entry = analyse(runs)["strategies"]["margin"]
    difference = entry["difference"]["aulc"]
    assert difference["p_holm"] > 0.05
    assert difference["low"] < 0 < difference["high"]
    assert entry["verdict"].startswith("No significant difference between margin and random: ")
    low, high = -100 * difference["low"], 100 * difference["high"]
    assert f"(95% interval {low:.2g} lower to {high:.2g} higher)" in entry["verdict"]


@pytest.mark.parametrize(
    ("lost", "p", "words"), [(3, 0.0390625, "odd beats random"), (4, 0.0546875, "No significant")]
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
        assert "over the curve is the same in all 10 seeds; it reaches random's" in entry["verdict"]


def test_one_large_loss_does_not_make_many_small_gains_worse() -> None:
    baseline = {seed: [0.5, 0.6] for seed in range(12)}
    gains = [0.01 + 0.001 * seed for seed in range(11)] + [-0.9]
    curves = {"random": baseline, "odd": {s: [0.5, 0.6 + gain] for s, gain in enumerate(gains)}}
    entry = analyse(results(curves, budgets=(20, 40)))["strategies"]["odd"]
    assert entry["difference"]["accuracy"]["p_holm"] <= 0.05
    assert entry["difference"]["accuracy"]["mean"] < 0
    assert entry["verdict"].startswith("No significant difference between odd and random")


def test_a_baseline_that_does_not_learn_is_said_to() -> None:
    entry = analyse(steady(0.03, 8, final=0.5))["strategies"]["badge"]
    assert entry["efficiency"] == []
    assert entry["verdict"].endswith("; random itself does not improve with more labels.")


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
        f"with {n_seeds} seeds no difference of {names} from random can be significant, "
        f"however large: at least {needed} seeds are needed to compare {strategies} with it"
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
        "random lacks seed 0; badge lacks seeds 3, 9: strategies are compared only in the seeds "
        "that both have"
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
    assert group["warnings"] == ["there is no run of random to compare strategies with"]
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
        "the runs have different numbers of labels: they are compared at 5 numbers from 20 to 100; "
        "100 is the end of badge; others continue to 140"
    ]
    assert group["interpolated"] is False
    random = found["strategies"]["random"]
    assert [point["n_labeled"] for point in random["curve"]] == list(BUDGETS)
    assert random["aulc"]["mean"] == pytest.approx(
        fmean(trapezoids(curve[:5]) for curve in longer.values())
    )
    assert random["accuracy"]["mean"] == pytest.approx(fmean(c[4] for c in longer.values()))


def test_the_one_run_that_shortens_all_is_named() -> None:
    curves = {name: dict(of_seed) for name, of_seed in FOUR.items()}
    curves["badge"][3] = curves["badge"][3][:3]
    (group,) = analyse(results(curves))["groups"]
    assert group["n_labeled"] == [20, 40, 60]
    assert group["warnings"] == [
        "the runs have different numbers of labels: they are compared at 3 numbers from 20 to 60; "
        "60 is the end of badge, seed 3; others continue to 100"
    ]


STREAMS = {
    # as a stream leaves them: each run takes other numbers of labels
    ("random", 0): ((20, 50, 100), (0.5, 0.62, 0.7)),
    ("random", 1): ((20, 60, 98), (0.5, 0.6, 0.69)),
    ("badge", 0): ((20, 40, 99), (0.5, 0.66, 0.8)),
    ("badge", 1): ((20, 45, 45, 96), (0.5, 0.6, 0.65, 0.78)),
}


def streamed(**settings: Any) -> list[Result]:
    return [
        result(name, seed, accuracy, budgets, **settings)
        for (name, seed), (budgets, accuracy) in STREAMS.items()
    ]


def test_runs_with_other_numbers_of_labels_are_compared_on_the_lines_between_them() -> None:
    found = analyse(streamed())
    (group,) = found["groups"]
    # by hand: all share 20 to 96, and the longest run has three numbers there
    assert (group["n_labeled"], group["interpolated"]) == ([20, 58, 96], True)
    badge, random = (found["strategies"][name] for name in ("badge", "random"))
    middle = [
        0.66 + 0.14 * (58 - 40) / (99 - 40),
        0.65 + 0.13 * (58 - 45) / (96 - 45),  # of two rounds with 45 labels the last counts
    ]
    assert badge["curve"][1]["mean"] == pytest.approx(fmean(middle))
    ends = [0.66 + 0.14 * (96 - 40) / (99 - 40), 0.78]
    assert badge["accuracy"]["mean"] == pytest.approx(fmean(ends))
    theirs = [0.62 + 0.08 * 46 / 50, 0.6 + 0.09 * 36 / 38]
    assert badge["difference"]["accuracy"]["mean"] == pytest.approx(fmean(ends) - fmean(theirs))
    areas = [trapezoids((0.5, m, e), (20, 58, 96)) for m, e in zip(middle, ends, strict=True)]
    assert badge["aulc"]["mean"] == pytest.approx(fmean(areas))
    assert group["warnings"][0] == (
        "the runs have different numbers of labels: they are compared at 3 numbers from 20 to 96; "
        "96 is the end of badge, seed 1; others continue to 100; each run's accuracy is "
        "interpolated linearly between its numbers of labels"
    )
    # no network was trained with the numbers that are compared
    assert "(between" not in badge["verdict"] and " with about " in badge["verdict"]
    assert random["verdict"].endswith("with 96 labels.")


def test_runs_that_share_their_first_labels_alone_are_compared_there() -> None:
    runs = [
        *(result("random", seed, [0.5], (20,)) for seed in range(2)),
        *(result("badge", seed, [0.5, 0.7], (20, 41 + seed)) for seed in range(2)),
    ]
    (group,) = analyse(runs)["groups"]
    assert group["n_labeled"] == [20]
    assert group["warnings"][0] == (
        "the runs have different numbers of labels: they are compared at 20 only; 20 is the end "
        "of random; others continue to 42"
    )


def test_runs_that_begin_later_are_named() -> None:
    curves = {name: {s: list(c) for s, c in of_seed.items()} for name, of_seed in FOUR.items()}
    runs = [
        result(name, seed, curve[1:] if name == "bald" else curve, BUDGETS[name == "bald" :])
        for name, of_seed in curves.items()
        for seed, curve in of_seed.items()
    ]
    (group,) = analyse(runs)["groups"]
    assert group["n_labeled"] == [40, 60, 80, 100]
    assert "; 40 is the start of bald; others start with 20" in group["warnings"][0]


def test_runs_without_a_number_of_labels_in_common_cannot_be_compared() -> None:
    runs = [
        result("random", 0, [0.5, 0.6], (20, 40)),
        result("badge", 0, [0.5, 0.6], (50, 60)),
    ]
    with pytest.raises(
        DataError, match=r"runs of random, badge on digits .* numbers of labels do not overlap"
    ):
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
        *results(drawn(gains, 8), model="lenet"),
        *results(drawn(gains, 8), model="lenet", noise_rate="10%"),
        *results(drawn(gains, 8), model="resnet18"),
        *results(drawn(gains, 8), model="resnet18", noise_rate=0.1),
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
    assert [group["name"] for group in found["groups"]] == [
        "lenet, noise 0",
        "lenet, noise 0.1",
        "resnet18, noise 0",
        "resnet18, noise 0.1",
    ]
    assert found["ranks"] is None  # of one dataset


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
        for measures in (entry["difference"] or {}, expected["difference"] or {}):
            for one in measures.values():
                one["p_holm"] = None  # of more verdicts
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
    assert found["settings"] == ["digits", "mnist", "cifar10"]
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


def test_models_and_rates_on_a_dataset_are_averaged_before_ranks_are_made() -> None:
    gains = {"random": 1.0, "badge": 2.0, "bald": 0.5}
    settings = [
        {"dataset": dataset, "model": model, "noise_rate": rate}
        for dataset in ("digits", "mnist")
        for model in ("lenet", "resnet18")
        for rate in (0, 0.1)
    ]
    curves = [drawn(gains, 2, noise=i) for i in range(len(settings))]
    runs = [run for s, c in zip(settings, curves, strict=True) for run in results(c, **s)]
    ranks = analyse(runs)["ranks"]
    assert ranks["settings"] == ["digits", "mnist"]
    for name in gains:
        areas = [fmean(map(trapezoids, c[name].values())) for c in curves]
        assert ranks["values"][name] == pytest.approx([fmean(areas[:4]), fmean(areas[4:])])
    assert ranks["mean_rank"] == {"random": 2, "badge": 1, "bald": 3}
    assert analyse(runs[: len(runs) // 2])["ranks"] is None


# what is tried often


def test_all_verdicts_of_an_analysis_are_corrected_together() -> None:
    gains = {"random": 1.0, "badge": 1.15, "bald": 0.9, "margin": 1.05}
    settings = [
        {"model": model, "noise_rate": r} for model in ("lenet", "resnet18") for r in (0, 0.1)
    ]
    runs = [
        run
        for i, setting in enumerate(settings)
        for run in results(drawn(gains, 9, noise=i), **setting)
    ]
    found = analyse(runs)
    assert found["n_verdicts"] == 12
    for measure in ("aulc", "accuracy"):
        tested = [e["difference"][measure] for e in found["strategies"].values() if e["difference"]]
        # Holm's by its definition, over all twelve
        order = sorted(range(12), key=lambda i: tested[i]["p"])
        so_far = 0.0
        for step, i in enumerate(order):
            so_far = max(so_far, min(1, (12 - step) * tested[i]["p"]))
            assert tested[i]["p_holm"] == pytest.approx(so_far)
    # 9 seeds are enough for 12: 12 x 2 / 512 = 0.047; 8 are not
    assert all(not group["warnings"] for group in found["groups"])
    fewer = analyse([run for run in runs if run.config.seed < 8])
    assert fewer["groups"][0]["warnings"] == [
        "with 8 seeds no difference of badge, bald, margin from random can be significant, "
        "however large: at least 9 seeds are needed to make all 12 comparisons with it"
    ]


# the end of a curve


def with_end(difference: Sequence[float], n_seeds: int = 8) -> dict[str, Any]:
    """Return the entry of a strategy that differs by so much at each number of labels."""
    slow = [0.5, 0.6, 0.7, 0.8, 0.9]
    curves = {
        "random": dict.fromkeys(range(n_seeds), slow),
        "odd": {
            seed: [a + d * (1 + seed / 100) for a, d in zip(slow, difference, strict=True)]
            for seed in range(n_seeds)
        },
    }
    entry: dict[str, Any] = analyse(results(curves))["strategies"]["odd"]
    return entry


def test_a_verdict_says_where_the_end_tells_another_story() -> None:
    # by hand: the areas cancel out, -0.04 + 0.03 + half of 0.02
    entry = with_end([0, -0.04, 0.03, 0, 0.02])
    assert entry["difference"]["aulc"]["p_holm"] == 1
    assert entry["difference"]["accuracy"]["p_holm"] == 2 / 2**8
    assert entry["verdict"].startswith(
        "No significant difference between odd and random over the whole curve, but odd ends "
        "2.1 percentage points higher, in 8 of 8 seeds: its mean accuracy over the curve is "
        "the same in all 8 seeds; it reaches "
    )
    assert with_end([0, 0.04, 0.04, 0.04, -0.02])["verdict"].startswith(
        "odd beats random, but odd ends 2.1 percentage points lower, in 8 of 8 seeds: its mean "
    )
    assert with_end([0, 0.04, 0.04, 0.04, 0])["verdict"].startswith(
        "odd beats random, though not significantly in final accuracy: its mean "
    )
    assert with_end([0, 0.04, 0.04, 0.04, 0.02])["verdict"].startswith("odd beats random: its ")
    few = with_end([0, -0.04, 0.03, 0, 0.02], 5)["verdict"]
    assert few.startswith("Too few seeds to tell whether odd beats random: its mean ")


def test_differences_along_the_curve_are_those_of_the_pairs() -> None:
    found = analyse(results(FOUR))["strategies"]
    assert found["random"]["differences"] is None
    points = found["badge"]["differences"]
    assert [point["n_labeled"] for point in points] == list(BUDGETS)
    for k, point in enumerate(points):
        pairs = [FOUR["badge"][seed][k] - FOUR["random"][seed][k] for seed in range(10)]
        assert point["mean"] == pytest.approx(fmean(pairs))
        assert (point["lowest"], point["highest"]) == pytest.approx((min(pairs), max(pairs)))
        expected = describe(pairs)[0]
        assert (point["low"], point["high"]) == pytest.approx((expected["low"], expected["high"]))
    assert analyse(COMPARISONS["no seed in common"])["strategies"]["badge"]["differences"] == []


# models and rates of noise


def shifted(model: str, rate: float, shift: float, n_seeds: int = 8, **more: Any) -> list[Result]:
    """Return runs whose areas are the higher by a shift, a little another in each seed."""
    gains = {"random": 1.0, "badge": 2.0}
    return [
        result(
            run.strategy,
            run.config.seed,
            [row["accuracy"] + shift * (1 + run.config.seed / 50) for row in run.rounds],
            model=model,
            noise_rate=rate,
            **more,
        )
        for run in results(drawn(gains, n_seeds))
    ]


def test_models_are_compared_in_pairs_of_seeds() -> None:
    runs = [
        *shifted("lenet", 0, 0),
        *shifted("resnet18", 0, 0.02),
        *shifted("lenet", 0.1, -0.03),
        *shifted("resnet18", 0.1, -0.03),
    ]
    found = analyse(runs)
    rows = {(row["strategy"], row["noise_rate"]): row for row in found["models"]}
    assert len(rows) == len(found["models"]) == 4
    for (strategy, rate), row in rows.items():
        assert row["models"] == ["resnet18", "lenet"]
        one, other = (
            [trapezoids([r["accuracy"] for r in run.rounds]) for run in runs
             if run.setting[1:3] == (model, rate) and run.strategy == strategy]
            for model in row["models"]
        )  # fmt: skip
        pairs = np.subtract(one, other)
        assert row["aulc"]["mean"] == pytest.approx(fmean(pairs), abs=1e-12)
        assert row["aulc"]["n_pairs"] == 8
        assert row["aulc"]["wins"] == (8 if rate == 0 else 0)
        p = stats.wilcoxon(pairs, method="exact").pvalue if rate == 0 else 1
        assert row["aulc"]["p"] == pytest.approx(p)
    # by hand: the smaller two of four, 4 x 2 / 256; of the others both are 1
    p_holm = [
        rows[name, rate]["aulc"]["p_holm"] for rate in (0, 0.1) for name in ("badge", "random")
    ]
    assert p_holm == [4 * 2 / 256, 4 * 2 / 256, 1, 1]
    assert rows["badge", 0]["sentence"] == (
        "badge (noise 0): resnet18 beats lenet: the mean accuracy over the curve of resnet18 "
        "is 2.1 percentage points higher (95% interval 2.1 to 2.2), and higher in 8 of 8 seeds."
    )
    assert rows["badge", 0.1]["sentence"] == (
        "badge (noise 0.1): No significant difference between resnet18 and lenet: the mean "
        "accuracy over the curve of resnet18 is the same in all 8 seeds."
    )


def test_rates_of_noise_are_compared_with_the_lowest() -> None:
    runs = [
        *shifted("lenet", 0.3, -0.05, 9),
        *shifted("lenet", 0, 0, 9),
        *shifted("lenet", 0.1, 0, 9),
    ]
    found = analyse(runs)
    assert found["models"] == []
    rows = {(row["strategy"], row["noise_rate"]): row for row in found["noise"]}
    assert set(rows) == {(name, rate) for name in ("random", "badge") for rate in (0.1, 0.3)}
    assert {(row["noise"], row["lowest_rate"]) for row in rows.values()} == {("noise_rate", 0.0)}
    mean = -0.05 * fmean(1 + seed / 50 for seed in range(9))
    assert rows["badge", 0.3]["aulc"]["mean"] == pytest.approx(mean)
    assert rows["badge", 0.3]["aulc"]["p_holm"] == 4 * 2 / 2**9
    assert rows["badge", 0.3]["sentence"] == (
        "badge is worse with noise 0.3: its mean accuracy over the curve is 5.4 percentage points "
        "lower than with noise 0 (95% interval 5.2 to 5.6), and lower in 9 of 9 seeds."
    )
    assert rows["badge", 0.1]["sentence"] == (
        "No significant effect of noise 0.1 on badge: its mean accuracy over the curve "
        "is the same in all 9 seeds."
    )
    few = analyse([run for run in runs if run.config.seed < 2])["noise"]
    assert few[0]["sentence"].startswith("Too few seeds to tell how noise 0.3 affects random: ")
    assert "interval" not in few[0]["sentence"]


def test_labels_noise_is_compared_apart_from_noise_on_images() -> None:
    runs = [
        run
        for rate in (0, 0.1)
        for label_noise in (0, 0.2)
        for run in shifted("lenet", rate, 0, 2, label_noise=label_noise)
    ]
    found = [
        (row["noise"], row["noise_rate"], row["label_noise"])
        for row in analyse(runs)["noise"]
        if row["strategy"] == "badge"
    ]
    assert found == [
        ("noise_rate", 0.1, 0),
        ("noise_rate", 0.1, 0.2),
        ("label_noise", 0, 0.2),
        ("label_noise", 0.1, 0.2),
    ]


def test_models_that_were_trained_otherwise_are_not_compared() -> None:
    runs = [*shifted("lenet", 0, 0), *shifted("resnet18", 0, 0.02, lr=0.1)]
    assert analyse(runs)["models"] == []
    data = {"number of images": [9, 3], "image shape": [1, 8, 8], "classes": ["a"], "paths": 1}
    for paths, n_rows in ((1, 2), (2, 0)):  # the folder was added to in between
        one, other = shifted("lenet", 0, 0), shifted("resnet18", 0, 0.02)
        runs = [
            *(replace(run, data=data) for run in one),
            *(replace(run, data={**data, "paths": paths}) for run in other),
        ]
        assert len(analyse(runs)["models"]) == n_rows


def test_what_failed_is_kept() -> None:
    found = analyse(results(drawn({"random": 1.0}, 2)), failed=["badge-small-cnn-s0"])
    assert found["failed"] == ["badge-small-cnn-s0"]


# words


def two_budgets(gains: Sequence[float]) -> str:
    curves = {
        "random": dict.fromkeys(range(len(gains)), (0.5, 0.6)),
        "odd": {seed: [0.5, 0.6 + gain] for seed, gain in enumerate(gains)},
    }
    found = analyse(results(curves, budgets=(20, 40)))["strategies"]["odd"]["verdict"]
    return str(found).partition("over the curve is ")[2].partition(";")[0]


def test_rounding_errors_are_not_told() -> None:
    # by hand: the areas are halves of these; the mean is 0, but for 5e-17
    assert two_budgets([0.1, 0.2, -0.3, 0.1, 0.2, -0.3, 0.1, -0.1]) == (
        "the same on average, higher in 5 and lower in 3 of 8 seeds"
    )
    assert two_budgets([0.0001] * 8) == (
        "less than 0.01 percentage points higher (95% interval less than 0.01 to less than "
        "0.01), and higher in 8 of 8 seeds"
    )
    assert two_budgets([0, 0]) == "the same in both seeds"
    assert two_budgets([0]) == "the same in the one seed that both have"


@pytest.mark.parametrize("n_seeds", [2, 5, 6])
def test_no_interval_is_told_of_fewer_than_six_seeds(n_seeds: int) -> None:
    entry = analyse(steady(0.03, n_seeds))["strategies"]["badge"]
    assert ("95% interval" in entry["verdict"]) == (n_seeds == 6)
    assert entry["difference"]["aulc"]["low"] is not None  # for programs


def test_a_curve_that_begins_above_the_target_needs_so_many_labels_at_most() -> None:
    curves = {
        "random": dict.fromkeys(range(6), (0.5, 0.6, 0.7)),
        "odd": dict.fromkeys(range(6), (0.8, 0.85, 0.9)),
        "even": dict.fromkeys(range(6), (0.5, 0.7, 0.8)),
    }
    found = analyse(results(curves, budgets=(20, 40, 60)))["strategies"]
    assert found["odd"]["verdict"].endswith("of 70.0% with at most 20 labels, random with 60.")
    assert found["even"]["verdict"].endswith("of 70.0% with 40 labels, random with 60.")
