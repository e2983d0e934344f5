"""What errors and counts say."""

from __future__ import annotations

import pytest

from skal.core.errors import one_line
from skal.core.text import counted


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a\n  b"), "a b"),
        (ValueError(), "ValueError"),
        (KeyError("image_shape"), "there is no 'image_shape'"),
        (ValueError("x" * 300), f"{'x' * 197}..."),
    ],
)
def test_an_error_is_one_line(error: Exception, told: str) -> None:
    assert one_line(error) == told


def test_what_is_counted_is_of_one_or_of_several() -> None:
    assert [counted(n, "image") for n in range(3)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [counted(n, "task is", "tasks are") for n in (1, 2)] == ["1 task is", "2 tasks are"]
