from __future__ import annotations

import gc
import html
import io
import re
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from made_up import made_up_results
from matplotlib.backends.backend_agg import RendererAgg
from PIL import Image

from skal.comparisons.plots import (
    column_means,
    comparison_curves,
    difference_curves,
    efficiency_bars,
    looks,
    noise_curves,
    penalty_heatmap,
    ranks_diagram,
)
from skal.comparisons.verdicts import analyse
from skal.runs.drawing import Pictures
from skal.runs.metrics import describe_errors
from skal.runs.plots import calibration_picture, confusion_picture, learning_curve

pytestmark = pytest.mark.pictures

ROUNDS = [{"n_labeled": 20 * (i + 1), "accuracy": 0.3 + 0.2 * i} for i in range(3)]


def test_a_curve_is_a_png_and_an_svg_with_its_words() -> None:
    pictures = learning_curve(ROUNDS, "digits: badge")
    assert Image.open(io.BytesIO(pictures["png"])).size == (960, 630)
    assert pictures["svg"].startswith(b"<?xml")
    for text in (b"digits: badge", b"labelled images", b"test accuracy", b"0.700"):
        assert text in pictures["svg"]


def test_equal_rounds_give_equal_files() -> None:
    assert learning_curve(ROUNDS, "a") == learning_curve(ROUNDS, "a")
    assert learning_curve(ROUNDS, "a") != learning_curve(ROUNDS[:2], "a")


def test_one_round_can_be_drawn() -> None:
    assert b"0.300" in learning_curve(ROUNDS[:1], "one round")["svg"]


@pytest.mark.parametrize("name", ["$x^", "a_b$\\frac", "写真", "caf\udce9", "<&>", ""])
def test_any_name_of_a_folder_can_stand_above(name: str) -> None:
    pictures = learning_curve(ROUNDS, name)
    assert set(pictures) == {"png", "svg"}
    pictures["svg"].decode()


def analysis(**settings: Any) -> dict[str, Any]:
    return analyse(made_up_results(**settings))


TWELVE = [
    *("random", "badge", "margin", "entropy", "clue", "bald", "core-set", "falcun", "typiclust"),
    *("k-means", *(f"skactiveml.pool:ProbabilisticAL?m_max={n}&prior=0.001" for n in (2, 3))),
]
FOUR_SETTINGS = [
    {"model": model, "noise_rate": rate} for model in ("lenet", "resnet18") for rate in (0, 0.3)
]
DATASETS = [
    {"dataset": name, "noise_rate": rate} for name in ("digits", "mnist") for rate in (0, 0.1)
]
COMPARISONS = [
    comparison_curves,
    difference_curves,
    efficiency_bars,
    penalty_heatmap,
    noise_curves,
    ranks_diagram,
]


def words(pictures: Pictures | None) -> str:
    """Return the texts of a picture; matplotlib leaves them as comments."""
    assert pictures is not None
    assert Image.open(io.BytesIO(pictures["png"])).format == "PNG"
    found = re.findall(r"<!-- (.*?) -->", pictures["svg"].decode(), re.DOTALL)
    return html.unescape("\n".join(found))


@pytest.mark.parametrize("draw", COMPARISONS, ids=lambda draw: draw.__name__)
def test_equal_comparisons_give_equal_files(draw: Callable[..., Pictures | None]) -> None:
    pytest.importorskip("scikit_posthocs")
    found = analysis(settings=DATASETS)
    pictures = draw(found)
    assert pictures is not None
    assert draw(found) == pictures


def test_other_figures_give_other_files() -> None:
    assert comparison_curves(analysis()) != comparison_curves(analysis(gain=0.03))


def test_means_have_the_bands_of_their_intervals() -> None:
    pictures = comparison_curves(analysis())
    assert pictures["svg"].count(b'id="FillBetweenPolyCollection') == 3


def test_curves_name_strategies_and_settings_and_seeds() -> None:
    text = words(comparison_curves(analysis(n_seeds=6)))
    assert "digits, small-cnn\nmean of 6 seeds, 95% interval" in text
    for name in ("random", "badge", "margin", "labelled images", "test accuracy"):
        assert name in text
    text = words(comparison_curves(analysis(n_seeds=1, settings=FOUR_SETTINGS)))
    assert "one seed" in text
    for title in ("lenet, noise 0", "resnet18, noise 0.3"):
        assert title in text
    assert "digits" not in text  # which all settings share


def bands(draw: Callable[..., Pictures | None], found: dict[str, Any]) -> list[Any]:
    """Return the lower and upper ends of the bands that are drawn."""
    drawn: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        fill = matplotlib.axes.Axes.fill_between

        def keep(axes: Any, x: Any, low: Any, high: Any, **how: Any) -> Any:
            drawn.append((list(low), list(high)))
            return fill(axes, x, low, high, **how)

        patch.setattr(matplotlib.axes.Axes, "fill_between", keep)
        draw(found)
    return drawn


@pytest.mark.parametrize(("n_seeds", "ends"), [(5, ("lowest", "highest")), (6, ("low", "high"))])
def test_bands_are_intervals_and_of_few_seeds_their_range(
    n_seeds: int, ends: tuple[str, str]
) -> None:
    found = analysis(n_seeds=n_seeds)
    said = "range of the seeds" if n_seeds < 6 else "95% interval"
    for draw, key, scale in (
        (comparison_curves, "curve", 1),
        (difference_curves, "differences", 100),
    ):
        text = words(draw(found))
        assert said in text
        entries = [entry[key] for entry in found["strategies"].values() if entry[key]]
        expected = [[[scale * point[end] for point in entry] for end in ends] for entry in entries]
        for band, one in zip(bands(draw, found), expected, strict=True):
            assert np.allclose(band, one, atol=1e-12)


def test_strategies_with_fewer_seeds_are_said_to_have_other_bands() -> None:
    results = made_up_results(n_seeds=7)
    found = analyse([r for r in results if r.strategy != "badge" or r.config.seed < 3])
    said = "mean of 3 to 7 seeds, 95% interval; with fewer than 6 range of the seeds"
    assert said in words(comparison_curves(found))


def test_differences_are_drawn_in_points_above_the_baseline() -> None:
    found = analysis(n_seeds=7, settings=FOUR_SETTINGS[:2])
    text = words(difference_curves(found))
    assert "noise 0.3\nmean of 7 paired differences, 95% interval" in text
    assert "percentage points above random" in text
    assert difference_curves(analysis(strategies=["random"])) is None
    assert difference_curves(analysis(strategies=["badge"])) is None


def test_every_strategy_looks_like_no_other() -> None:
    found = looks(analysis(strategies=TWELVE))
    assert list(found) == TWELVE
    assert found["random"].color == "#808080"
    assert len({(look.color, look.marker, look.dash) for look in found.values()}) == 12
    assert len({look.name for look in found.values()}) == 12
    # two colours may come twice, but not as the same kind of line
    assert len({(look.color, look.dash) for look in found.values()}) == 12


def test_colors_stay_when_strategies_are_added() -> None:
    few, many = (looks(analysis(strategies=TWELVE[:n])) for n in (3, 12))
    assert few == {name: many[name] for name in few}


def test_long_names_are_cut_in_the_middle_but_never_made_alike() -> None:
    names = ["random", "a" * 60, "b" * 30 + "1" + "b" * 30, "b" * 30 + "2" + "b" * 30]
    found = {name: look.name for name, look in looks(analysis(strategies=names)).items()}
    assert found["a" * 60] == "a" * 17 + "…" + "a" * 16
    assert [found[name] for name in names[2:]] == names[2:]


@pytest.mark.parametrize("strategies", [["random"], ["badge"], TWELVE], ids=len)
@pytest.mark.parametrize("n_seeds", [1, 3])
def test_one_strategy_or_twelve_of_one_seed_or_several_can_be_drawn(
    strategies: list[str], n_seeds: int
) -> None:
    found = analysis(strategies=strategies, n_seeds=n_seeds, n_rounds=2)
    names = {look.name for name, look in looks(found).items() if name in strategies}
    texts = [words(picture) for draw in COMPARISONS if (picture := draw(found)) is not None]
    assert all(name in texts[0] for name in names)  # the curves'
    assert all(any(name in text for name in names) for text in texts)


def test_a_comparison_of_the_initial_set_alone_can_be_drawn() -> None:
    found = analysis(n_rounds=0)
    assert words(comparison_curves(found))
    assert efficiency_bars(found) is None and penalty_heatmap(found) is None


def test_efficiency_bars_say_the_ratios_and_what_is_not_reached() -> None:
    found = analysis(gain=-0.05)
    text = words(efficiency_bars(found))
    targets = found["strategies"]["margin"]["efficiency"]
    assert targets[-1]["ratio"] is None
    assert text.count("not reached") == sum(
        target["ratio"] is None
        for name in ("badge", "margin")
        for target in found["strategies"][name]["efficiency"]
    )
    for target in targets:
        if target["ratio"] is not None:
            assert f"{target['ratio']:.2f}" in text
    assert "100% of the baseline's gain" in text
    assert "labels random needs / labels the strategy needs" in text


def test_an_interval_without_a_lower_end_is_an_arrow() -> None:
    found = analysis(n_seeds=7)
    target = found["strategies"]["badge"]["efficiency"][-1]
    whole = efficiency_bars(found)
    target.update(low=0.0, reached=0.75)
    assert efficiency_bars(found) != whole
    few = analysis(n_seeds=5)
    drawn = efficiency_bars(few)
    few["strategies"]["badge"]["efficiency"][-1].update(low=0.0, high=9.0, reached=0.75)
    assert efficiency_bars(few) == drawn  # of five seeds no interval is shown


def test_nothing_but_the_baseline_has_no_efficiency() -> None:
    assert efficiency_bars(analysis(strategies=["random"])) is None
    assert efficiency_bars(analysis(strategies=["badge"])) is None


def test_the_penalty_matrix_shows_its_cells_and_the_means_of_its_columns() -> None:
    found = analysis()
    found["groups"][0]["penalty"] = {
        "strategies": ["random", "badge", "margin"],
        "budgets": [40, 60],
        "matrix": [[0, 0.11, 0.12], [0.21, 0, 0.23], [0.31, 0.33, 0]],
        "n": 2,
    }
    text = words(penalty_heatmap(found))
    means = ["0.26", "0.22", "0.17"]  # by hand: (0.21 + 0.31) / 2, ...
    for value in ["0.11", "0.12", "0.21", "0.23", "0.31", "0.33", *means, "mean of column"]:
        assert value in text
    assert column_means([[0, 0.25], [1, 0]]) == [1, 0.25]
    assert column_means([[0]]) == [0]


def test_noise_is_drawn_where_rates_are_compared_a_column_a_model() -> None:
    assert noise_curves(analysis()) is None
    assert noise_curves(analysis(settings=FOUR_SETTINGS[::2])) is None  # two models, one rate
    text = words(noise_curves(analysis(settings=FOUR_SETTINGS)))
    assert "lenet" in text and "resnet18" in text and "rate of image noise" in text
    rates = [{"label_noise": rate} for rate in (0.2, 0.0)]
    text = words(noise_curves(analysis(settings=rates)))
    assert "rate of wrong labels" in text and "area under the curve" in text


def test_two_kinds_of_noise_are_drawn_apart() -> None:
    both = [{"noise_rate": a, "label_noise": b} for a in (0, 0.1) for b in (0, 0.2)]
    text = words(noise_curves(analysis(settings=both)))
    for title in ("label noise 0", "label noise 0.2", "noise 0", "noise 0.1"):
        assert title in text.splitlines()


def test_ranks_are_drawn_of_several_datasets_alone() -> None:
    pytest.importorskip("scikit_posthocs")
    assert ranks_diagram(analysis()) is None
    assert ranks_diagram(analysis(settings=FOUR_SETTINGS)) is None
    text = words(ranks_diagram(analysis(settings=DATASETS)))
    assert "mean rank by area over 2 datasets (1 is best)" in text
    for name in ("random", "badge", "margin"):
        assert name in text
    words(ranks_diagram(analysis(settings=DATASETS, strategies=["random", "badge"])))


def test_the_axis_of_ranks_goes_from_one_to_the_last_however_near_they_are() -> None:
    pytest.importorskip("scikit_posthocs")
    found = analysis(settings=DATASETS)
    for tied in ("random", "badge", "margin"):
        found["ranks"]["mean_rank"][tied] = 2.0
        found["ranks"]["values"][tied] = [0.5, 0.5]
    lines = words(ranks_diagram(found)).splitlines()
    assert [line for line in lines if re.fullmatch(r"[\d.]+", line)] == ["1", "2", "3"]


def test_without_its_package_the_ranks_are_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    assert ranks_diagram(analysis(settings=DATASETS)) is None
    assert "pip install 'skal[report]'" in caplog.text


def test_any_name_of_a_folder_and_of_a_strategy_can_be_drawn() -> None:
    names = ["$x^", "写真", "caf\udce9", "<&>", "a" * 300]
    settings = [
        {"dataset": name, "noise_rate": rate} for name in ("".join(names), "x") for rate in (0, 0.1)
    ]
    found = analysis(settings=settings, strategies=["random", *names])
    for draw in COMPARISONS:
        text = words(draw(found))
        assert all(name in text for name in ("$x^", "写真", "<&>"))


def evaluation(n_classes: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    proba = draw.dirichlet(np.ones(n_classes), 50)
    y = draw.integers(0, n_classes, 50)
    return describe_errors(y, proba, [f"class {i}" for i in range(n_classes)])


@pytest.mark.parametrize("n_classes", [2, 10, 102])
def test_confusion_and_calibration_can_be_drawn_of_any_number_of_classes(n_classes: int) -> None:
    found = evaluation(n_classes)
    text = words(confusion_picture(found))
    assert ("class 1" in text) == (n_classes <= 20)
    assert "predicted" in text
    assert "confidence" in words(calibration_picture(found))
    assert list(calibration_picture(found, ["svg"])) == ["svg"]


def test_pictures_open_no_window_and_leave_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    comparison_curves(analysis())
    assert dict(matplotlib.rcParams) == before


def test_nothing_that_was_drawn_stays_until_garbage_is_looked_for() -> None:
    gc.collect()
    gc.disable()
    try:
        learning_curve([{"n_labeled": n, "accuracy": n / 100} for n in (20, 40)], "digits")
        assert not any(type(thing) is RendererAgg for thing in gc.get_objects())
    finally:
        gc.enable()
