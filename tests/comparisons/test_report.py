"""What is written of finished runs; the page is looked at in a real browser."""

from __future__ import annotations

import base64
import csv
import html
import importlib.util
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe import faults
from made_up import made_up_results
from PIL import Image

import skal
from skal.comparisons.folder import choose_place
from skal.comparisons.report import check_extra, results_csv, text_table, write_report
from skal.comparisons.report.page import chart, efficiency_interval
from skal.comparisons.report.picks import class_balance, contact_sheet, room_for_each, show_picks
from skal.comparisons.results import Result, read_result
from skal.comparisons.verdicts import analyse
from skal.core.errors import MissingExtraError, RunExistsError
from skal.datasets.loading import load_as
from skal.runs.config import RunConfig

SETTINGS = [
    {"model": model, "noise_rate": rate} for model in ("lenet", "resnet18") for rate in (0, 0.3)
]


# results.csv


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_results_are_a_row_a_round_in_long_form() -> None:
    results = made_up_results(n_seeds=2, settings=SETTINGS)
    rows = rows_of(results_csv(results))
    assert len(rows) == 4 * 3 * 2 * 4
    names = list(rows[0])
    assert names[:5] == ["strategy", "seed", "round", "n_labeled", "accuracy"]
    assert names[5:9] == ["dataset", "model", "noise_rate", "label_noise"]
    assert names[-3:] == ["fit_seconds", "score_seconds", "query_seconds"]
    by_key = {
        (r.setting.model, r.setting.noise_rate, r.strategy, r.config.seed): r for r in results
    }
    for row in rows:
        key = (row["model"], float(row["noise_rate"]), row["strategy"], int(row["seed"]))
        found = by_key[key].rounds[int(row["round"])]
        assert row["accuracy"] == repr(found["accuracy"])
        assert int(row["n_labeled"]) == found["n_labeled"]
        assert row["score_seconds"] == row["macro_f1"] == ""


def test_results_are_the_same_bytes_in_any_order_but_for_the_seconds() -> None:
    results = made_up_results(settings=SETTINGS)
    text = results_csv(results)
    assert results_csv(results[::-1]) == text
    slower = [
        Result(r.config, r.summary, [{**row, "fit_seconds": 9.5} for row in r.rounds])
        for r in results
    ]
    assert results_csv(slower).replace(",9.5,", ",0.5,") == text


def test_metrics_that_only_some_runs_have_are_columns_too() -> None:
    one, other = made_up_results(["random", "badge"], 1)
    rounds = [{**row, "temperature": 1.5, "agreement": None} for row in other.rounds]
    rows = rows_of(results_csv([one, Result(other.config, other.summary, rounds)]))
    assert [row["temperature"] for row in rows] == ["1.5"] * 4 + [""] * 4
    assert {row["agreement"] for row in rows} == {""}


# files


def test_a_comparison_leaves_its_files(tmp_path: Path) -> None:
    pytest.importorskip("scikit_posthocs")
    folder = tmp_path / "new" / "folder"
    results = made_up_results(settings=[*SETTINGS, {"dataset": "mnist"}])
    analysis = write_report(results, folder)
    names = ("curves", "differences", "efficiency", "noise", "penalty", "ranks")
    pictures = [f"{name}.{form}" for name in names for form in ("png", "svg")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["comparison.json", "results.csv", *pictures]
    )
    assert analysis == analyse(results) == json.loads((folder / "comparison.json").read_text())
    assert (folder / "results.csv").read_text() == results_csv(results)


@pytest.mark.pictures
def test_equal_runs_leave_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_report(made_up_results(), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_a_report_that_was_killed_at_its_start_is_written(tmp_path: Path) -> None:
    (tmp_path / ".comparison.json.17.tmp").touch()
    os.utime(tmp_path / ".comparison.json.17.tmp", (0, 0))
    write_report(made_up_results(["random"], n_rounds=1), tmp_path)
    assert (tmp_path / "results.csv").is_file()
    assert not list(tmp_path.glob(".*.tmp"))


def test_pictures_of_other_runs_do_not_stay_behind(tmp_path: Path) -> None:
    write_report(made_up_results(settings=SETTINGS[:2], n_rounds=1), tmp_path)
    assert (tmp_path / "noise.png").exists() and (tmp_path / "efficiency.svg").exists()
    write_report(made_up_results(["random"], n_rounds=1), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"comparison", "curves", "results"}


def test_the_baseline_can_be_another(tmp_path: Path) -> None:
    analysis = write_report(made_up_results(n_rounds=1), tmp_path, baseline="badge")
    assert analysis["baseline"] == "badge"
    assert analysis["strategies"]["badge"]["difference"] is None
    assert "area vs badge" in text_table(analysis)


def test_nothing_is_written_beside_what_is_no_comparison(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    names = {"noise.png", "results.csv", "thesis.tex", "comparison.json"}
    for name in names:
        (thesis / name).write_text("mine")
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(thesis)
    file.write_text("mine")
    for place in (thesis, link, file):
        told = f"{place.name}' is (a file,|not empty and) not a comp"
        with pytest.raises(RunExistsError, match=told) as caught:
            write_report(made_up_results(n_rounds=1), place)
        assert "\n" not in str(caught.value)
        with pytest.raises(RunExistsError):
            choose_place([tmp_path], place)
    assert {path.name for path in thesis.iterdir()} == names
    assert {path.read_text() for path in [file, *thesis.iterdir()]} == {"mine"}


@pytest.mark.parametrize("content", [None, "compare.toml", "comparison.json"])
def test_what_is_empty_or_a_comparison_is_written_to(tmp_path: Path, content: str | None) -> None:
    if content == "compare.toml":
        (tmp_path / content).write_text("")
    elif content:
        write_report(made_up_results(n_rounds=1), tmp_path)
    analysis = write_report(made_up_results(["random"], n_rounds=1), tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text()) == analysis
    assert choose_place(["elsewhere"], tmp_path) == tmp_path


def test_a_report_goes_to_a_comparison_itself_or_to_a_free_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(made_up_results(n_rounds=1), "versus")
    Path("run").mkdir()
    assert choose_place([Path("versus")]) == Path("versus")
    assert choose_place(["run"]) == choose_place(["versus", "run"]) == Path("report")
    Path("report").mkdir()
    Path("report-2").write_text("mine")
    assert choose_place(["run"]) == Path("report-3")


@pytest.mark.parametrize("missing", ["jinja2", "plotly"])
def test_a_missing_extra_is_one_line_before_anything_is_written(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'skal[report]'")) as caught:
        write_report(made_up_results(n_rounds=1), tmp_path / "out", html=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingExtraError):
        check_extra()
    write_report(made_up_results(n_rounds=1), tmp_path / "out")


# the table for a terminal


def test_the_table_has_a_line_a_strategy_then_verdicts_and_warnings() -> None:
    analysis = analyse(made_up_results(n_seeds=6))
    lines = text_table(analysis).splitlines()
    assert lines[0] == "digits, small-cnn, 80 labels at the end"
    assert lines[1].split("  ")[0] == "strategy"
    entry = analysis["strategies"]["badge"]
    assert "vs random  p (Holm)  area" in lines[1]
    badge = next(line for line in lines[2:5] if line.startswith("badge"))
    assert f"{entry['accuracy']['mean']:.4f} ± {entry['accuracy']['sd']:.4f}" in badge
    assert f"{entry['aulc']['mean']:.4f} ± {entry['aulc']['sd']:.4f}" in badge
    found = entry["difference"]["aulc"]
    assert f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]" in badge
    end = entry["difference"]["accuracy"]
    assert f" {end['mean']:+.4f} {end['p_holm']:.2g} " in " ".join(badge.split())
    assert f"{entry['efficiency'][-1]['ratio']:.2f}" in badge
    assert [e["verdict"] for e in analysis["strategies"].values()] == lines[6:9]
    assert lines[9:] == [f"Warning: {w}" for w in analysis["groups"][0]["warnings"]]
    columns = [line.rindex("  ") for line in lines[1:4]]
    assert len(set(columns[:2])) == 1  # aligned


def test_the_table_says_where_there_is_nothing_to_say() -> None:
    text = text_table(analyse(made_up_results(n_seeds=1, gain=-0.1)))
    assert "±" not in text and "[" not in text
    assert "not reached" in text
    alone = text_table(analyse(made_up_results(["badge"], n_rounds=0)))
    assert "there is no run of random" in alone


def test_every_setting_has_its_table() -> None:
    lines = text_table(analyse(made_up_results(settings=SETTINGS))).splitlines()
    for title in ("lenet, noise 0", "resnet18, noise 0.3"):
        assert f"{title}, 80 labels at the end" in lines
    assert sum(line.startswith("Warning") for line in lines) == 1


def test_no_interval_stands_in_the_table_of_few_seeds() -> None:
    assert "[" not in text_table(analyse(made_up_results(n_seeds=5)))
    assert text_table(analyse(made_up_results(n_seeds=6))).count("[") == 2


def test_models_and_rates_have_their_sentences() -> None:
    analysis = analyse(made_up_results(settings=SETTINGS))
    lines = text_table(analysis).splitlines()
    sentences = [row["sentence"] for row in [*analysis["models"], *analysis["noise"]]]
    assert len(sentences) == 2 * 3 + 2 * 3
    assert set(sentences) <= set(lines)


def test_runs_that_failed_are_named() -> None:
    names = [f"margin-small-cnn-s{seed}" for seed in range(12)]
    one, many = (
        text_table(analyse(made_up_results(n_seeds=1), failed=names[:n])).splitlines()
        for n in (1, 12)
    )
    assert f"Warning: 1 run failed and is not included: {names[0]}" in one
    assert (
        f"Warning: 12 runs failed and are not included: {', '.join(names[:10])} and 2 more" in many
    )


# images


def test_a_contact_sheet_shows_every_image_where_it_belongs() -> None:
    values = np.arange(10, 40, 2, dtype=np.uint8)  # 15 images
    images = np.broadcast_to(values[:, None, None, None], (15, 1, 8, 8))
    sheet = np.asarray(contact_sheet(images, np.zeros(15, bool)))
    assert sheet.shape == (2 * 35 + 3, 12 * 35 + 3, 3)  # enlarged four times, 3 between
    for number, value in enumerate(values):
        y, x = 3 + 35 * (number // 12), 3 + 35 * (number % 12)
        assert (sheet[y : y + 32, x : x + 32] == value).all()
        assert (sheet[y - 1, x : x + 32] == 128).all()
    assert (sheet[40:, 3 * 35 + 4 :] == 128).all()  # places without an image


def test_a_contact_sheet_frames_what_is_marked() -> None:
    images = np.zeros((3, 3, 16, 16), np.uint8)
    sheet = np.asarray(contact_sheet(images, np.array([False, True, False])))
    red = (sheet == (224, 36, 36)).all(axis=2)
    ys, xs = np.nonzero(red)
    assert (xs.min(), xs.max()) == (35, 35 + 32 + 5) and (ys.min(), ys.max()) == (0, 37)
    assert red.sum() == 38 * 38 - 32 * 32


@pytest.mark.parametrize(("shape", "expected"), [((1, 8, 8), 32), ((3, 28, 28), 28)])
@pytest.mark.parametrize("large", [False, True])
def test_thumbnails_are_small(shape: tuple[int, ...], expected: int, large: bool) -> None:
    if large:
        shape, expected = (shape[0], 224, 224), 48
    sheet = contact_sheet(np.zeros((2, *shape), np.uint8), np.zeros(2, bool))
    assert sheet.size == (2 * (expected + 3) + 3, expected + 6)


def test_colours_are_those_of_the_image() -> None:
    image = np.zeros((1, 3, 32, 32), np.uint8)
    image[0, 0] = 200
    image[0, 2] = 50
    assert contact_sheet(image, np.zeros(1, bool)).getpixel((10, 10)) == (200, 0, 50)
    image = np.full((1, 4, 32, 32), 7, np.uint8)  # of other channels the first
    assert contact_sheet(image, np.zeros(1, bool)).getpixel((10, 10)) == (7, 7, 7)


def test_a_large_comparison_shows_fewer_images() -> None:
    assert room_for_each(9, 6) == 24
    assert room_for_each(36, 25) == 6
    assert room_for_each(3 * 144, 25) == 1


def picked(
    indices: list[list[int]], labels: list[list[str]], data: skal.ImageDataset
) -> tuple[Result, Callable[..., skal.ImageDataset]]:
    queries = [
        {"round": k, "rank": rank, "index": index, "path": "", "label": label}
        for k, (of_round, names) in enumerate(zip(indices, labels, strict=True))
        for rank, (index, label) in enumerate(zip(of_round, names, strict=True))
    ]
    rounds = [{"round": k, "n_labeled": 2 * k + 2, "accuracy": 0.5} for k in range(len(indices))]
    result = Result(RunConfig(dataset="tiny", model="lenet"), {}, rounds, queries)
    return result, lambda *_: data


def test_sheets_count_images_and_mark_wrong_labels(tiny: skal.ImageDataset) -> None:
    # of tiny, image i is of class i % 3
    names = [["low", "middle"], ["low", "low", "top"]]
    result, load = picked([[0, 1], [3, 4, 5]], names, tiny)
    found = show_picks(result, load, most=2)
    assert not found.missing and found.n_rounds == 2
    first, second = found.sheets
    assert (first.n_images, first.n_shown, first.n_wrong) == (2, 2, 0)
    assert (second.n_images, second.n_shown, second.n_wrong) == (3, 2, 1)
    assert second.classes == "low (2), top (1)"
    sheet = Image.open(io.BytesIO(second.image))
    assert sheet.size == (second.width, second.height) == (2 * 27 + 3, 24 + 6)


def test_of_many_rounds_some_are_shown(tiny: skal.ImageDataset) -> None:
    result, load = picked([[k] for k in range(60)], [["low"]] * 60, tiny)
    numbers = [sheet.number for sheet in show_picks(result, load, 24).sheets]
    assert len(numbers) == 25 and numbers[0] == 0 and numbers[-1] == 59


def test_images_that_are_no_longer_there_are_not_shown(tiny: skal.ImageDataset) -> None:
    for index, label in ((900, "low"), (0, "unknown")):
        result, load = picked([[index]], [[label]], tiny)
        assert "has changed since the run" in show_picks(result, load, 9).missing

    def broken(*_: Any) -> skal.ImageDataset:
        raise OSError("gone\nand more")

    assert show_picks(result, broken, 9).missing == "cannot load the images: gone and more"


def test_images_are_loaded_as_the_run_did(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "skal")
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pages = [
                Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)) for _ in range(3)
            ]
            place = tmp_path / "photos" / name / f"{number}.tif"
            pages[0].save(place, save_all=True, append_images=[*pages[1:], pages[0]])
    settings = {"pages": "all", "drop_duplicates": True, "data_dir": tmp_path / "data"}
    run = {"model": "lenet", "steps": 2, "n_init": 4, "n_query": 2, "n_rounds": 1, "image_size": 12}
    skal.run(tmp_path / "photos", "random", **run, **settings, out=tmp_path / "run")
    assert "removed 6 duplicates from the pool" in caplog.text
    caplog.clear()
    found = show_picks(read_result(tmp_path / "run"), load_as, 9)
    assert not found.missing and [sheet.n_images for sheet in found.sheets] == [4, 2]
    assert sum(sheet.n_wrong for sheet in found.sheets) == 0
    assert not caplog.text


def test_class_balance_is_that_of_what_was_picked_after_the_start(tiny: skal.ImageDataset) -> None:
    names = [["low", "middle"], ["top", "top"], ["top", "low"]]
    result, _ = picked([[0, 1], [2, 5], [8, 3]], names, tiny)
    found = class_balance([result, result], tiny)
    assert [(e.name, e.picked, e.pool) for e in found] == [
        ("low", 0.25, pytest.approx(1 / 3)),
        ("middle", 0.0, pytest.approx(1 / 3)),
        ("top", 0.75, pytest.approx(1 / 3)),
    ]
    assert [(e.name, e.pool) for e in class_balance([result], None)] == [
        ("low", None),
        ("top", None),
    ]
    assert class_balance([picked([[0]], [["low"]], tiny)[0]], tiny) == []


# the page


def test_plotly_takes_the_curves() -> None:
    graph = pytest.importorskip("plotly.graph_objects")
    analysis = analyse(made_up_results(n_seeds=2))
    figure = graph.Figure(chart(analysis, analysis["groups"][0]))  # checks every name and value
    lines = [trace for trace in figure.data if trace.showlegend is None]
    assert [trace.name for trace in lines] == ["random", "badge", "margin"]
    assert len(figure.data) == 6
    points = analysis["strategies"]["badge"]["curve"]
    assert list(lines[1].y) == [point["mean"] for point in points]
    assert list(lines[1].x) == [20, 40, 60, 80]
    one = analyse(made_up_results(n_seeds=1))
    assert len(chart(one, one["groups"][0])["data"]) == 3  # no bands


def page_of(results: list[Result], folder: Path) -> str:
    pytest.importorskip("plotly")
    write_report(results, folder, html=True)
    return (folder / "report.html").read_text()


def test_the_page_opens_without_a_network(tmp_path: Path) -> None:
    text = page_of(made_up_results(n_rounds=1), tmp_path)
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    links = re.findall(r"(?:src|href|srcset)=\"([^\"]{0,40})", own)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "default-src 'none'" in own and "url(" not in own and "@import" not in own


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "</script><b id='x'>&\"$"
    text = page_of(
        made_up_results(["random", evil], n_rounds=1, settings=[{"dataset": evil}]), tmp_path
    )
    assert evil not in text and "<b id='x'>" not in text
    assert "&lt;/script&gt;&lt;b id=" in text


def test_the_page_does_without_what_is_not_known(tmp_path: Path) -> None:
    text = page_of(made_up_results(["badge"], n_seeds=1, n_rounds=0), tmp_path)
    assert "there is no run of random" in text
    assert "Not shown: the run did not record its picks" in text
    assert "the runs have no evaluation.json" in text
    assert 'id="efficiency"' not in text and 'id="penalty"' not in text


def said(text: str) -> str:
    """Return the words of a page, without its tags and how its lines are broken."""
    own = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", own)).split())


def test_the_page_says_what_its_figures_rest_on(tmp_path: Path) -> None:
    one = said(page_of(made_up_results(n_seeds=8), tmp_path / "one"))
    assert "Decide on the number of seeds before the first run" in one
    assert "with ten seeds they cover the mean in about 90% of cases, with six in about 85%" in one
    assert "corrected by Holm's method for all 2 comparisons with random on this page" in one
    assert "Overlapping bands do not mean that there is no difference" in one
    assert "a share of the numbers of labels tested (40, 60)" in one
    few = said(page_of(made_up_results(n_seeds=5), tmp_path / "few"))
    assert "The bands are the range of the seeds." in few and "with ten seeds" not in few


def test_the_page_compares_models_and_rates(tmp_path: Path) -> None:
    results = made_up_results(n_seeds=2, n_rounds=1, settings=SETTINGS)
    text = said(page_of(results, tmp_path))
    analysis = json.loads((tmp_path / "comparison.json").read_text())
    for row in [*analysis["models"], *analysis["noise"]]:
        assert row["sentence"] in text
    assert "for all 6 comparisons of models on this page" in text
    assert "random digits, noise 0.3 resnet18 − lenet +0.0000 1 +0.0000 1 0 of 2" in text
    assert "badge digits, lenet noise 0.3 − noise 0 +0.0000 1 +0.0000 1 0 of 2" in text


def test_the_page_ranks_datasets_and_says_how_little_that_is(tmp_path: Path) -> None:
    pytest.importorskip("scikit_posthocs")
    settings = [{"dataset": name} for name in ("digits", "mnist")]
    text = said(page_of(made_up_results(n_rounds=1, settings=settings), tmp_path))
    assert "Both tests count a dataset once" in text and "with 2 they say little" in text
    assert "The datasets: digits; mnist." in text


def test_the_page_names_what_failed(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    write_report(made_up_results(n_rounds=1), tmp_path, html=True, failed=["margin-small-cnn-s3"])
    text = said((tmp_path / "report.html").read_text())
    assert "Warning: 1 run failed and is not included: margin-small-cnn-s3." in text


def test_an_efficiency_that_is_not_always_reached_has_no_lower_end() -> None:
    target = {"low": 0.0, "high": 1.349, "reached": 0.75}
    assert efficiency_interval(target, 8) == "to 1.35; not reached in 25% of resamples"
    assert efficiency_interval({**target, "low": 0.9, "reached": 1.0}, 8) == "0.90 to 1.35"
    assert efficiency_interval({**target, "low": 0.9, "reached": 1.0}, 5) == "–"
    unreached = {"low": None, "high": None, "reached": 0.25}
    assert efficiency_interval(unreached, 8) == "– (not reached in 75% of resamples)"


def test_the_page_is_the_same_for_the_same_runs(tmp_path: Path) -> None:
    pages = [page_of(made_up_results(n_rounds=1), tmp_path / name) for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_a_warning_stands_once_for_all_settings_that_it_is_about(tmp_path: Path) -> None:
    text = page_of(made_up_results(n_rounds=1, settings=SETTINGS[:2]), tmp_path)
    assert text.count('<p class="warning">') == 1
    assert "<strong>Warning:</strong>" in text


def test_arrays_without_a_name_to_load_them_by_are_said_to_be_so(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    run = skal.run(tiny, "random", n_init=6, n_query=3, n_rounds=1, steps=2, out=tmp_path / "run")
    assert run.folder is not None
    text = page_of([read_result(run.folder)], tmp_path / "report")
    assert re.search("Not shown: cannot load the images: unknown dataset .*tiny", text)
    assert "middle" in text  # classes of what was picked are known all the same
    assert 'alt="Confusion matrix of random.' in text


def test_a_damaged_file_is_named(
    tiny: skal.ImageDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    skal.run(tiny, "random", n_init=6, n_query=3, n_rounds=0, steps=2, out=tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_text("{")
    assert "Confusion matrix" not in page_of([read_result(tmp_path / "run")], tmp_path / "report")
    assert "evaluation.json is missing or damaged, and left out" in caplog.text


def test_a_run_keeps_what_its_last_network_got_wrong(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    run = skal.run(tiny, "random", n_init=6, n_query=3, n_rounds=2, steps=4, out=tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    predicted = run.classifier.predict(tiny.X_test)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (tiny.y_test, predicted), 1)
    assert kept["confusion"] == expected.tolist()
    assert kept["classes"] == ["low", "middle", "top"]
    assert np.trace(expected) / len(tiny.y_test) == pytest.approx(run.summary["accuracy"])


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a real, small comparison with its page."""
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("comparison")
    settings: dict[str, Any] = {"n_rounds": 2, "steps": 20, "label_noise": 0.2}
    for strategy in ("random", "margin", "badge"):
        for seed in range(2):
            out = folder / "cells" / f"{strategy}-s{seed}"
            skal.run("digits", strategy, seed=seed, out=out, **settings)
    results = [read_result(path) for path in sorted((folder / "cells").iterdir())]
    (folder / "compare.toml").touch()
    return folder, write_report(results, folder, html=True)


def test_the_page_shows_the_images_that_were_picked(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = compared
    text = (folder / "report.html").read_text()
    sheets = re.findall(r'<img src="data:image/(png|jpeg);base64,([^"]+)" width="(\d+)"', text)
    assert len(sheets) == 3 * 2 * 3
    data = skal.load_dataset("digits", seed=0)
    result = read_result(folder / "cells" / "badge-s0")
    picks = [row["index"] for row in result.queries if row["round"] == 0]
    form, content, width = sheets[0]
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"), int)
    assert found.shape[1] == int(width) == 12 * 35 + 3
    for place in (0, 11, 12, 19):
        y, x = 3 + 35 * (place // 12), 3 + 35 * (place % 12)
        # the centre of each pixel, which JPEG, if it is that, leaves nearly as it was
        thumbnail = found[y + 2 : y + 32 : 4, x + 2 : x + 32 : 4]
        assert np.abs(thumbnail - data.X[picks[place], 0]).max() <= (0 if form == "png" else 60)
    wrong = sum(
        data.classes[data.y[row["index"]]] != row["label"]
        for row in result.queries
        if row["round"] == 1
    )
    assert f"{wrong} labelled wrongly, framed in red" in text


def test_the_page_says_how_the_runs_were_made(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = compared
    text = (folder / "report.html").read_text()
    assert "skal run --config cells/badge-s0/config.toml" in text
    for name, value in (("steps", "20"), ("seed", "0, 1"), ("torch", skal_version("torch"))):
        assert f'<tr><th scope="row">{name}</th><td class="text">{value}</td>' in text


def skal_version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


# in a browser

DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture
def opened(browser: Any, compared: tuple[Path, dict[str, Any]]) -> Iterator[Callable[..., Any]]:
    """Return what opens the page; whatever it says or asks for fails the test at the end."""
    said: list[str] = []
    contexts = []

    def open_page(size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        url = (compared[0] / "report.html").as_uri()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                said.append(f"asked for {asked.url[:80]}")
                if asked.url != url and not asked.url.startswith(("data:", "blob:"))
                else None
            ),
        )
        page.goto(url)
        page.wait_for_selector(".scatterlayer .trace")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def test_the_curves_are_drawn_and_can_be_hovered_and_zoomed(
    opened: Callable[..., Any], compared: tuple[Path, dict[str, Any]]
) -> None:
    page = opened()
    assert page.locator(".scatterlayer .trace").count() == 6  # three lines, three bands
    assert page.locator(".scatterlayer .trace .points path").count() == 3 * 3
    for name in ("random", "margin", "badge"):
        assert page.locator(".legend").get_by_text(name, exact=True).count() == 1
    plot = page.locator(".plot .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = page.locator(".scatterlayer .points path").last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = page.locator(".hoverlayer .hovertext")
    hover.first.wait_for()
    assert re.search(r"60 labels: 0\.\d{4}.*range of the seeds", hover.first.text_content() or "")
    ticks = page.locator(".xtick").all_text_contents()
    area = plot.bounding_box()
    page.mouse.move(area["x"] + 100, area["y"] + 50)
    page.mouse.down()
    page.mouse.move(area["x"] + 300, area["y"] + 200, steps=4)
    page.mouse.up()
    shown = "[...document.querySelectorAll('.xtick')].map(tick => tick.textContent).join()"
    page.wait_for_function(f"before => {shown} != before", arg=",".join(ticks))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(opened: Callable[..., Any], scheme: str) -> None:
    pytest.importorskip("axe_playwright_python")
    for size in (DESKTOP, PHONE):
        told = faults(opened(size, scheme))
        assert not told, "\n".join(told)


def test_the_page_says_the_verdicts_first(
    opened: Callable[..., Any], compared: tuple[Path, dict[str, Any]]
) -> None:
    page = opened()
    assert page.title() == "digits: which strategies beat random?"
    assert page.locator("h2").first.text_content() == "Verdicts"
    analysis = compared[1]
    shown = page.locator(".verdicts li").all_text_contents()
    assert shown == [entry["verdict"] for entry in analysis["strategies"].values()]
    assert page.locator("table").first.is_visible() is False  # the figures of the curves, folded
    figures = page.locator("#figures tbody tr").all_text_contents()
    assert len(figures) == 3 and all("±" in figure for figure in figures)


def test_the_images_of_a_seed_can_be_chosen_by_keyboard(opened: Callable[..., Any]) -> None:
    page = opened()
    sheets = page.locator(".sheet img")
    assert sheets.count() == 18
    assert [sheet.is_visible() for sheet in sheets.all()].count(True) == 9
    page.get_by_label("Show the images of seed").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("h4", has_text="seed 1").first.is_visible()
    assert not page.locator("h4", has_text="seed 0").first.is_visible()
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    page.wait_for_function(f"() => {broken} == 0")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(
    size: tuple[int, int], scheme: str, opened: Callable[..., Any]
) -> None:
    page = opened(size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    background, text, ticks = page.evaluate(
        """() => [
            getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.body).color,
            getComputedStyle(document.querySelector('.xtick text')).fill,
        ]"""
    )
    dark, light = ((22, 24, 28), (255, 255, 255))
    assert rgb(background) == (dark if scheme == "dark" else light)
    for color in (text, ticks):
        assert contrast(rgb(background), rgb(color)) > 7


def rgb(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in re.findall(r"\d+", text)[:3])


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the contrast of two colours as WCAG 2 defines it."""

    def luminance(color: tuple[int, ...]) -> float:
        shares = np.array(color) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_curves_follow_when_the_system_turns_dark(opened: Callable[..., Any]) -> None:
    page = opened()
    fill = "getComputedStyle(document.querySelector('.xtick text')).fill"
    before = page.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => {fill} != {before!r}")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert contrast(rgb(background), rgb(page.evaluate(fill))) > 7


def test_the_page_can_be_listened_to(opened: Callable[..., Any]) -> None:
    page = opened()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.images].filter(i => !i.alt).length") == 0
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.evaluate("[...document.querySelectorAll('th')].filter(t => !t.scope).length") == 0
    ids = page.evaluate("[...document.querySelectorAll('main [id], nav [id]')].map(e => e.id)")
    own = [name for name in ids if not re.match(r"(clip|legend|topdefs|defs|g)", name)]
    assert len(own) == len(set(own))
    targets = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert set(targets) <= set(ids)


def test_on_paper_all_is_unfolded_and_light(opened: Callable[..., Any]) -> None:
    page = opened(scheme="dark")
    pages = page.pdf(format="A4")
    assert pages.startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    page.emulate_media(media="print", color_scheme="dark")
    assert rgb(page.evaluate("getComputedStyle(document.body).backgroundColor")) == (255, 255, 255)
    page.wait_for_function(
        "() => document.querySelector('.main-svg').getBoundingClientRect().width <= 640"
    )
