"""Many calls of one function: in processes of this machine, or on a cluster that is there."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import current_process
from typing import Any

import joblib
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from .. import __version__
from .errors import MissingExtraError, ParameterError, SkalError, UnknownNameError

ADVICE = "its process was killed, as when memory runs out; fewer at a time (jobs) need less"

_log = logging.getLogger("skal")
_one_at_a_time = threading.Lock()  # torch's threads and generators are those of the process


class WorkerLostError(SkalError):
    """The process that was to answer a call is gone."""


@dataclass(frozen=True)
class Place:
    """Where calls are made, and how many at a time.

    Parameters
    ----------
    backend : {"loky", "dask", "ray"}, default="loky"
        Processes of this machine, or a cluster.
    scheduler : str, optional
        The cluster's address; without, one is started on this machine.
    jobs : int, optional
        Calls at a time: by default 1, on a cluster as many as it has room for.
    threads : int, default=0
        Of each call; 0 for the processors of this machine over `jobs`, on a cluster for 1.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where the calls compute. Of several processes of this machine each sees one of its GPUs,
        and so does each task of Ray; of Dask's workers each sees what it was started with.

    Raises
    ------
    UnknownNameError, MissingExtraError, ParameterError
        If there is no such backend, its package is not installed, or it has no scheduler.
    """

    backend: str = "loky"
    scheduler: str | None = None
    jobs: int | None = None
    threads: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UnknownNameError("backend", self.backend, BACKENDS)
        package = PACKAGES.get(self.backend)
        if package and importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, self.backend, f"the backend {self.backend}")
        if self.scheduler is not None and self.is_here:
            raise ParameterError("scheduler: the backend loky has none; expected dask or ray")
        if not self.threads:
            share = max(1, processors() // (self.jobs or 1)) if self.is_here else 1
            object.__setattr__(self, "threads", share)

    @property
    def is_here(self) -> bool:
        """Whether the calls see this machine's files."""
        return self.backend == "loky"

    @property
    def may_use_gpus(self) -> bool:
        """Whether the calls compute on CUDA's GPUs, if there are any."""
        return self.device in ("auto", "cuda")

    @property
    def n_gpus(self) -> int:
        """How many GPUs of this machine the processes share."""
        import torch

        if self.is_here and self.may_use_gpus and torch.cuda.is_available():
            return torch.cuda.device_count()
        return 0


Work = Callable[[Any, Any], Any]
Answers = Generator[tuple[int, Any], None, None]


def run_calls(work: Work, shared: Any, items: Sequence[Any], place: Place) -> Answers:
    """Call ``work(shared, item)`` for every item.

    Parameters
    ----------
    work : callable
        Importable by name on all machines. An exception of its own ends everything.
    shared : object
        Handed to every call; sent to a cluster once.
    items : sequence
        What the calls differ in.
    place : Place
        Where.

    Yields
    ------
    number : int
        Of the item, in the order in which the calls end.
    answer : object
        What the call returned; a `WorkerLostError` if its process died, again and again.
    """
    if items:
        yield from BACKENDS[place.backend](work, shared, items, place)


def processors() -> int:
    """Return how many processors this process may use, by affinity and container too."""
    return int(joblib.cpu_count())


@contextmanager
def alone(threads: int) -> Iterator[None]:
    """Do a call's work: no other of the process at the same time, with so many threads of torch."""
    import torch

    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _numbered(work: Work, shared: Any, number: int, item: Any, n_gpus: int = 0) -> tuple[int, Any]:
    if n_gpus > 1:
        _see_one_gpu(n_gpus)
    return number, work(shared, item)


def _see_one_gpu(n_gpus: int) -> None:
    """Leave this process, if it is a worker, one of the GPUs that it sees; they go in turn.

    CUDA asks for it once, at its start: so this comes before, and a worker keeps its GPU.
    """
    name = re.fullmatch(r"LokyProcess-(?:\d+:)*(\d+)", current_process().name)
    if name is None:  # where joblib may start none, calls are made here
        return
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",")[:n_gpus] if seen else [str(gpu) for gpu in range(n_gpus)]
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(name[1]) % len(gpus)]


def _on_loky(work: Work, shared: Any, items: Sequence[Any], place: Place) -> Answers:
    jobs, left = place.jobs or 1, dict(enumerate(items))
    if jobs == 1:
        yield from ((number, work(shared, item)) for number, item in left.items())
        return
    while left:
        try:
            # a list, for the answers take items away
            for number, answer in _in_processes(work, shared, list(left.items()), jobs, place):
                del left[number]
                yield number, answer
        except BrokenProcessPool:
            if jobs == 1:  # they go in order: it was the first that is left
                yield min(left), WorkerLostError(ADVICE)
                del left[min(left)]
                continue
            jobs = max(1, jobs // 2)
            _log.warning("a process was killed, as when memory runs out: going on with %d", jobs)


def _in_processes(
    work: Work, shared: Any, items: Sequence[tuple[int, Any]], jobs: int, place: Place
) -> Answers:
    if jobs == 1:  # of its own, which joblib would not start for one
        executor = get_reusable_executor(max_workers=1)
        for number, item in items:
            yield executor.submit(_numbered, work, shared, number, item).result()
        return
    n_gpus = place.n_gpus
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=place.threads):
        calls = [delayed(_numbered)(work, shared, *item, n_gpus) for item in items]
        yield from Parallel(return_as="generator_unordered", pre_dispatch="all")(calls)


def _version() -> str:
    return __version__


def _on_dask(work: Work, shared: Any, items: Sequence[Any], place: Place) -> Answers:
    from distributed import Client, KilledWorker, as_completed

    # of a cluster started here, each worker has one thread: torch's state is the process's
    started_here = {} if place.scheduler else {"threads_per_worker": 1, "dashboard_address": None}
    with Client(place.scheduler, **started_here) as client:
        try:
            versions = client.run(_version)
        except ImportError as error:  # a task would wait for ever
            raise ParameterError(f"the workers cannot import skal: {error}") from error
        for address, version in versions.items():
            if version != __version__:
                _log.warning("%s has skal %s, here is %s", address, version, __version__)
        sent = client.scatter(shared, broadcast=True, hash=False)

        def start(number: int) -> Any:
            return client.submit(work, sent, items[number], pure=False)

        at_first = min(place.jobs or len(items), len(items))
        numbers = {start(number): number for number in range(at_first)}
        waiting = iter(range(at_first, len(items)))
        running = as_completed(list(numbers))
        for future in running:
            number = numbers.pop(future)
            try:
                answer = future.result()
            except KilledWorker:
                answer = WorkerLostError(ADVICE)
            if (following := next(waiting, None)) is not None:
                begun = start(following)
                numbers[begun] = following
                running.add(begun)
            yield number, answer


def _on_ray(work: Work, shared: Any, items: Sequence[Any], place: Place) -> Answers:
    import ray
    from ray.exceptions import WorkerCrashedError

    ours = not ray.is_initialized()
    if ours:
        ray.init(address=place.scheduler, log_to_driver=False)
    try:
        n_gpus = _gpus_of_a_task(place, ray)
        start = ray.remote(num_cpus=place.threads, num_gpus=n_gpus)(work).remote
        sent = ray.put(shared)
        waiting, numbers = list(enumerate(items)), dict[Any, int]()
        while waiting or numbers:
            while waiting and len(numbers) < (place.jobs or len(items)):
                number, item = waiting.pop(0)
                numbers[start(sent, item)] = number
            (done,), _ = ray.wait(list(numbers))
            try:
                answer = ray.get(done)
            except (WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                answer = WorkerLostError(ADVICE)
            yield numbers.pop(done), answer
    finally:
        if ours:
            ray.shutdown()


def _gpus_of_a_task(place: Place, ray: Any) -> int:
    """Return how many GPUs a task of Ray asks for: without, it may see none, or all."""
    there = ray.cluster_resources().get("GPU", 0) >= 1
    if place.device == "cuda" and not there:  # the tasks would wait for ever
        raise ParameterError("device 'cuda' is not there: the Ray cluster has no GPU")
    return int(there and place.may_use_gpus)


BACKENDS: Mapping[str, Callable[[Work, Any, Sequence[Any], Place], Answers]] = {
    "loky": _on_loky,
    "dask": _on_dask,
    "ray": _on_ray,
}
PACKAGES = {"dask": "distributed", "ray": "ray"}
"""What a backend needs beside skal, by the extra that has it."""
