"""`map_jobs`: many calls of one function, in processes of this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import current_process
from typing import Any

import joblib
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from .. import __version__
from .errors import ParameterError, SkalError, UnknownNameError, require
from .processes import end_with_parent

ADVICE = "its process was killed, as when memory runs out; fewer at a time (jobs) need less"

ANSWER_SECONDS = 10.0
"""For which a cluster is waited for."""

_log = logging.getLogger("skal")
_one_at_a_time = threading.Lock()  # torch's threads and generators are those of the process


class WorkerLostError(SkalError):
    """The process that was to answer a call is gone."""


@dataclass(frozen=True)
class Workers:
    """Who calls a function, and how many calls run at a time: processes of this machine or a
    cluster, which is started here if no `scheduler` is given. `jobs` is by default 1, on a cluster
    what it has room for; `threads` of each call the processors over `jobs`, on a cluster 1. Each
    local process and each task of Ray sees one GPU, Dask's workers what they were started with. A
    `SkalError` is raised if the backend is not there, has no scheduler, or a number is less than 1.
    """

    backend: str = "loky"
    scheduler: str | None = None
    jobs: int | None = None
    threads: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UnknownNameError("backend", self.backend, BACKENDS)
        if self.backend in PACKAGES:
            require(PACKAGES[self.backend], self.backend, f"the backend {self.backend}")
        if self.scheduler is not None and self.are_local:
            raise ParameterError("scheduler: the backend loky has none; expected dask or ray")
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name}={value}; expected 1 or more")

    @property
    def are_local(self) -> bool:
        """Whether the calls see this machine's files."""
        return self.backend == "loky"

    @property
    def n_threads(self) -> int:
        """How many threads each call has."""
        share = max(1, processors() // (self.jobs or 1)) if self.are_local else 1
        return self.threads or share

    @property
    def may_use_gpus(self) -> bool:
        """Whether the calls compute on CUDA's GPUs, if there are any."""
        return self.device in ("auto", "cuda")

    @property
    def n_gpus(self) -> int:
        """How many GPUs of this machine the processes share."""
        import torch

        if self.are_local and self.may_use_gpus and torch.cuda.is_available():
            return torch.cuda.device_count()
        return 0


Function = Callable[[Any, Any], Any]
Answers = Generator[tuple[int, Any], None, None]


def map_jobs(function: Function, shared: Any, items: Sequence[Any], workers: Workers) -> Answers:
    """Call ``function(shared, item)`` for every item; yield its number and answer as calls end. The
    function is importable on all machines, its exceptions end everything, `shared` is sent to a
    cluster once; the answer is a `WorkerLostError` if the process died again and again.
    """
    if items:
        check_scheduler(workers)
        yield from BACKENDS[workers.backend](function, shared, items, workers)


def check_scheduler(workers: Workers) -> None:
    """Raise a `ParameterError` if nobody listens at the scheduler's address: for that Ray waits
    minutes, and Dask half of one.
    """
    address = workers.scheduler
    if address is None:
        return
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():  # "auto", say
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        cluster, example = CLUSTERS[workers.backend]
        raise ParameterError(
            f"scheduler: nobody answers at {address} ({error}); expected the address of {cluster}, "
            f"such as {example}, or none to start one here"
        ) from error


def processors() -> int:
    """Return how many processors this process may use, by affinity and container too."""
    return int(joblib.cpu_count())


@contextmanager
def one_call(threads: int) -> Iterator[None]:
    """Let one call of the process run at a time, with so many threads of torch."""
    import torch

    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _numbered(
    function: Function, shared: Any, numbered_item: tuple[int, Any], n_gpus: int = 0
) -> tuple[int, Any]:
    if n_gpus > 1:
        keep_one_gpu(current_process().name, n_gpus)
    number, item = numbered_item
    return number, function(shared, item)


def keep_one_gpu(process: str, n_gpus: int) -> None:
    """Leave a worker process one of `n_gpus`, in turn; CUDA reads it at its start only."""
    name = re.fullmatch(r"LokyProcess-(?:\d+:)*(\d+)", process)
    if name is None:  # where joblib may start none, calls are made here
        return
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",")[:n_gpus] if seen else [str(gpu) for gpu in range(n_gpus)]
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(name[1]) % len(gpus)]


def _on_loky(function: Function, shared: Any, items: Sequence[Any], workers: Workers) -> Answers:
    jobs, left = workers.jobs or 1, dict(enumerate(items))
    if jobs == 1:
        yield from ((number, function(shared, item)) for number, item in left.items())
        return
    _hush_threads()
    while left:
        call = delayed(_numbered)
        calls = [call(function, shared, item, workers.n_gpus) for item in left.items()]
        try:
            for number, answer in _in_processes(calls, jobs, workers.n_threads):
                del left[number]
                yield number, answer
        except BrokenProcessPool:
            if jobs == 1:  # they run in order: it was the first that is left
                yield min(left), WorkerLostError(ADVICE)
                del left[min(left)]
                continue
            jobs = max(1, jobs // 2)
            _log.warning("a process was killed, as when memory runs out: continuing with %d", jobs)


def _in_processes(calls: Sequence[Any], jobs: int, threads: int) -> Answers:
    if jobs == 1:  # in a process of its own, which joblib would not start for one
        executor = get_reusable_executor(max_workers=1, initializer=end_with_parent)
        for function, args, _ in calls:
            yield executor.submit(function, *args).result()
        return
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
        parallel = Parallel(
            return_as="generator_unordered", pre_dispatch="all", initializer=end_with_parent
        )
        yield from parallel(calls)


@cache
def _hush_threads() -> None:
    """Log what loky's thread stumbles over when a call is interrupted, in place of showing it."""
    others = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__module__.startswith("joblib.externals.loky"):
            _log.debug("%s ended: %r", args.thread, args.exc_value)
        else:
            others(args)

    threading.excepthook = hook


def _version() -> str:
    return __version__


def _on_dask(function: Function, shared: Any, items: Sequence[Any], workers: Workers) -> Answers:
    from distributed import Client, KilledWorker, as_completed

    # of a cluster started here, each worker has one thread: torch's state is the process's; and any
    # free port, for Dask's own is taken where another cluster runs
    here = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    started_here = {} if workers.scheduler else here
    with Client(workers.scheduler, **started_here) as client:
        try:
            versions = client.run(_version)
        except ImportError as error:  # a task would wait for ever
            raise ParameterError(f"the workers cannot import skal: {error}") from error
        for address, version in versions.items():
            if version != __version__:
                _log.warning("%s has skal %s, here is %s", address, version, __version__)
        sent = client.scatter(shared, broadcast=True, hash=False)
        running = as_completed()

        def start(item: Any) -> Any:
            future = client.submit(function, sent, item, pure=False)
            running.add(future)
            return future

        def finish(_: Mapping[Any, int]) -> tuple[Any, Any]:
            future = next(running)
            try:
                return future, future.result()
            except KilledWorker:
                return future, WorkerLostError(ADVICE)

        yield from _in_flight(start, finish, items, workers.jobs)


def _on_ray(function: Function, shared: Any, items: Sequence[Any], workers: Workers) -> Answers:
    import ray
    from ray.exceptions import WorkerCrashedError

    started_here = not ray.is_initialized()
    if started_here:
        _start_ray(workers.scheduler)
    try:
        n_gpus = gpus_per_ray_task(workers, ray.cluster_resources())
        task = ray.remote(num_cpus=workers.n_threads, num_gpus=n_gpus)(function)
        sent = ray.put(shared)

        def start(item: Any) -> Any:
            return task.remote(sent, item)

        def finish(running: Mapping[Any, int]) -> tuple[Any, Any]:
            (done,), _ = ray.wait(list(running))
            try:
                return done, ray.get(done)
            except (WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                return done, WorkerLostError(ADVICE)

        yield from _in_flight(start, finish, items, workers.jobs)
    finally:
        if started_here:
            ray.shutdown()


def _start_ray(address: str | None) -> None:
    """Connect to a cluster, or start one; `ParameterError` if there is none, or it lets none in."""
    import ray

    options: Any = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, **options)
    except Exception as error:
        raise ParameterError(
            f"scheduler: the Ray cluster at {address or 'this machine'} lets nobody in "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]:.200}); if it asks for a "
            "token, RAY_AUTH_MODE=token gives it that of ~/.ray/auth_token, or of RAY_AUTH_TOKEN"
        ) from error


def _in_flight(
    start: Callable[[Any], Any],
    finish: Callable[[Mapping[Any, int]], tuple[Any, Any]],
    items: Sequence[Any],
    most: int | None,
) -> Answers:
    """Keep `most` calls running (default: all), and yield the answer of each; `start` returns a
    call's handle, `finish` the handle of one that has ended and its answer.
    """
    waiting = enumerate(items)
    running = {start(item): number for number, item in islice(waiting, most or len(items))}
    while running:
        handle, answer = finish(running)
        number = running.pop(handle)
        running.update({start(item): following for following, item in islice(waiting, 1)})
        yield number, answer


def gpus_per_ray_task(workers: Workers, resources: Mapping[str, float]) -> int:
    """Return how many GPUs a task of Ray asks for: without a number it may see none, or all. A
    `ParameterError` is raised if it must have one and the cluster has none: it would wait for ever.
    """
    there = resources.get("GPU", 0) >= 1
    if workers.device == "cuda" and not there:
        raise ParameterError("device 'cuda' is not there: the Ray cluster has no GPU")
    return int(there and workers.may_use_gpus)


BACKENDS: Mapping[str, Callable[[Function, Any, Sequence[Any], Workers], Answers]] = {
    "loky": _on_loky,
    "dask": _on_dask,
    "ray": _on_ray,
}
PACKAGES = {"dask": "distributed", "ray": "ray"}
"""What a backend needs beside skal, by the extra that has it."""
CLUSTERS = {
    "dask": ("a Dask scheduler", "tcp://10.0.0.1:8786"),
    "ray": ("a Ray cluster", "10.0.0.1:6379"),
}
"""What is expected to answer, by backend, and where."""
