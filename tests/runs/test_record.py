from __future__ import annotations

import csv
import errno
import json
import os
import zlib
from pathlib import Path

import pytest

from skal.core.errors import RunExistsError, RunFolderError
from skal.runs.config import RunConfig
from skal.runs.journal import Journal
from skal.runs.record import QUERY_COLUMNS, ROUND_COLUMNS, Answers, Record, check_free, free_name

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
    assert "journal.jsonl: its last line was not written whole" in caplog.text


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
    with pytest.raises(RunFolderError, match="is gone"):
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
    record.set_right()
    assert (folder / "queries.csv").read_bytes() == whole
    assert len((folder / "rounds.csv").read_text().splitlines()) == 2
    assert not list(folder.glob(".*"))


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
    with pytest.raises(RunExistsError, match=r"exists and is not overwritten.*--out") as caught:
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
            assert "config.toml is damaged: the run's journal counts" in caplog.text
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
    record.set_right()
    assert path.read_bytes() == whole
    assert (f"{name} is not what the run's journal says" in caplog.text) is (damage == "other")


def test_a_kept_file_is_whole_as_long_as_it_is_what_was_written(tmp_path: Path) -> None:
    started(tmp_path / "run").write_kept("net", b"numbers")
    record, _ = Record.open(tmp_path / "run")
    assert record.is_whole("net") and not record.is_whole("rounds.csv")
    for content in (b"numbert", b"", b"numbers!"):
        (tmp_path / "run/net").write_bytes(content)
        assert not record.is_whole("net")
    (tmp_path / "run/net").unlink()
    assert not record.is_whole("net")
