from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import pty
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from label_server import PATIENCE, serving, write_images
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

import skal
from skal.cli import main
from skal.label.agreement import agreements, disputed
from skal.label.project import LabelProject
from skal.label.store import Action, ModelRow

CLASSES = ("--classes", "low,middle,top")
FAST = ("--image-size", "12", "--steps", "40", "--model", "lenet")


@pytest.fixture
def folder(tmp_path: Path, tiny: skal.ImageDataset) -> Path:
    """Ninety bars at three heights; the height of each is its number modulo three."""
    write_images(tmp_path / "bars", tiny.X[:, 0])
    return tmp_path / "bars"


def skal_(*arguments: object, **options: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)  # type: ignore[arg-type]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def label_all(folder: Path, n: int = 60, who: str = "me", wrong: int = 0) -> None:
    project = LabelProject.open(folder, ["low", "middle", "top"])
    kept = set(project.reserve)
    project.record(
        [
            Action(
                who,
                "label",
                image,
                (image + (image < wrong)) % 3,
                round=0,
                source="test" if image in kept else "strategy",
            )
            for image in range(n)
        ]
    )
    project.close()


def add_models(folder: Path) -> NDArray[np.int64]:
    """Add networks that know all images of the test sample that have a label; return these."""
    project = LabelProject.open(folder, until="90%")
    images = np.array(sorted(project.test_labels))
    for n in (10, 20):
        said = (images % 3).astype(np.int64)
        project.add_model(ModelRow(n, 1.0, images.tobytes(), said.tobytes()))
    project.close()
    return images


def test_the_status_says_how_far_the_labelling_is_and_writes_nothing(
    tmp_path: Path, tiny: skal.ImageDataset
) -> None:
    folder = tmp_path / "bars"
    write_images(folder, np.concatenate([tiny.X[:, 0]] * 4))
    label_all(folder, 30)
    add_models(folder)
    assert "learning curve" not in skal_("label", folder, "--status").stdout  # too few
    label_all(folder, 240)
    images = add_models(folder)
    n_test = len(images)
    before = (folder / ".skal/labels.sqlite").read_bytes()

    done = skal_("label", folder, "--status")

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "240 of 360 images labelled"
    assert lines[1] == "classes: low 80, middle 80, top 80"
    assert lines[3] == "learning curve: 1.00 at 10, 1.00 at 20 labels"
    assert f"target 90%: too early to say: {n_test} of 30 answers" in lines[4]
    assert (folder / ".skal/labels.sqlite").read_bytes() == before
    assert "wanted" not in skal_("label", folder, "--status", "--until", "0%").stdout
    refused = skal_("label", folder, "--status", "--until", "100%")
    assert refused.exit_code == 2
    assert "expected a share below 100%" in refused.output
    refused = skal_("label", folder, "--status", "--until", "95")
    assert (refused.exit_code, "did you mean 95%?" in refused.output) == (2, True)


def test_labelling_in_the_terminal_saves_and_says_so(folder: Path) -> None:
    done = skal_("label", folder, *CLASSES, "--terminal", "--as", "anna", input="12u\x7f3q")
    assert done.exit_code == 0, done.output
    assert f"3 labels are saved in {folder}/.skal/labels.sqlite" in done.stderr
    actions = LabelProject.open(folder).store.actions()
    assert [(a.annotator, a.action, a.label) for a in actions] == [
        ("anna", "label", 0),
        ("anna", "label", 1),
        ("anna", "unsure", None),
        ("anna", "undo", None),
        ("anna", "label", 2),
    ]


INTERRUPTED = "Error: interrupted\nall answers are kept; the same command continues\n"


def test_ctrl_c_while_a_class_is_typed_ends_it_as_elsewhere(folder: Path) -> None:
    done = skal_("label", folder, *CLASSES, "--terminal", input="1/")  # click ends both alike
    assert done.exit_code == 130
    assert done.stderr.endswith(INTERRUPTED)
    assert [action.action for action in LabelProject.open(folder).store.actions()] == ["label"]


def test_a_real_terminal_gets_a_picture_and_ctrl_c_ends_it(folder: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["label", str(folder), *CLASSES, "--terminal"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        [sys.executable, "-m", "skal", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    end = time.monotonic() + PATIENCE
    while b"middle: saved" not in shown and time.monotonic() < end:
        if b"starting round" in shown:  # a key pressed before the terminal listens for one is lost
            os.write(ours, b"2")
        if select.select([ours], [], [], 0.2)[0]:
            shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    while process.poll() is None and time.monotonic() < end:
        if select.select([ours], [], [], 0.05)[0]:
            with suppress(OSError):  # the other side is closed
                os.read(ours, 65536)
    assert "▀".encode() in shown
    assert process.stderr is not None
    err = process.stderr.read().decode()
    process.stderr.close()
    os.close(ours)
    assert process.returncode == 130, err
    assert re.search(r"[1-9]\d* labels? (is|are) saved", err)
    assert err.endswith(INTERRUPTED)
    assert "Traceback" not in err


def test_no_bar_is_drawn_into_a_real_terminal_where_it_is_not_wanted(
    folder: Path, data_dir: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from skal.datasets.folder import load_folder; "
        "load_folder(Path(sys.argv[1]), data_dir=Path(sys.argv[2]))"
    )
    for wanted in (True, False):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
        subprocess.run(
            [sys.executable, "-c", code, str(folder), str(data_dir / str(wanted))],
            stderr=theirs,
            stdout=subprocess.DEVNULL,
            env=environment if wanted else {**environment, "TQDM_DISABLE": "1"},
            check=True,
        )
        drawn = b""
        while select.select([ours], [], [], 0.2)[0]:
            drawn += os.read(ours, 65536)
        os.close(theirs)
        os.close(ours)
        assert (b"decoding" in drawn) is wanted


@pytest.mark.parametrize("debug", [False, True])
def test_where_a_defect_happened_is_shown_to_who_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    log = logging.getLogger("skal")

    def serve(*_: object, **__: object) -> None:
        try:
            math.sqrt(-1)
        except ValueError:
            log.exception("a request could not be answered")
        log.warning("no batch", extra={"details": "Traceback of the worker"})

    monkeypatch.setattr("skal.label.web.server.serve", serve)
    done = skal_(*["--debug"][: int(debug)], "label", folder, *CLASSES, "--no-browser")
    assert done.exit_code == 0, done.output
    assert ("math domain error" in done.stderr) is debug
    assert ("Traceback of the worker" in done.stderr) is debug


def test_a_class_is_renamed_on_the_command_line(folder: Path) -> None:
    label_all(folder, 6)
    done = skal_("label", folder, "--rename-class", "low=bottom", "--rename-class", "top=high")
    assert done.exit_code == 0, done.output
    assert done.stdout == "classes: bottom, middle, high\n"
    rows = rows_of(skal_("export", folder, "--format", "csv").stdout)
    assert {row["label"] for row in rows} == {"bottom", "middle", "high"}
    for wrong in ("low=x", "middle", "middle=high"):
        done = skal_("label", folder, "--rename-class", "bottom=lowest", "--rename-class", wrong)
        assert done.exit_code == 2
    assert LabelProject.open(folder).classes == ["bottom", "middle", "high"]


def test_an_older_export_is_imported_after_its_class_was_renamed_or_merged(
    folder: Path, tmp_path: Path
) -> None:
    label_all(folder, 6)
    old = tmp_path / "old.csv"
    skal_("export", folder, "--format", "csv", "--out", old)
    before = rows_of(old.read_text())
    done = skal_("label", folder, "--rename-class", "low=bottom", "--merge-class", "top=middle")
    assert (done.exit_code, done.stdout) == (0, "classes: bottom, middle\n"), done.output
    done = skal_("import", folder, old)
    assert done.stdout.endswith("0 new, 0 changed, 6 unchanged\n"), done.output
    now = {"low": "bottom", "middle": "middle", "top": "middle"}
    rows = rows_of(skal_("export", folder, "--format", "csv").stdout)
    assert [row["label"] for row in rows] == [now[row["label"]] for row in before]
    done = skal_("label", folder, *CLASSES, "--terminal", input="q")  # as ever
    assert "the class 'low' was renamed to 'bottom'; no class was added" in done.stderr
    assert LabelProject.open(folder).classes == ["bottom", "middle"]


@pytest.mark.parametrize("other", ["--status", "--agreement", "--terminal", "--restore"])
def test_a_change_of_classes_is_not_passed_over(folder: Path, other: str) -> None:
    label_all(folder, 6)
    done = skal_("label", folder, "--merge-class", "low=top", other)
    assert done.exit_code == 2
    assert other in done.output and "a change of classes" in done.output
    assert "expected one of them" in done.output
    assert LabelProject.open(folder).classes == ["low", "middle", "top"]


@pytest.mark.parametrize(
    ("idle", "beside"),
    [
        (["--keys", "low=l"], ["--status"]),
        (["--as", "ben"], ["--agreement"]),
        (["--port", "0"], ["--terminal"]),
        (["--classes", "low,high"], ["--rename-class", "low=bottom"]),
        (["--seed", "1"], ["--restore"]),
    ],
)
def test_an_option_that_changes_nothing_beside_another_is_an_error(
    folder: Path, idle: list[str], beside: list[str]
) -> None:
    label_all(folder, 6)
    done = skal_("label", folder, *idle, *beside, input="q")
    assert done.exit_code == 2
    assert f"{idle[0]} has no effect with {beside[0]}; leave it out" in done.output
    assert LabelProject.open(folder).classes == ["low", "middle", "top"]


def test_the_terminal_is_for_one_person(folder: Path) -> None:
    done = skal_("label", folder, *CLASSES, "--terminal", "--as", "anna", "--as", "ben", input="q")
    assert (done.exit_code, "expected one --as" in done.output) == (2, True)


def test_classes_of_a_folder_that_is_being_labelled_stay(folder: Path) -> None:
    label_all(folder, 6)
    project = LabelProject.open(folder, alone=True)
    done = skal_("label", folder, "--rename-class", "low=bottom")
    assert (done.exit_code, "stop that with Ctrl-C" in done.output) == (1, True)
    project.close()
    assert skal_("label", folder, "--rename-class", "low=bottom").exit_code == 0


def test_a_damaged_store_is_told_with_its_copy_which_can_be_taken(folder: Path) -> None:
    label_all(folder, 6)
    home = folder / ".skal"
    store, copy = home / "labels.sqlite", home / "labels-copy.sqlite"
    assert not copy.exists()  # when it was opened, there was nothing to be lost
    skal_("label", folder, "--terminal", input="q")
    os.utime(copy, (0, 0))  # of yesterday, or long ago
    skal_("label", folder, "--terminal", input="q")
    assert copy.stat().st_mtime > 0
    with sqlite3.connect(store) as connection:  # one row alone is other than it was written
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE actions SET label = 2 WHERE id = 1")
    assert skal_("label", folder, "--restore").exit_code == 0
    store.write_bytes(b"no database" * 1000)
    done = skal_("label", folder, "--terminal", input="q")
    assert done.exit_code == 1
    assert "not a database; there is a backup of " in done.stderr
    assert "skal label FOLDER --restore restores it" in done.stderr
    done = skal_("label", folder, "--restore")
    assert (done.exit_code, "the backup with 6 answers" in done.stdout) == (0, True), done.output
    assert len(LabelProject.open(folder).ledger.labels) == 6
    assert any(path.name.startswith("damaged-") for path in home.iterdir())


def test_labels_that_are_not_damaged_are_not_given_up_for_their_copy(folder: Path) -> None:
    label_all(folder, 6)
    skal_("label", folder, "--terminal", input="q")  # the copy of today
    label_all(folder, 3)
    store = folder / ".skal/labels.sqlite"
    before = store.read_bytes()
    done = skal_("label", folder, "--restore")
    assert (done.exit_code, "are not damaged, so nothing was restored" in done.output) == (2, True)
    assert store.read_bytes() == before and not [*store.parent.glob("damaged-*")]
    store.rename(store.with_name("mine.sqlite"))
    done = skal_("label", folder, "--restore")
    assert (done.exit_code, "the backup with 6 answers" in done.stdout) == (0, True), done.output
    assert "damaged" not in done.stdout


def test_labels_that_another_skal_wrote_are_not_given_up_for_their_copy(folder: Path) -> None:
    label_all(folder, 6)
    skal_("label", folder, "--terminal", input="q")  # the copy of today
    store = folder / ".skal/labels.sqlite"
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER meta_update")
        connection.execute("UPDATE meta SET value = '3' WHERE name = 'format'")
    done = skal_("label", folder, "--restore")
    assert (done.exit_code, "has format 3" in done.output) == (1, True), done.output
    assert not [*store.parent.glob("damaged-*")]


def test_keys_are_chosen_on_the_command_line_and_kept(folder: Path) -> None:
    done = skal_("label", folder, *CLASSES, "--keys", "low=l,top=t", "--terminal", input="ltq")
    assert done.exit_code == 0, done.output
    assert "l low   2 middle   t top" in done.stdout
    assert "l low   2 middle   t top" in skal_("label", folder, "--terminal", input="q").stdout
    wrong = {
        "low=top": "got the key 'top'",
        "low": "expected CLASS=KEY",
        "lo=x": "did you mean low",
    }
    wrong |= {
        "middle=t": "cannot belong to both 'middle' and 'top'",
        "low=/": "other than space, slash",
    }
    for keys, told in wrong.items():
        done = skal_("label", folder, "--keys", keys, "--terminal", input="q")
        assert (done.exit_code, told in done.output) == (2, True), done.output


def test_settings_are_kept_for_the_next_time(folder: Path) -> None:
    first = ("--strategy", "bald", "--strategy-param", "n_samples=7", "--n-query", "33")
    skal_("label", folder, *CLASSES, *first, "--overlap", "10%", "--terminal", input="q")
    skal_("label", folder, "--n-query", "12", "--terminal", input="q")
    project = LabelProject.open(folder)
    assert project.config.strategy_params == {"n_samples": 7}
    assert (project.config.strategy, project.n_query, project.terms.overlap) == ("bald", 12, 0.1)


def test_what_is_asked_of_a_query_or_a_training_is_not_kept(folder: Path, tmp_path: Path) -> None:
    label_all(folder)
    before = (folder / ".skal/project.toml").read_text()
    skal_("query", folder, "--n-query", "3", "--strategy", "random", *FAST, "--steps", "2")
    skal_("train", folder, "--out", tmp_path / "model", *FAST, "--steps", "2")
    assert (folder / ".skal/project.toml").read_text() == before


def test_agreement_is_cohens_kappa_and_names_what_is_disputed(folder: Path) -> None:
    nobody = skal_("label", folder, *CLASSES, "--agreement")
    assert "no image was labelled by two people; --overlap 10% shows some" in nobody.stdout
    assert not (folder / ".skal").exists()
    label_all(folder, 30, "anna")
    label_all(folder, 20, "ben", wrong=5)
    done = skal_("label", folder, "--agreement")
    assert done.exit_code == 0, done.output
    one = [n % 3 for n in range(20)]
    other = [(n + (n < 5)) % 3 for n in range(20)]
    kappa = cohen_kappa_score(one, other)
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"anna and ben: 20 images, 15 with the same label, Cohen's kappa {kappa:.3f}"
    )
    assert "5 images with different labels:" in lines
    assert "00000.png\tanna: low, ben: middle" in lines
    project = LabelProject.open(folder)
    assert [path for path, _ in disputed(project)] == [f"{n:05d}.png" for n in range(5)]


def test_kappa_of_one_class_alone_is_not_defined(folder: Path) -> None:
    project = LabelProject.open(folder, ["low", "middle", "top"])
    for who in ("a", "b"):
        project.record([Action(who, "label", image, 0, round=0) for image in (0, 3)])
    (pair,) = agreements(project)
    assert math.isnan(pair.kappa)
    assert str(pair).endswith("Cohen's kappa undefined (only one class)")


def test_a_query_goes_out_and_comes_back(folder: Path, tmp_path: Path) -> None:
    label_all(folder)
    arguments = ("--n-query", "20", "--strategy", "margin", *FAST)
    listed = skal_("query", folder, *arguments)
    assert listed.exit_code == 0, listed.output
    paths = listed.stdout.split()
    assert len(set(paths)) == 20
    table = tmp_path / "next.csv"
    assert skal_("query", folder, *arguments, "--format", "csv", "--out", table).exit_code == 0
    rows = rows_of(table.read_text())
    assert [row["path"] for row in rows] == paths
    for row in rows:
        row["label"] = ["low", "middle", "top"][int(row["path"][:5]) % 3]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = skal_("import", folder, table, "--as", "elsewhere")
    assert done.stdout == f"{table}: 20 new, 0 changed, 0 unchanged\n"
    project = LabelProject.open(folder)
    assert len(project.labels) == 80
    tests = [row["path"] for row in rows if row["source"] == "test"]
    assert tests
    assert {project.paths[n] for n in project.test_labels} >= set(tests)


def test_a_query_of_a_plain_folder_writes_nothing(folder: Path) -> None:
    done = skal_("query", folder, "--n-query", "9", "--image-size", "12")
    assert done.exit_code == 0, done.output
    assert {int(path[:5]) % 3 for path in done.stdout.split()} == {0, 1, 2}
    tasks = skal_("query", folder, "--n-query", "3", "--format", "label-studio", *FAST)
    assert len(json.loads(tasks.stdout)) == 3
    assert not (folder / ".skal").exists()


def test_exports_go_to_stdout_or_to_a_file(folder: Path, tmp_path: Path) -> None:
    label_all(folder, 12)
    table = skal_("export", folder, "--format", "csv").stdout
    assert len(rows_of(table)) == 12
    skal_("export", folder, "--format", "csv", "--out", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == table
    tasks = skal_("export", folder, "--format", "label-studio")
    assert len(json.loads(tasks.stdout)) == 90
    assert '<Choice value="middle"/>' in tasks.stderr
    done = skal_("export", folder, "--format", "folder")
    assert f"12 images in {tmp_path}/bars-labeled" in done.stderr
    assert len(list((tmp_path / "bars-labeled/low").iterdir())) == 4
    # what came out is a folder that can be trained on
    data = skal.load_dataset(tmp_path / "bars-labeled", image_size=12)
    assert data.classes == ("low", "middle", "top")


def test_labels_that_come_in_may_begin_a_project(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\n00001.png,middle\n")
    assert skal_("import", folder, tmp_path / "x.csv").exit_code == 2
    done = skal_("import", folder, tmp_path / "x.csv", *CLASSES)
    assert done.exit_code == 0, done.output
    assert LabelProject.open(folder).labels == {1: 1}


def test_a_table_beside_the_images_is_named_to_who_has_no_classes(folder: Path) -> None:
    (folder / "sizes.csv").write_text("path,width\n00001.png,12\n")
    assert "table" not in skal_("label", folder, "--status").stderr
    table = folder / "their labels.csv"
    table.write_text("path,label\n00001.png,top\n")
    told = "folder: skal import .* --classes top,..., with another class, as it has only 'top'"
    assert re.search(told, skal_("label", folder, "--status").stderr)
    table.write_text("path,label\n00001.png,top\n00002.png,low\n")
    told = f"import the table in the folder: skal import {folder} '{table}' --classes low,top"
    for command in (("label", folder, "--status"), ("train", folder), ("doubts", folder)):
        assert told in skal_(*command).stderr


@pytest.mark.parametrize("names", [("low", "top"), ("it's low", "-top"), ("top", "low, or lower")])
def test_the_command_that_takes_in_the_table_that_is_there_does(
    folder: Path, names: tuple[str, str]
) -> None:
    rows = [f'0000{n}.png,"{name}"\n' for n, name in enumerate(names)]
    (folder / "labels.csv").write_text("path,label\n" + "".join(rows))
    told = skal_("label", folder, "--status").stderr.strip()
    _, *command = shlex.split(told[told.index("skal import") :])
    done = skal_(*command)
    assert "2 new, 0 changed" in done.stdout, done.output
    assert {*LabelProject.open(folder).classes} == {*names}


def test_what_somebody_may_have_filled_in_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    label_all(folder, 6)
    filled = tmp_path / "next.csv"
    filled.write_text("path,label,source\n00080.png,top,strategy\n")
    before = filled.read_text()
    for command in (("query", folder), ("export", folder)):
        done = skal_(*command, "--format", "csv", "--out", filled)
        assert done.exit_code == 2
        assert "already exists; choose another --out" in done.stderr
    assert filled.read_text() == before


def test_train_and_predict_end_with_a_table_of_probabilities(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    label_all(folder)
    done = skal_("train", folder, *FAST)
    assert done.exit_code == 0, done.output
    run = Path("runs/bars-label-lenet-s0")
    assert f"{run}: lenet trained on 60 labels" in done.stdout
    assert "randomly drawn test images" in done.stdout
    again = skal_("train", folder, "--json", *FAST, "--steps", "2")
    assert json.loads(again.stdout)["folder"] == "runs/bars-label-lenet-s0-2"
    out = tmp_path / "predictions.csv"
    predicted = skal_("predict", run, folder, "--out", out)
    assert predicted.exit_code == 0, predicted.output
    rows = rows_of(out.read_text())
    assert list(rows[0]) == ["path", "class", "probability", "p_low", "p_middle", "p_top"]
    expected = [["low", "middle", "top"][n % 3] for n in range(90)]
    assert np.mean([row["class"] for row in rows] == np.array(expected)) > 0.9
    one = skal_("predict", run, folder / "00001.png")
    assert rows_of(one.stdout)[0] == rows[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("label", "none", *CLASSES), 2, "'none' does not exist; expected a folder of images"),
        (("label", "empty", *CLASSES), 1, "no images under 'empty'"),
        (("label", "bars"), 2, "there are no classes; expected at least two"),
        (("label", "full"), 2, "all 2 images are in class folders: nothing is left to label"),
        (("label", "bars", "--classes", "a,b,a"), 2, "the class 'a' is named twice"),
        (("label", "bars", "--classes", "a,,b"), 2, "the class '' has 0 characters"),
        (("label", "bars", *CLASSES, "--strategy", "badg"), 2, "did you mean badge"),
        (
            ("label", "bars", *CLASSES, "--strategy", "no_such_module:Y"),
            2,
            "cannot import 'no_such_module:Y'",
        ),
        (("label", "bars", *CLASSES, "--strategy-param", "x"), 2, "expected NAME=VALUE"),
        (
            ("label", "bars", *CLASSES, "--strategy", "bald", "--strategy-param", "n_sample=3"),
            2,
            "unknown parameter of bald 'n_sample'; did you mean n_samples",
        ),
        (("label", "bars", *CLASSES, "--init-strategy", "stratified"), 2, "stratified"),
        (("label", "bars", *CLASSES, "--overlap", "120%"), 2, "overlap: got '120%'"),
        (("label", "bars", *CLASSES, "--port", "70000"), 2, "70000"),
        (("label", "bars", *CLASSES, "--as", "x" * 80), 2, "as: got"),
        (("label", "bars", *CLASSES, "--as", ""), 2, "as: got"),
        (("query", "bars", "--out", "missing/x.csv"), 2, "the folder 'missing' does not exist"),
        (("predict", "none", "bars", "--out", "missing/x.csv"), 2, "'missing' does not exist"),
        (("predict", "bars", "bars"), 1, "no usable model in 'bars': it has no model.json"),
        (("label", "bars", *CLASSES, "--host", "no such host"), 2, "--host: 'no such host' is not"),
        (("import", "bars", "none.csv", *CLASSES), 1, "cannot read 'none.csv'"),
        (("import", "bars", "bars", *CLASSES, "--as", " "), 2, "as: got"),
        (("export", "bars", "--format", "yaml"), 2, "yaml"),
        (("train", "bars"), 2, "there are no classes"),
        (("predict", "none", "bars"), 1, "no usable model in 'none'"),
        (("predict", "none", "none.png"), 1, "'none.png' does not exist"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in "ab":
        write_images(tmp_path / "full" / name, np.zeros((1, 4, 4), np.uint8))
    done = skal_(*arguments, *(("--no-browser",) if arguments[0] == "label" else ()))
    assert done.exit_code == code, done.output
    told = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(told) == 1
    assert message in told[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bars/.skal").exists()


def test_a_taken_port_is_told(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        port = server.url.split(":")[2].partition("/")[0]
        (folder.parent / "other").mkdir()
        (folder / "00000.png").rename(folder.parent / "other/a.png")
        done = skal_("label", folder.parent / "other", *CLASSES, "--no-browser", "--port", port)
    assert done.exit_code == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr
    assert not (folder.parent / "other/.skal").exists()


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_extra_is_told_before_anything_is_written(folder: Path, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from skal.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "label", str(folder), *CLASSES],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: skal label needs the package {package!r}: pip install 'skal[label]'\n"
    )
    assert not (folder / ".skal").exists()


def test_the_terminal_needs_no_extra(folder: Path) -> None:
    code = "import sys; sys.modules['starlette'] = None; from skal.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "label", str(folder), *CLASSES, "--agreement"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_help_and_labelling_import_no_torch() -> None:
    code = (
        "import sys, skal.label.web.server, skal.label.service, skal.label.terminal"
        ", skal.label.exporting, skal.label.importing, skal.label.studio.exchange"
        ", skal.label.studio.backend"
        "; print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_class_with_a_comma_in_its_name_is_given_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "images", np.zeros((3, 8, 8), np.uint8), ["0.png", "1.png", "2.png"])
    (tmp_path / "labels.csv").write_text('path,label\n0.png,"dark, night"\n1.png,light\n')
    words = ["import", str(tmp_path / "images"), str(tmp_path / "labels.csv")]
    done = CliRunner().invoke(main, [*words, "--class", "dark, night", "--classes", "light,grey"])
    assert done.exit_code == 0, done.output
    text = CliRunner().invoke(main, ["export", words[1], "--format", "csv"]).stdout
    assert '"dark, night"' in text and "light" in text
