"""What is free, of the machine or of the container that the process runs in."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up import resident_of_files

from skal.core.memory import Budget, available_memory, gib, let_go_of_pages, take_mapped

FREE = 10_000
V2 = ("memory.max", "memory.current", "memory.stat")
V1 = (
    "memory/memory.limit_in_bytes",
    "memory/memory.usage_in_bytes",
    "memory/memory.stat",
)


def free(cgroup: Path, device: str = "cpu") -> int:
    return available_memory(cgroup, device=device, machine=FREE)


def write(root: Path, names: tuple[str, str, str], most: object, used: object, stat: str) -> Path:
    for name, value in zip(names, (most, used, stat), strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert free(tmp_path) == FREE
    assert free(tmp_path / "nowhere") == FREE


@pytest.mark.parametrize("names", [V2, V1])
def test_a_containers_limit_holds_less_what_is_used(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    write(tmp_path, names, 5000, 3000, "anon 2500\ninactive_file 400\nactive_file 100")
    assert free(tmp_path) == 2400  # read files make way


@pytest.mark.parametrize("names", [V2, V1])
def test_a_limit_above_the_machines_memory_is_none(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    assert free(write(tmp_path, names, 2**62, 3000, "inactive_file 0")) == FREE


def test_max_means_no_limit(tmp_path: Path) -> None:
    assert free(write(tmp_path, V2, "max", 3000, "inactive_file 0")) == FREE


def test_of_two_limits_the_lower_holds(tmp_path: Path) -> None:
    write(tmp_path, V2, 5000, 1000, "inactive_file 0")
    assert free(write(tmp_path, V1, 3000, 1000, "inactive_file 0")) == 2000


def test_nothing_is_free_when_the_limit_is_reached(tmp_path: Path) -> None:
    assert free(write(tmp_path, V2, 5000, 6000, "inactive_file 500")) == 0


def test_files_that_say_nothing_of_use_are_passed_over(tmp_path: Path) -> None:
    assert free(write(tmp_path, V2, "lots", 1000, "inactive_file 0")) == FREE
    assert free(write(tmp_path, V2, 5000, 1000, "not two words")) == FREE
    (tmp_path / "memory.stat").unlink()
    assert free(tmp_path) == FREE


@pytest.mark.parametrize(
    ("on_device", "reserved", "allocated", "expected"),
    [(4000, 700, 200, 4500), (0, 0, 0, 0), (99_000, 0, 0, FREE)],
)
def test_of_a_gpus_memory_and_the_machines_the_lesser_counts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_device: int,
    reserved: int,
    allocated: int,
    expected: int,
) -> None:
    cuda = SimpleNamespace(
        mem_get_info=lambda device: (on_device, 10**6),
        memory_reserved=lambda device: reserved,
        memory_allocated=lambda device: allocated,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    assert free(tmp_path, "cuda:0") == expected
    assert free(tmp_path) == FREE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_tells_what_is_free() -> None:
    assert available_memory(device="cuda") > 0


def test_this_machine_has_some() -> None:
    assert 0 < available_memory() < 2**60


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (3.2 * 2**30, "3.2 GiB"),
        (2**30, "1.0 GiB"),
        (15.5 * 2**20, "15.5 MiB"),
        (20_480, "20 KiB"),
        (0, "0 KiB"),
    ],
)
def test_bytes_are_told_in_words(n_bytes: float, text: str) -> None:
    assert gib(n_bytes) == text


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_what_was_read_of_a_memmap_is_given_up_and_can_be_read_again(tmp_path: Path) -> None:
    size = 2**25
    np.save(tmp_path / "x.npy", np.ones((32, size // 32), np.uint8))
    pixels = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = resident_of_files()
    assert pixels.sum() == size
    assert resident_of_files() - before > size // 2
    let_go_of_pages(pixels[3:5][:, ::2])
    assert resident_of_files() - before < size // 4
    assert pixels.sum() == size


def test_rows_of_a_memmap_are_those_of_the_array_and_leave_no_pages(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (1000, 2**15), np.uint8)
    np.save(tmp_path / "x.npy", plain)
    pixels = np.load(tmp_path / "x.npy", mmap_mode="r")[5:]
    rows = rng.permutation(995)[:500]
    before = resident_of_files()
    taken = take_mapped(pixels, rows)
    assert resident_of_files() - before < plain.nbytes / 8
    assert np.array_equal(taken, plain[5:][rows]) and taken.flags.writeable
    assert np.array_equal(take_mapped(plain, rows), plain[rows])
    assert take_mapped(pixels, rows[:0]).shape == (0, 2**15)


def test_changes_to_a_copy_on_write_memmap_and_plain_arrays_are_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(2**16, np.uint8))
    pixels = np.load(tmp_path / "x.npy", mmap_mode="c")
    pixels[:] = 7
    let_go_of_pages(pixels)
    assert (pixels == 7).all()
    plain = np.ones(10)
    let_go_of_pages(plain[2:])
    assert plain.sum() == 10


SCORED = """
import resource, sys
import numpy as np
import skal
X = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), np.uint8)
classifier = skal.ImageClassifier(classes=[0, 1], steps=1, precision="fp32", device="cpu")
classifier.fit(X, np.arange(1000) % 2)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    classifier.predict_proba(X)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_feature_maps_are_not_given_back_to_the_system_after_each_batch() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    pages = []
    for settings in ({}, {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}):
        command = [sys.executable, "-c", SCORED]
        done = subprocess.run(
            command, env={**own, **settings}, capture_output=True, text=True, check=True
        )
        pages.append(int(done.stdout))
    assert pages[0] < pages[1] / 4  # of which the second has settings of the user's own


@pytest.mark.parametrize(("n_bytes", "most"), [(600, 1), (300, 2), (10_000, 1)])
def test_budget_is_never_overdrawn_and_one_at_a_time_has_what_is_more_than_all(
    n_bytes: int, most: int
) -> None:
    budget, lock, inside, seen = Budget(640), Lock(), 0, []

    def take(_: int) -> None:
        nonlocal inside
        with budget.taken(n_bytes):
            with lock:
                inside += 1
                seen.append(inside)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(take, range(200)))
    assert len(seen) == 200 and max(seen) <= most


def test_beside_what_is_more_than_all_of_a_budget_there_is_room_for_what_is_small() -> None:
    budget, both_there = Budget(640), Barrier(2)

    def take(n_bytes: int) -> None:
        with budget.taken(n_bytes):
            both_there.wait(60)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(take, (10_000, 40)))


def test_small_shares_of_a_budget_do_not_wait() -> None:
    budget, all_there = Budget(640), Barrier(70)

    def take(_: int) -> None:
        with budget.taken(9):
            all_there.wait(60)

    with ThreadPoolExecutor(70) as threads:
        list(threads.map(take, range(70)))


def test_budget_is_whole_again_after_an_error() -> None:
    budget = Budget(640)
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), budget.taken(640):
            raise ValueError("damaged")
