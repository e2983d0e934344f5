from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

from skal.label.checksums import checksums

CELLS: list[Any] = [
    None,
    0,
    -7,
    2**50,
    True,
    0.1,
    1e300,
    float("inf"),
    "",
    "it's",
    '"',
    "%d",
    b"x\0",
]


def by_rows(columns: list[tuple[Any, ...]]) -> list[int]:
    """Say what stores of all versions hold: the checksum of a row's text, numbers as floats."""
    rows = [
        [float(cell) if isinstance(cell, int | float) else cell for cell in row]
        for row in zip(*columns, strict=True)
    ]
    return [zlib.crc32(repr(row).encode(errors="surrogatepass")) for row in rows]


@pytest.mark.parametrize("seed", range(50))
def test_a_checksum_is_that_of_the_row(seed: int) -> None:
    rng = random.Random(seed)
    columns = [tuple(rng.choices(CELLS[: rng.randint(1, len(CELLS))], k=5)) for _ in range(4)]
    assert checksums(columns) == by_rows(columns)


@pytest.mark.parametrize(
    "column",
    [(0.0, -0.0), (1, True, 1.0), ("%s", "%s"), (None, 0.5), ("a\udcff", "a"), ("one",) * 3],
)
def test_values_that_are_nearly_one_have_checksums_of_their_own(column: tuple[Any, ...]) -> None:
    columns = [column, tuple(range(len(column)))]
    assert checksums(columns) == by_rows(columns)
