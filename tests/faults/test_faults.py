"""Faults in small numbers; `run.py` tries as many as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import damage
import disk
import images
import imports
import kills
import memory
import pairs
import preloaded


@pytest.mark.parametrize("scene", damage.SCENES)
def test_what_is_damaged_is_named_or_made_again(scene: str, tmp_path: Path) -> None:
    outcomes = damage.run(30, seed=1, only=scene, place=tmp_path)
    assert not outcomes.bad
    assert outcomes.counts["named"] and outcomes.counts["same"]


@pytest.mark.parametrize("scene", kills.SCENES)
def test_what_is_killed_ends_as_if_it_had_not_been(scene: str, tmp_path: Path) -> None:
    n = 3 if kills.SCENES[scene].has_processes else 8
    outcomes = kills.run(n, seed=1, only=scene, place=tmp_path)
    assert not outcomes.bad


@pytest.mark.skipif(not preloaded.can_run(), reason="needs Linux and a C compiler")
@pytest.mark.parametrize("scene", ["run", "import labels"])
def test_a_disk_that_fails_is_told_and_leaves_what_was_there(scene: str, tmp_path: Path) -> None:
    outcomes = disk.run(3, only=scene, place=tmp_path)
    assert not outcomes.bad
    assert outcomes.counts["named"] and outcomes.counts["same"]


@pytest.mark.skipif(not preloaded.can_run(), reason="needs Linux and a C compiler")
@pytest.mark.parametrize("scene", ["run", "decode and embed"])
def test_memory_that_runs_out_is_told_and_leaves_what_was_there(scene: str, tmp_path: Path) -> None:
    outcomes = memory.run(6, only=scene, place=tmp_path)
    assert not outcomes.bad
    assert outcomes.counts["named"] and outcomes.counts["same"]


@pytest.mark.parametrize("scene", pairs.SCENES)
def test_of_two_processes_in_one_folder_both_are_right_or_one_is_told(
    scene: str, tmp_path: Path
) -> None:
    outcomes = pairs.run(2, seed=1, only=scene, place=tmp_path)
    assert not outcomes.bad


def test_mutated_images_are_decoded_or_named(tmp_path: Path) -> None:
    outcomes = images.run(400, seed=1, place=tmp_path)
    assert not outcomes.bad
    assert outcomes.counts["named"] and outcomes.counts["same"]


def test_made_up_imports_are_taken_in_whole_or_refused(tmp_path: Path) -> None:
    outcomes = imports.run(300, seed=1, place=tmp_path)
    assert not outcomes.bad
    assert outcomes.counts["named"] and outcomes.counts["same"]
