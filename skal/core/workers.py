"""`map_jobs`: calls of one function in parallel, in local processes or on a cluster."""

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

ADVICE = "the worker process was killed, perhaps out of memory; fewer jobs at a time need less"

ANSWER_SECONDS = 10.0
"""Time limit for a cluster to accept a connection."""

_log = logging.getLogger("skal")
_one_at_a_time = threading.Lock()  # torch's threads and generators are global to the process


class WorkerLostError(SkalError):
    """A worker process died before it returned a result."""


@dataclass(frozen=True)
class Workers:
    """Where jobs run, and how many at a time: in processes of this machine (loky) or on a cluster,
    which is started on this machine unless `scheduler` is given. `jobs` is by default 1, on a
    cluster as many as fit; `threads` per job are by default the processors divided by `jobs`, on a
    cluster 1. Each local process and Ray task sees one GPU, Dask's workers those they were started
    with. A `SkalError` is raised if the backend is not installed or takes no scheduler, or a number
    is less than 1.
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
            raise ParameterError("scheduler: the backend loky takes none; expected dask or ray")
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name}={value}; expected 1 or more")

    @property
    def are_local(self) -> bool:
        """Whether jobs run on this machine and see its files."""
        return self.backend == "loky"

    @property
    def n_threads(self) -> int:
        """Number of threads per job."""
        share = max(1, processors() // (self.jobs or 1)) if self.are_local else 1
        return self.threads or share

    @property
    def may_use_gpus(self) -> bool:
        """Whether jobs use CUDA GPUs if there are any."""
        return self.device in ("auto", "cuda")

    @property
    def n_gpus(self) -> int:
        """Number of this machine's GPUs that the processes share."""
        import torch

        if self.are_local and self.may_use_gpus and torch.cuda.is_available():
            return torch.cuda.device_count()
        return 0


Function = Callable[[Any, Any], Any]
Answers = Generator[tuple[int, Any], None, None]


def map_jobs(function: Function, shared: Any, items: Sequence[Any], workers: Workers) -> Answers:
    """Call ``function(shared, item)`` for every item, and yield item numbers and results as they
    come. The function must be importable on all machines; `shared` is sent to a cluster once. An
    exception ends all calls; if a process dies repeatedly, its result is a `WorkerLostError`.
    """
    if items:
        check_scheduler(workers)
        yield from BACKENDS[workers.backend](function, shared, items, workers)


def check_scheduler(workers: Workers) -> None:
    """Raise a `ParameterError` if nothing listens at the scheduler's address; Ray would wait for
    minutes, and Dask for half a minute.
    """
    address = workers.scheduler
    if address is None:
        return
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():  # such as "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        cluster, example = CLUSTERS[workers.backend]
        raise ParameterError(
            f"scheduler: cannot connect to {address} ({error}); expected the address of {cluster}, "
            f"such as {example}, or none to start one on this machine"
        ) from error


def processors() -> int:
    """Return how many processors this process may use, by its affinity and container limits."""
    return int(joblib.cpu_count())


@contextmanager
def one_call(threads: int) -> Iterator[None]:
    """Let one call at a time run in this process, with the given number of torch threads."""
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
    """Restrict a worker process to one of `n_gpus`, in turn, before it starts CUDA."""
    name = re.fullmatch(r"LokyProcess-(?:\d+:)*(\d+)", process)
    if name is None:  # where joblib cannot start processes, it calls in this one
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
            if jobs == 1:  # they run in order, so it was the first one left
                yield min(left), WorkerLostError(ADVICE)
                del left[min(left)]
                continue
            jobs = max(1, jobs // 2)
            _log.warning("a process was killed, perhaps out of memory; continuing with %d", jobs)


def _in_processes(calls: Sequence[Any], jobs: int, threads: int) -> Answers:
    if jobs == 1:  # joblib would not start a process for one job
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
    """Log exceptions of loky's threads after an interruption instead of printing them."""
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

    # one thread per worker, since torch's state is global to the process; and any free port, since
    # another cluster may use Dask's default
    here = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    started_here = {} if workers.scheduler else here
    with Client(workers.scheduler, **started_here) as client:
        try:
            versions = client.run(_version)
        except ImportError as error:  # a task would never start
            raise ParameterError(f"the workers cannot import skal: {error}") from error
        for address, version in versions.items():
            if version != __version__:
                _log.warning("%s runs skal %s, this process %s", address, version, __version__)
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
    """Connect to a Ray cluster, or start one; raise a `ParameterError` if that fails."""
    import ray

    options: Any = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, **options)
    except Exception as error:
        raise ParameterError(
            f"scheduler: cannot connect to the Ray cluster at {address or 'this machine'} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]:.200}); if it requires a "
            "token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token has it"
        ) from error


def _in_flight(
    start: Callable[[Any], Any],
    finish: Callable[[Mapping[Any, int]], tuple[Any, Any]],
    items: Sequence[Any],
    most: int | None,
) -> Answers:
    """Keep `most` calls running (by default all), and yield the result of each. `start` returns a
    call's handle; `finish` waits for one, and returns its handle and result.
    """
    waiting = enumerate(items)
    running = {start(item): number for number, item in islice(waiting, most or len(items))}
    while running:
        handle, answer = finish(running)
        number = running.pop(handle)
        running.update({start(item): following for following, item in islice(waiting, 1)})
        yield number, answer


def gpus_per_ray_task(workers: Workers, resources: Mapping[str, float]) -> int:
    """Return how many GPUs each Ray task requests: without a number it may see none, or all. Raise
    a `ParameterError` if it needs one and the cluster has none, since it would never start.
    """
    has_gpu = resources.get("GPU", 0) >= 1
    if workers.device == "cuda" and not has_gpu:
        raise ParameterError("device: got 'cuda', but the Ray cluster has no GPU")
    return int(has_gpu and workers.may_use_gpus)


BACKENDS: Mapping[str, Callable[[Function, Any, Sequence[Any], Workers], Answers]] = {
    "loky": _on_loky,
    "dask": _on_dask,
    "ray": _on_ray,
}
PACKAGES = {"dask": "distributed", "ray": "ray"}
"""The package that a backend needs, which is in the extra of the backend's name."""
CLUSTERS = {
    "dask": ("a Dask scheduler", "tcp://10.0.0.1:8786"),
    "ray": ("a Ray cluster", "10.0.0.1:6379"),
}
"""The expected kind of server of each backend, and an example of its address."""
