"""Where calls are made: how many threads, and which GPUs, each of them gets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from calls import SEEN, added, added_unless_killed, gpus_when_both_are_at_work
from joblib.externals.loky import get_reusable_executor

from skal.core.errors import ParameterError, UnknownNameError
from skal.core.workers import (
    WorkerLostError,
    Workers,
    gpus_per_ray_task,
    keep_one_gpu,
    map_jobs,
    processors,
)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process believe that it sees two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(SEEN, raising=False)


@pytest.mark.parametrize(
    ("asked", "threads"),
    [
        ({}, processors()),
        ({"jobs": 2}, max(1, processors() // 2)),
        ({"jobs": 100 * processors()}, 1),
        ({"jobs": 5, "threads": 7}, 7),
        ({"backend": "dask", "jobs": 5}, 1),
        ({"backend": "dask", "threads": 3}, 3),
    ],
)
def test_the_processors_are_shared_out_but_for_those_of_a_cluster(
    asked: dict[str, Any], threads: int
) -> None:
    if "backend" in asked:
        pytest.importorskip("distributed")
    assert Workers(**asked).n_threads == threads


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_cluster_starts_where_the_port_of_another_is_taken() -> None:
    pytest.importorskip("distributed")
    workers = Workers(backend="dask", jobs=1)
    with socket.socket() as another:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # where another test has it, it is taken, too
            another.bind(("127.0.0.1", 8787))
            another.listen()
        assert [answer for _, answer in map_jobs(added, 1, [2, 3], workers)] in ([3, 4], [4, 3])


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"scheduler": "tcp://x"}, ParameterError, "loky takes none; expected dask or ray"),
        ({"backend": "daks"}, UnknownNameError, "did you mean dask"),
        ({"jobs": 0}, ParameterError, "jobs=0; expected 1 or more"),
        ({"threads": -1}, ParameterError, "threads=-1; expected 1 or more"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Workers(**asked)


def test_the_module_costs_no_torch() -> None:
    code = "import sys, skal.core.workers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_is_answered_once(jobs: int) -> None:
    answers = map_jobs(added, 10, range(5), Workers(jobs=jobs, threads=1))
    assert sorted(answers) == [(n, 10 + n) for n in range(5)]
    assert list(map_jobs(added, 10, [], Workers(jobs=jobs))) == []


def test_an_item_whose_process_dies_each_time_is_told_apart_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = dict(map_jobs(added_unless_killed, 10, range(4), Workers(jobs=2, threads=1)))
    assert isinstance(answers.pop(2), WorkerLostError)
    assert answers == {0: 10, 1: 11, 3: 13}
    assert "a process was killed, perhaps out of memory; continuing with 1" in caplog.text


def test_ray_answers_every_item_once(ray_here: Any) -> None:
    answers = map_jobs(added, 10, range(5), Workers("ray", jobs=2))
    assert sorted(answers) == [(n, 10 + n) for n in range(5)]


def test_a_task_of_ray_whose_process_dies_is_told_apart_from_the_others(ray_here: Any) -> None:
    answers = dict(map_jobs(added_unless_killed, 10, [1, 2], Workers("ray", jobs=1)))
    assert isinstance(answers[1], WorkerLostError)
    assert answers[0] == 11


@pytest.fixture
def fresh_workers() -> Iterator[None]:
    get_reusable_executor().shutdown(wait=True)
    yield
    get_reusable_executor().shutdown(wait=True)


def test_two_processes_have_a_gpu_each_and_keep_it(
    two_gpus: None, fresh_workers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEEN, "5,GPU-8f")
    workers = Workers(jobs=2, threads=1)
    answers = map_jobs(gpus_when_both_are_at_work, tmp_path, range(6), workers)
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
        for _ in range(2):  # the second time it has its own already
            keep_one_gpu(f"LokyProcess-{'1:' * (number > 2)}{number}", n_gpus)
        taken.append(os.environ[SEEN])
    assert taken == expected


WAITING = """
import os, sys, threading
from pathlib import Path
from skal.core.workers import Workers, map_jobs
from skal.datasets.decoding import Decoding, decode_many

def wait(folder, number):
    (folder / str(os.getpid())).touch()
    threading.Event().wait()

def decode(path, how):
    wait(path.parent, 0)

def main(kind, folder):
    if kind == "calls":
        list(map_jobs(wait, folder, range(4), Workers(jobs=2)))
    else:
        images = [f"{number}.png" for number in range(40)]
        for name in images:
            (folder / name).touch()
        list(decode_many(folder, images, Decoding(8, 2, 0, decode=decode)))
"""


@pytest.mark.parametrize("kind", ["calls", "images"])
def test_processes_end_with_the_one_that_started_them(kind: str, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    folder = tmp_path / "at work"
    folder.mkdir()
    code = f"import pathlib, waiting; waiting.main({kind!r}, pathlib.Path({str(folder)!r}))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as asking:
        while len(found := [path for path in folder.iterdir() if path.name.isdecimal()]) < 2:
            assert asking.poll() is None
            time.sleep(0.01)
        asking.kill()
    names = {path.name for path in found}
    workers = [process for process in psutil.process_iter() if str(process.pid) in names]
    _, left = psutil.wait_procs(workers, timeout=60)
    # where process 1 takes no notice of its orphans, they stay as zombies
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def test_the_process_that_asks_keeps_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEEN, "0,1")
    keep_one_gpu("MainProcess", 2)
    assert os.environ[SEEN] == "0,1"


def test_without_gpus_or_where_they_are_not_asked_for_nothing_is_shared_out(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Workers(device="cuda").n_gpus == Workers().n_gpus == 2
    assert Workers(device="cpu").n_gpus == Workers(device="mps").n_gpus == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Workers().n_gpus == 0


@pytest.mark.parametrize(
    ("device", "gpus", "asked"),
    [("auto", 4.0, 1), ("cuda", 4.0, 1), ("cpu", 4.0, 0), ("auto", 0.0, 0), ("cpu", 0.0, 0)],
)
def test_a_task_of_ray_asks_for_a_gpu_where_it_may_compute_on_one(
    device: str, gpus: float, asked: int
) -> None:
    resources = {"CPU": 8.0, **({"GPU": gpus} if gpus else {})}
    assert gpus_per_ray_task(Workers(device=device), resources) == asked


def test_a_ray_cluster_without_gpus_is_not_waited_for() -> None:
    with pytest.raises(ParameterError, match="got 'cuda', but the Ray cluster has no GPU"):
        gpus_per_ray_task(Workers(device="cuda"), {"CPU": 8.0})


@pytest.mark.parametrize(("backend", "scheme"), [("ray", ""), ("dask", "tcp://"), ("dask", "")])
def test_a_cluster_where_nobody_answers_is_said_at_once(backend: str, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    workers = Workers(backend, scheduler=address)
    told = f"cannot connect to {address} .*expected the address of a {backend.title()}"
    with pytest.raises(ParameterError, match=told):
        list(map_jobs(added, 10, [1], workers))
