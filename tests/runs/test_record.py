from __future__ import annotations

import csv
import errno
import json
import logging
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import skal
from skal.core.errors import RunExistsError, RunFolderError, UnknownNameError
from skal.runs.config import RunConfig
from skal.runs.journal import Journal
from skal.runs.record import (
    QUERY_COLUMNS,
    ROUND_COLUMNS,
    Answers,
    Record,
    check_free,
    check_run_folder,
    class_ids,
    free_name,
    is_begun,
    is_finished,
    log_file,
)

NO_ONES = Path("/proc/self")
ENTRIES = [{"event": "a", "value": 0.1}, {"event": "b", "text": "ä\n\udce9"}, {"event": "c"}]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in ENTRIES:
        journal.append(entry)
    return journal


def row(number: int) -> dict[str, float]:
    return {**dict.fromkeys(ROUND_COLUMNS, 0.5), "round": number, "n_labeled": 2 * number + 2}


def started(folder: Path) -> Record:
    record = Record.create(folder, RunConfig(), {"device": "cpu"}, {"oracle": "TrueLabels"})
    record.add_labels(Answers([4, 2], [1, 0], ["one/4.png", "zero/2.png"], ["one", "zero"]), {}, {})
    record.add_round(row(0), seconds=1.5)
    later = Answers([0], [1], ["one/caf\udce9.png"], ["one"])
    record.add_labels(later, {"query_seconds": 0.25}, {})
    return record


def test_a_journal_gives_back_what_it_was_given(journal: Journal) -> None:
    assert journal.read() == ENTRIES


def test_each_line_carries_its_checksum(journal: Journal) -> None:
    for line in journal.path.read_bytes().splitlines():
        checksum, _, text = line.partition(b" ")
        assert int(checksum, 16) == zlib.crc32(text)
        assert json.loads(text) in ENTRIES


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(journal: Journal) -> None:
    whole = journal.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        journal.path.write_bytes(whole[:size])
        n_whole = sum(end <= size for end in ends)
        assert journal.read() == ENTRIES[:n_whole], size
        journal.append({"event": "next"})
        assert journal.read() == [*ENTRIES[:n_whole], {"event": "next"}], size


def test_what_was_cut_off_is_said(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-3])
    journal.read()
    assert "journal.jsonl: skipped the incomplete last line" in caplog.text


def test_zeros_at_the_end_as_after_a_power_loss_are_cut_off(journal: Journal) -> None:
    with journal.path.open("ab") as file:
        file.write(bytes(100))
    assert journal.read() == ENTRIES


@pytest.mark.parametrize("number", [1, 2])
def test_damage_before_the_end_is_an_error_with_its_line(journal: Journal, number: int) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(b"event", b"evemt")
    damaged = b"".join(lines)
    journal.path.write_bytes(damaged)
    with pytest.raises(RunFolderError, match=f"journal.jsonl, line {number}: damaged"):
        journal.read()
    assert journal.path.read_bytes() == damaged


def test_damage_before_a_torn_end_is_an_error_too(journal: Journal) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + b"00000000 {}\n" + lines[2][:5])
    with pytest.raises(RunFolderError, match="line 2: damaged"):
        journal.read()


def test_a_journal_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is missing"):
        Journal(tmp_path / "journal.jsonl").read()


def test_a_write_that_fails_leaves_the_journal_as_it_was(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = journal.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        journal.append({"event": "d"})
    assert caught.value.filename == str(journal.path)
    assert journal.path.read_bytes() == before


def test_a_record_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    kept = started(tmp_path / "run")
    read, config = Record.open(tmp_path / "run")
    assert read == kept
    assert config == RunConfig()
    assert read.labels == [([4, 2], [1, 0]), ([0], [1])]
    assert read.seconds == 1.5
    assert read.query_seconds == {"query_seconds": 0.25}
    assert read.facts == {"oracle": "TrueLabels"}
    assert not read.finished


def test_the_tables_have_the_columns_that_are_promised(tmp_path: Path) -> None:
    started(tmp_path / "run")
    with (tmp_path / "run/queries.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == QUERY_COLUMNS == ("round", "rank", "index", "path", "label")
    assert [list(row.values()) for row in rows] == [
        ["0", "0", "4", "one/4.png", "one"],
        ["0", "1", "2", "zero/2.png", "zero"],
        ["1", "0", "0", "one/caf\udce9.png", "one"],
    ]
    header = (tmp_path / "run/rounds.csv").read_text().splitlines()[0]
    assert header == (
        "round,n_labeled,accuracy,balanced_accuracy,macro_f1,nll,ece,"
        "fit_seconds,score_seconds,query_seconds"
    )


def test_tables_and_leftovers_are_set_right_when_a_crash_came_between(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started(folder)
    whole = (folder / "queries.csv").read_bytes()
    (folder / "queries.csv").write_bytes(whole[:30])
    (folder / "rounds.csv").unlink()
    (folder / ".queries.csv.99.tmp").write_text("half")
    record, _ = Record.open(folder)
    record.repair()
    assert (folder / "queries.csv").read_bytes() == whole
    assert len((folder / "rounds.csv").read_text().splitlines()) == 2
    assert not list(folder.glob(".*"))


def test_what_a_table_could_not_take_is_kept_and_comes_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal has it: a label that was given must not be given again."""
    record = started(tmp_path / "run")
    path = tmp_path / "run/rounds.csv"
    path.unlink()
    path.mkdir()  # in the place of a disk that fails
    record.add_round(row(1), seconds=2.0)
    assert "rounds.csv cannot be written yet" in caplog.text
    path.rmdir()
    record.add_labels(Answers([1], [0], ["zero/1.png"], ["zero"]), {}, {})
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["round", "0", "1"]
    path.unlink()
    record.write_summary({"accuracy": 1.0})
    assert len(path.read_text().splitlines()) == 3
    assert not Record.open(tmp_path / "run")[0].altered()


def test_a_record_without_a_folder_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = Record()
    record.add_labels(Answers([1], [0], [""], ["zero"]), {}, {})
    record.add_round(row(0), 1.0)
    record.write_summary({})
    assert [query["index"] for query in record.queries] == [1]
    assert record.finished
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_filled_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("skal.runs.record.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        Record.create(tmp_path / "run", RunConfig(), {"device": "cpu"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["file", "folder", "broken link"])
def test_what_exists_is_not_overwritten(tmp_path: Path, what: str) -> None:
    path = tmp_path / "run"
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunExistsError, match=r"already exists.*--out") as caught:
        check_free(path)
    assert caught.value.exit_code == 2
    assert "resume" not in str(caught.value)
    with pytest.raises(RunExistsError):
        Record.create(path, RunConfig(), {"device": "cpu"})


def test_an_unfinished_run_in_the_way_can_be_gone_on_with(tmp_path: Path) -> None:
    record = started(tmp_path / "my run")
    with pytest.raises(RunExistsError, match=r"skal resume '.*/my run'"):
        check_free(tmp_path / "my run")
    record.write_summary({"accuracy": 1.0})
    assert record.finished and record.summary == {"accuracy": 1.0}
    assert json.loads((tmp_path / "my run/summary.json").read_text()) == {"accuracy": 1.0}
    assert json.loads((tmp_path / "my run/environment.json").read_text()) == {"device": "cpu"}
    with pytest.raises(RunExistsError) as caught:
        check_free(tmp_path / "my run")
    assert "resume" not in str(caught.value)


def test_free_names_are_numbered_from_two_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits"
    assert free_name(folder) == folder
    folder.mkdir(parents=True)
    assert free_name(folder).name == "digits-2"
    folder.with_name("digits-2").write_text("")
    assert free_name(folder).name == "digits-3"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no run folder"),
        (lambda folder: folder.write_text(""), "there is no run folder"),
        (lambda folder: folder.mkdir(), "is not a run folder .it has no config.toml"),
    ],
)
def test_other_folders_are_no_runs(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(RunFolderError, match=message):
        Record.open(tmp_path / "x")


@pytest.mark.parametrize("content", ["seed = \n", "sead = 1\n", "seed = -1\n"])
def test_settings_that_are_damaged_are_the_folders_fault(tmp_path: Path, content: str) -> None:
    started(tmp_path / "run")
    (tmp_path / "run/config.toml").write_text(content)
    with pytest.raises(RunFolderError, match="run") as caught:
        Record.open(tmp_path / "run")
    assert caught.value.exit_code == 1


def test_settings_that_are_damaged_are_those_of_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = RunConfig(strategy="margin", n_query=7)
    Record.create(tmp_path / "run", config, {}, {"config": config.as_dict()})
    path = tmp_path / "run/config.toml"
    whole = path.read_bytes()
    for content in (b"seed = ", b"", None):
        path.unlink() if content is None else path.write_bytes(content)
        if content != b"":  # which would be all defaults
            assert Record.open(tmp_path / "run")[1] == config
            assert "config.toml is damaged: using the run's journal" in caplog.text
            assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["queries.csv", "rounds.csv", "summary.json", "environment.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "other"])
def test_the_journal_is_the_truth(
    name: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started(tmp_path / "run").write_summary({"accuracy": 1.0})
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(whole[:0])
    if damage == "other":
        path.write_bytes(whole.replace(b"0", b"1").replace(b"cpu", b"gpu"))
    record, _ = Record.open(tmp_path / "run")
    assert record.summary == {"accuracy": 1.0}
    record.repair()
    assert path.read_bytes() == whole
    assert (f"{name} differs from the run's journal" in caplog.text) is (damage == "other")


def test_a_kept_file_is_whole_as_long_as_it_is_what_was_written(tmp_path: Path) -> None:
    started(tmp_path / "run").write_kept("net", b"numbers")
    record, _ = Record.open(tmp_path / "run")
    assert record.is_whole("net") and not record.is_whole("rounds.csv")
    for content in (b"numbert", b"", b"numbers!"):
        (tmp_path / "run/net").write_bytes(content)
        assert not record.is_whole("net")
    (tmp_path / "run/net").unlink()
    assert not record.is_whole("net")


def test_answers_have_the_paths_and_the_names_of_their_classes(tiny: skal.ImageDataset) -> None:
    labels = np.array([1, 0])
    names = [tiny.classes[1], tiny.classes[0]]
    given = Answers.of(tiny, np.array([4, 2]), labels)
    assert given == Answers([4, 2], [1, 0], ["", ""], names)
    named = replace(tiny, paths=[f"{number}.png" for number in range(len(tiny.y))])
    assert Answers.of(named, np.array([4, 2]), labels).paths == ["4.png", "2.png"]
    assert json.dumps(given.indices + given.labels) == "[4, 2, 1, 0]"


def test_labels_may_be_ids_or_names() -> None:
    classes = ["daisy", "rose"]
    for labels in (["rose", "daisy"], np.array(["rose", "daisy"], dtype=object), [1, 0]):
        assert class_ids(labels, classes).tolist() == [1, 0]
    assert class_ids("rose", classes).tolist() == [1]
    assert class_ids(np.array([1, 0], dtype=object), classes).dtype.kind == "i"
    assert class_ids(np.array(["rose"])[:0], classes).dtype == np.int64
    with pytest.raises(UnknownNameError, match=r"unknown class 'rosse'; did you mean rose"):
        class_ids(["daisy", "rosse"], classes)


def edited(tmp_path: Path, **changes: object) -> tuple[Path, RunConfig]:
    """Begin a run, edit its settings, and return its folder and the settings of the start."""
    config = RunConfig(strategy="margin", n_rounds=3)
    Record.create(tmp_path / "run", config, {}, {"config": config.as_dict()})
    (tmp_path / "run/config.toml").write_text(config.replace(**changes).to_toml())
    return tmp_path / "run", config


def test_settings_that_are_edited_before_a_run_goes_on_are_kept_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    folder, config = edited(tmp_path, n_rounds=5)
    record, now = Record.open(folder)
    assert now == config.replace(n_rounds=5)
    record.keep_config(now)
    assert caplog.messages == ["n_rounds was 3, and is 5 in config.toml"]
    journal = (folder / "journal.jsonl").read_bytes()
    record.keep_config(now)
    assert (folder / "journal.jsonl").read_bytes() == journal
    assert Record.open(folder)[0].facts["config"] == now.as_dict()


def test_of_a_run_that_is_done_only_where_it_lies_may_be_edited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skal")
    folder, config = edited(tmp_path, dataset="elsewhere", strategy="entropy")
    Record.open(folder)[0].write_summary({})
    assert Record.open(folder)[1] == config.replace(dataset="elsewhere")
    path = folder / "config.toml"
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    was = f"{path}: strategy is 'entropy', but the run used 'margin', which is kept"
    moved = f"{path}: dataset is 'elsewhere', and was {config.dataset!r} in the run"
    assert levels == {was: "WARNING", moved: "INFO"}


def test_held_out_images_and_details_of_choices_are_read_back(tmp_path: Path) -> None:
    record = started(tmp_path / "run")
    record.add_valid(Answers([9, 8], [1, 0], ["one/9.png", "zero/8.png"], ["one", "zero"]))
    record.add_labels(Answers([3], [0], [""], ["zero"]), {}, {"radius": 0.5})
    record.add_round(row(1), seconds=9.5, predicted=np.array([1, 0, 1]))
    valid = b"index,path,label\n9,one/9.png,one\n8,zero/8.png,zero\n"
    assert (tmp_path / "run/valid.csv").read_bytes() == valid
    read, _ = Record.open(tmp_path / "run")
    assert read == record
    assert read.valid["indices"] == [9, 8]
    assert read.details == [{}, {}, {"radius": 0.5}]
    assert read.predicted == [1, 0, 1]
    assert read.seconds == 9.5
    (tmp_path / "run/valid.csv").write_bytes(b"")
    read.repair()
    assert (tmp_path / "run/valid.csv").read_bytes() == valid


def test_a_run_that_is_trained_on_is_not_done_any_more(tmp_path: Path) -> None:
    for number, add in enumerate(
        (
            lambda record: record.add_valid(Answers([9], [1], [""], ["one"])),
            lambda record: record.add_labels(Answers([9], [1], [""], ["one"]), {}, {}),
            lambda record: record.add_round(row(1), 2.0),
        )
    ):
        folder = tmp_path / str(number)
        record = started(folder)
        record.write_summary({})
        assert is_finished(folder) and Record.open(folder)[0].finished
        add(record)
        assert not is_finished(folder)
        assert not record.finished and not Record.open(folder)[0].finished


def test_metrics_of_ones_own_are_columns_behind_the_others(tmp_path: Path) -> None:
    record = Record.create(tmp_path / "run", RunConfig(), {})
    record.add_round({**row(0), "auc": 0.75}, seconds=1.0)
    record.repair()  # also while nothing is labelled
    assert (tmp_path / "run/queries.csv").read_text() == ",".join(QUERY_COLUMNS) + "\n"
    header, values = (tmp_path / "run/rounds.csv").read_text().splitlines()
    assert header == ",".join((*ROUND_COLUMNS, "auc"))
    assert values.endswith(",0.75")


def test_files_that_could_not_be_read_are_listed_if_there_are_any(tmp_path: Path) -> None:
    record = started(tmp_path / "run")
    record.write_skipped([])
    assert not (tmp_path / "run/skipped.csv").exists()
    record.write_skipped([("a.jpg", "empty file"), ("b.jpg", "cut off, at its end")])
    listed = (tmp_path / "run/skipped.csv").read_text()
    assert listed == 'path,reason\na.jpg,empty file\nb.jpg,"cut off, at its end"\n'


def test_reading_a_run_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started(folder)
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b"half a li")
    (folder / ".queries.csv.99.tmp").write_text("half")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(Record.read(folder)[0].labels) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    Record.open(folder)
    assert len((folder / "journal.jsonl").read_bytes()) < len(before["journal.jsonl"])


def test_a_run_is_begun_with_the_first_line_of_its_journal(tmp_path: Path) -> None:
    folder = tmp_path / "deep/in/run"
    assert not is_begun(folder) and not is_finished(folder)
    started(folder)
    assert is_begun(folder) and not is_finished(folder)
    (folder / "journal.jsonl").write_bytes(b"half a li")
    assert not is_begun(folder) and not is_finished(folder)


def test_a_journal_that_does_not_begin_with_the_start_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started(folder)
    _, *lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(RunFolderError, match=r"journal\.jsonl, line 1: damaged; start"):
        Record.open(folder)
    (folder / "journal.jsonl").write_bytes(lines[0][:9])
    with pytest.raises(RunFolderError, match=r"journal\.jsonl, line 1: damaged; start"):
        Record.open(folder)
    (folder / "journal.jsonl").unlink()
    with pytest.raises(RunFolderError, match=r"the run's journal '.*journal\.jsonl' is missing"):
        Record.open(folder)


def test_a_run_cannot_be_made_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(RunFolderError, match=r"cannot create '.*/runs/a/b': '.*/runs' is a file"):
        check_free(tmp_path / "runs/a/b")
    check_free(tmp_path / "other/a/b")


@pytest.mark.skipif(not NO_ONES.is_dir(), reason="Linux alone has a folder that even root may not")
def test_where_nothing_can_be_written_that_is_told_before_anything_is_computed() -> None:
    with pytest.raises(RunFolderError, match="'/proc/self' is not writable"):
        check_free(NO_ONES / "a/b")


def test_a_comparison_is_resumed_by_its_own_command(tmp_path: Path) -> None:
    (tmp_path / "compare.toml").touch()
    with pytest.raises(RunFolderError, match="is a comparison; repeat its skal compare"):
        check_run_folder(tmp_path)


def test_what_is_said_is_kept_in_the_log_of_the_folder(tmp_path: Path) -> None:
    log = logging.getLogger("skal")
    log.setLevel(logging.WARNING)
    before = list(log.handlers)
    with log_file(tmp_path):
        log.info("ä café\udce9")
        log.debug("too much")
    log.warning("later")
    (line,) = (tmp_path / "log.txt").read_bytes().splitlines()
    assert line.endswith(b" " + "ä café".encode() + b"\xe9")
    assert line[:4].isdigit()
    assert (log.level, log.handlers) == (logging.WARNING, before)
    with log_file(None):
        log.info("nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
