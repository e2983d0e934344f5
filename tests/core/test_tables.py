from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skal.core.tables import GrowingTable, csv_of

COLUMNS = ("round", "label")
ROWS: list[dict[str, Any]] = [
    {"round": 0, "label": "a rose, red", "more": 0.5},
    {"round": 0, "label": 'of "two"\nlines', "more": 1.0},
    {"round": 1, "label": "no UTF-8: \udcff", "more": 2.0},
    {"round": 2, "label": "", "more": float("nan")},
]


def whole(n: int) -> bytes:
    return csv_of(COLUMNS, ROWS[:n]).encode(errors="surrogateescape")


@pytest.fixture
def table(tmp_path: Path) -> GrowingTable:
    return GrowingTable(tmp_path / "table.csv", COLUMNS)


def test_a_table_that_grows_is_that_which_is_written_at_once(table: GrowingTable) -> None:
    for n in (2, 2, 3, 4):
        table.take(ROWS[:n])
        assert table.path.read_bytes() == whole(n)
    assert whole(4).startswith(b'round,label,more\n0,"a rose, red",0.5\n')


def test_rows_are_added_and_the_file_is_not_written_anew(table: GrowingTable) -> None:
    table.take(ROWS[:1])
    before = table.path.stat().st_ino
    table.take(ROWS[:2])
    assert table.path.stat().st_ino == before


@pytest.mark.parametrize(
    "found", [None, b"", whole(1)[:-3], whole(2) + b"0,of another\n", whole(2).replace(b"0", b"1")]
)
def test_a_table_that_was_changed_since_is_written_anew(
    table: GrowingTable, found: bytes | None
) -> None:
    table.take(ROWS[:2])
    table.path.unlink() if found is None else table.path.write_bytes(found)
    table.take(ROWS[:3])
    assert table.path.read_bytes() == whole(3)


def test_a_link_is_replaced_and_what_it_leads_to_stays(table: GrowingTable, tmp_path: Path) -> None:
    table.take(ROWS[:2])
    other = table.path.rename(tmp_path / "other.csv")
    table.path.symlink_to(other)
    table.take(ROWS[:3])
    assert (other.read_bytes(), table.path.read_bytes()) == (whole(2), whole(3))


def test_rows_that_could_not_be_written_come_with_the_next(table: GrowingTable) -> None:
    table.take(ROWS[:1])
    kept = table.path.rename(table.path.with_suffix(".kept"))
    table.path.mkdir()
    with pytest.raises(OSError):
        table.take(ROWS[:2])
    table.path.rmdir()
    kept.rename(table.path)
    table.take(ROWS[:3])
    assert table.path.read_bytes() == whole(3)


def test_who_did_not_write_a_table_writes_it_anew(table: GrowingTable) -> None:
    table.take(ROWS[:3])
    table.path.write_bytes(whole(2))
    GrowingTable(table.path, COLUMNS).take(ROWS[:4])
    assert table.path.read_bytes() == whole(4)
