"""Where calls are made: how many threads, and which GPUs, each of them gets."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from skal.core import workers as backends
from skal.core.errors import ParameterError
from skal.core.workers import Place, run_calls

SEEN = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process believe that it sees two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(SEEN, raising=False)


@pytest.mark.parametrize(
    ("asked", "threads"),
    [
        ({}, 12),
        ({"jobs": 5}, 2),
        ({"jobs": 50}, 1),
        ({"jobs": 5, "threads": 7}, 7),
        ({"backend": "dask", "jobs": 5}, 1),
        ({"backend": "dask", "threads": 3}, 3),
    ],
)
def test_the_processors_are_shared_out_but_for_those_of_a_cluster(
    asked: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "processors", lambda: 12)
    monkeypatch.setattr(backends, "PACKAGES", {})
    assert Place(**asked).threads == threads


def test_processes_of_this_machine_have_no_scheduler() -> None:
    with pytest.raises(ParameterError, match="the backend loky has none; expected dask or ray"):
        Place(scheduler="tcp://x")


def gpus_when_both_are_at_work(folder: Path, item: int) -> tuple[int, str | None]:
    """Wait until two items are begun, so that each has a process of its own."""
    (folder / str(item)).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid(), os.environ.get(SEEN)


@pytest.fixture
def fresh_workers() -> Iterator[None]:
    get_reusable_executor().shutdown(wait=True)
    yield
    get_reusable_executor().shutdown(wait=True)


def test_two_processes_have_a_gpu_each_and_keep_it(
    two_gpus: None, fresh_workers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEEN, "5,GPU-8f")
    answers = run_calls(gpus_when_both_are_at_work, tmp_path, range(6), Place(jobs=2, threads=1))
    of_workers = {answer for _, answer in answers}
    assert sorted(gpu or "" for _, gpu in of_workers) == ["5", "GPU-8f"]
    assert len({pid for pid, _ in of_workers}) == 2


@pytest.mark.parametrize(
    ("seen", "n_gpus", "expected"),
    [
        (None, 3, ["1", "2", "0", "1"]),
        ("4,2", 2, ["2", "4", "2", "4"]),
        ("4,-1,2", 1, ["4", "4", "4", "4"]),  # what comes behind an invalid one is not seen
    ],
)
def test_workers_take_the_gpus_in_turn(
    seen: str | None, n_gpus: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    for number in range(1, 5):
        monkeypatch.delenv(SEEN, raising=False)
        if seen is not None:
            monkeypatch.setenv(SEEN, seen)
        # in a child of multiprocessing the number has that of the child before it
        worker = ModuleType(f"LokyProcess-{'1:' * (number > 2)}{number}")
        worker.name = worker.__name__
        monkeypatch.setattr(backends, "current_process", lambda worker=worker: worker)
        for _ in range(2):  # the second time it has its own already
            backends._see_one_gpu(n_gpus)
        taken.append(os.environ[SEEN])
    assert taken == expected


def test_the_process_that_asks_goes_on_seeing_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEEN, "0,1")
    assert backends._numbered(str.__add__, "a", 3, "b", 2) == (3, "ab")
    assert os.environ[SEEN] == "0,1"


def test_without_gpus_or_where_they_are_not_asked_for_nothing_is_shared_out(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Place(device="cuda").n_gpus == Place().n_gpus == 2
    assert Place(device="cpu").n_gpus == Place(device="mps").n_gpus == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Place().n_gpus == 0
    monkeypatch.setattr(backends, "_see_one_gpu", None)  # would fail if it were called
    assert backends._numbered(str.__add__, "a", 3, "b", 0) == (3, "ab")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Ray, as far as it is used: tasks are done when they are started."""
    fake: Any = ModuleType("ray")
    fake.resources, fake.options = {"CPU": 8.0}, []

    def remote(**options: Any) -> Any:
        fake.options.append(options)
        return lambda work: type("Task", (), {"remote": staticmethod(work)})

    fake.remote, fake.put, fake.get = remote, lambda value: value, lambda answer: answer
    fake.wait = lambda running: (running[:1], running[1:])
    fake.is_initialized, fake.cluster_resources = lambda: True, lambda: fake.resources
    fake.exceptions = ModuleType("ray.exceptions")
    fake.exceptions.WorkerCrashedError = fake.exceptions.OutOfMemoryError = OSError
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake.exceptions)
    monkeypatch.setattr(backends, "PACKAGES", {})
    return fake


@pytest.mark.parametrize(
    ("device", "gpus", "asked"),
    [("auto", 4.0, 1), ("cuda", 4.0, 1), ("cpu", 4.0, 0), ("auto", 0.0, 0), ("cpu", 0.0, 0)],
)
def test_a_task_of_ray_asks_for_a_gpu_where_it_may_compute_on_one(
    ray: Any, device: str, gpus: float, asked: int
) -> None:
    if gpus:
        ray.resources["GPU"] = gpus
    place = Place("ray", threads=2, device=device)
    assert list(run_calls(str.__add__, "a", ["b", "c"], place)) == [(0, "ab"), (1, "ac")]
    assert ray.options == [{"num_cpus": 2, "num_gpus": asked}]


def test_a_ray_cluster_without_gpus_is_not_waited_for(ray: Any) -> None:
    with pytest.raises(ParameterError, match="'cuda' is not there: the Ray cluster has no GPU"):
        list(run_calls(str.__add__, "a", ["b"], Place("ray", device="cuda")))
