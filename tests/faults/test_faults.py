"""Faults in small numbers; `run.py` tries as many as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import damage
import kills


@pytest.mark.parametrize("scene", damage.SCENES)
def test_what_is_damaged_is_named_or_made_again(scene: str, tmp_path: Path) -> None:
    outcomes = damage.run(30, seed=1, only=scene, place=tmp_path)
    assert not outcomes.bad
    assert outcomes.counts["named"] and outcomes.counts["same"]


@pytest.mark.parametrize("scene", kills.SCENES)
def test_what_is_killed_ends_as_if_it_had_not_been(scene: str, tmp_path: Path) -> None:
    outcomes = kills.run(8, seed=1, only=scene, place=tmp_path)
    assert not outcomes.bad
