from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from skal.core.errors import RunFolderError
from skal.label.checksums import AT_ONCE
from skal.label.store import FORMAT, Action, BatchRow, Content, ModelRow, NoteRow, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "labels.sqlite")


def says(who: str, action: str, image: int, label: int | None = None, **more: object) -> Action:
    return Action(who, action, image, label, round=0, **more)  # type: ignore[arg-type]


def test_what_was_written_is_read_again_by_another_store(tmp_path: Path, store: Store) -> None:
    action = Action("anna", "label", 7, 2, 1.25, 3, "test", 1, request="key")
    (number,) = store.append([action])
    store.name_classes(enumerate(["daisy", "rose"]))
    store.add_images({7: "a/b.jpg"})
    rows = [BatchRow(0, 0, 7, "test", True), BatchRow(0, 1, 8, "start", False)]
    store.add_batch(rows)
    store.add_model(ModelRow(12, 0.5, b"12345678", b"87654321"))
    store.add_contents({7: Content(123, "abc", 10**18)})
    store.close()

    other = Store(tmp_path / "labels.sqlite")
    assert Store(tmp_path / "labels.sqlite", read_only=True).batches() == rows
    (read,) = other.actions()
    assert read._replace(id=0, time="") == action
    assert read.id == number
    assert read.time.endswith("+00:00")
    assert other.class_names() == [(0, "daisy"), (1, "rose")]
    assert other.images() == {7: "a/b.jpg"}
    assert other.batches() == rows
    assert other.models() == [ModelRow(12, 0.5, b"12345678", b"87654321")]
    assert other.contents() == {7: Content(123, "abc", 10**18)}
    assert other.answered("key") == [read] == [other.action(number)]
    assert other.actions(after=number) == []


@pytest.mark.parametrize("change", ["UPDATE actions SET label = 1", "DELETE FROM actions"])
def test_no_row_can_be_changed_or_removed(tmp_path: Path, store: Store, change: str) -> None:
    store.append([says("me", "label", 1, 0)])
    connection = sqlite3.connect(tmp_path / "labels.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        connection.execute(change)
    connection.close()
    assert store.actions()[0].label == 0


def test_every_commit_is_synced(tmp_path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(sqlite3.connect(*args, **kwargs))
        return opened[-1]

    store = Store(tmp_path / "labels.sqlite", connect=connect)
    (connection,) = opened
    names = ("journal_mode", "synchronous")
    settings = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    store.close()


def test_of_several_actions_all_or_none_are_written(store: Store) -> None:
    bad = Action("me", "label", "no number", [])  # type: ignore[arg-type]
    with pytest.raises(RunFolderError):
        store.append([says("me", "label", 1, 0), bad])
    assert store.actions() == []
    assert store.append([says("me", "label", 1, 0)])


def test_paths_that_are_no_text_are_kept(store: Store) -> None:
    path = b"caf\xe9.jpg".decode(errors="surrogateescape")
    store.add_images({0: path, 1: "café.jpg"})
    assert store.images() == {0: path, 1: "café.jpg"}


def test_a_moved_image_keeps_its_number(store: Store) -> None:
    store.add_images({0: "a.jpg", 1: "b.jpg"})
    store.add_images({0: "daisy/a.jpg"})
    assert store.images() == {0: "daisy/a.jpg", 1: "b.jpg"}
    assert store.first_paths() == {0: "a.jpg", 1: "b.jpg"}


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(RunFolderError, match=r"x\.sqlite.*not a database"):
        Store(tmp_path / "x.sqlite")


@pytest.mark.parametrize(("written", "age"), [(FORMAT + 1, "newer"), (FORMAT - 1, "older")])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_another_skal_is_not_touched(
    tmp_path: Path, store: Store, written: int, age: str, read_only: bool
) -> None:
    store.close()
    connection = sqlite3.connect(tmp_path / "labels.sqlite")
    connection.execute("DROP TRIGGER meta_update")
    connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (str(written),))
    connection.commit()
    connection.close()
    with pytest.raises(RunFolderError, match=rf"format {written}.*{age}"):
        Store(tmp_path / "labels.sqlite", read_only=read_only)


def leave_nothing(path: Path) -> None:
    path.touch()


def leave_a_header(path: Path) -> None:
    """What a kill between two commands of SQLite leaves: a database without tables."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("VACUUM")
    connection.close()


@pytest.mark.parametrize("leave", [leave_nothing, leave_a_header])
def test_an_empty_store_is_a_new_one(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    path = tmp_path / "labels.sqlite"
    leave(path)
    reading = Store(path, read_only=True)
    assert reading.is_empty
    reading.close()
    store = Store(path)
    assert not store.is_empty
    assert store.append([says("me", "label", 1, 0)])


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"

    def full(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        assert [row for row in tables(path) if row == "actions"]  # before it is opened at all
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(RunFolderError, match="disk is full"):
        Store(path, connect=full)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.sqlite"]
    assert Store(path).append([says("me", "label", 1, 0)])


def tables(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]


WRITER = """
import sys
from pathlib import Path
from typing import Any
from skal.label.store import Action, Store
store = Store(Path(sys.argv[1]))
for number in range(100_000):
    ids = store.append([Action("me", "label", number, number % 3, round=0)])
    print(ids[0], number, flush=True)
"""


@pytest.mark.parametrize("n_lines", [1, 40, 150])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, n_lines: int) -> None:
    path = tmp_path / "labels.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(n_lines)]
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.readlines()
    kept = {action.id: action for action in Store(path).actions()}
    whole = [line.split() for line in told if line.endswith("\n")]
    assert len(whole) >= n_lines
    for number, image in whole:
        assert (kept[int(number)].image, kept[int(number)].label) == (int(image), int(image) % 3)


def test_what_many_rows_share_is_read_as_it_was_written(tmp_path: Path, store: Store) -> None:
    who, request = 'O\'Hara "?" :x', "it's"
    rows = [Action(who, "label", n, n % 3, None, None, request=request) for n in range(AT_ONCE + 3)]
    store.append(rows)
    store.close()
    read = Store(tmp_path / "labels.sqlite").actions()
    assert [one._replace(id=0, time="") for one in read] == rows


def test_what_is_known_beside_the_labels_is_read_again_too(tmp_path: Path, store: Store) -> None:
    assert (store.last_note(), store.notes(), store.class_keys()) == (0, [], {})
    notes = [NoteRow("cleanvision", 7, "dark", 0.25), NoteRow("cleanlab", 3, "label", None)]
    store.add_notes(notes)
    store.choose_keys({1: "r", 0: "d"})
    store.choose_keys({1: "s"})
    store.set_meta("seed", "7")
    project = store.meta()["project"]
    store.close()

    other = Store(tmp_path / "labels.sqlite")
    assert other.notes() == notes
    assert other.last_note() == 2
    assert other.class_keys() == {1: "s", 0: "d"}
    assert other.meta() == {"format": str(FORMAT), "project": project, "seed": "7"}
    assert Store(None).meta()["project"] != project


def test_what_is_written_in_one_transaction_is_there_as_a_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(KeyError), store.transaction():
        store.add_images({0: "a.jpg"})
        store.append([says("me", "label", 0, 0)])
        raise KeyError
    assert (store.images(), store.actions()) == ({}, [])
    with store.transaction():
        store.add_images({0: "a.jpg"})
        store.append([says("me", "label", 0, 0)])
    assert (store.images(), len(store.actions())) == ({0: "a.jpg"}, 1)


def meddled(tmp_path: Path, command: str) -> Path:
    """Make a store of three answers, and change it behind its back."""
    path = tmp_path / "labels.sqlite"
    store = Store(path)
    store.append([says("me", "label", image, 0) for image in range(3)])
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        for change in ("update", "delete"):
            connection.execute(f"DROP TRIGGER actions_{change}")
        connection.execute(command)
        connection.commit()
    return path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("UPDATE actions SET label = 1 WHERE id = 2", "row 2 of actions is damaged: its check"),
        ("DELETE FROM actions WHERE id = 2", "answers are missing"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_answers_that_were_meddled_with_are_an_error(
    tmp_path: Path, command: str, message: str, read_only: bool
) -> None:
    store = Store(meddled(tmp_path, command), read_only=read_only)
    with pytest.raises(RunFolderError, match=rf"the labels in '.*labels\.sqlite'.*{message}"):
        store.actions()


def test_an_image_that_never_moved_has_no_other_first_path(store: Store) -> None:
    assert store.first_paths() == {}
    store.add_images({0: "a.jpg"})
    assert store.first_paths() == {}


class Refusing(sqlite3.Connection):
    """As on a drive without a write-ahead log, or one that nothing can be written to."""

    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
        if query.startswith("PRAGMA journal_mode"):
            return super().execute("SELECT 'delete'")
        if query == "SELECT 1 FROM sqlite_master":
            raise sqlite3.OperationalError("unable to open database file")
        return super().execute(query, *values)


def test_a_drive_without_a_write_ahead_log_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*args, factory=Refusing, **options)

    path = tmp_path / "labels.sqlite"
    assert Store(path, connect=connect).append([says("me", "label", 1, 0)])
    assert f"the drive of {path} does not support SQLite's write-ahead log" in (caplog.text)
    caplog.clear()
    Store(None, connect=connect)
    assert caplog.text == ""


def test_labels_are_read_where_nothing_can_be_written_beside_them(
    tmp_path: Path, store: Store
) -> None:
    store.append([says("me", "label", 1, 0)])
    addresses = []

    def connect(address: str, **options: Any) -> sqlite3.Connection:
        addresses.append(address)
        kind = sqlite3.Connection if "immutable" in address else Refusing
        return sqlite3.connect(address, factory=kind, **options)

    path = tmp_path / "labels.sqlite"
    # the latest label is in the log, which cannot be read
    with pytest.raises(RunFolderError, match="unable to open database file"):
        Store(path, read_only=True, connect=connect)
    store.close()  # and now it is in the file
    assert len(Store(path, read_only=True, connect=connect).actions()) == 1
    assert all("mode=ro" in address for address in addresses)


def test_a_store_may_lie_in_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 #1?")
    folder.mkdir()
    Store(folder / "labels.sqlite").append([says("me", "label", 1, 0)])
    assert len(Store(folder / "labels.sqlite", read_only=True).actions()) == 1


def test_who_only_reads_cannot_write(tmp_path: Path, store: Store) -> None:
    reading = Store(tmp_path / "labels.sqlite", read_only=True)
    with pytest.raises(RunFolderError, match="readonly"):
        reading.append([says("me", "label", 1, 0)])
    assert store.append([says("me", "label", 1, 0)])
    assert len(reading.actions()) == 1
