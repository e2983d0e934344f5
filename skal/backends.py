"""Where work is done: by processes on this machine, or by those of a cluster."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from joblib import Parallel, parallel_config

from . import __version__
from .errors import MissingExtraError, ParameterError, UnknownNameError

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""What joblib's `delayed` makes: a function and its arguments."""

PACKAGES = {"dask": "distributed", "ray": "ray"}
"""What a backend needs beside skal, by the extra that has it."""

_log = logging.getLogger("skal")
_one_at_a_time = threading.Lock()  # torch's threads and generators are those of the process


@dataclass(frozen=True)
class Workers:
    """Who works.

    Parameters
    ----------
    backend : {"loky", "dask", "ray"}, default="loky"
        Processes on this machine, or a cluster.
    jobs : int, optional
        Calls at a time; by default 1, on a cluster as many as it has room for.
    threads : int, default=1
        Of each call.
    scheduler : str, optional
        The cluster's address; without, one is started on this machine.
    in_advance : bool, default=False
        Whether all calls are made up at once, and not as workers become free for them.
    """

    backend: str = "loky"
    jobs: int | None = None
    threads: int = 1
    scheduler: str | None = None
    in_advance: bool = False

    def run(self, calls: Iterable[Call]) -> Generator[Any, None, None]:
        """Yield what comes of each call, as it comes."""
        yield from BACKENDS[self.backend](self, calls)


def check_backend(name: str) -> None:
    """Check that there is a backend of that name, and what it needs.

    Raises
    ------
    UnknownNameError, MissingExtraError
        If there is not.
    """
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS)
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, name, f"the backend {name}")


@contextmanager
def alone(threads: int) -> Iterator[None]:
    """Do a call's work: no other of the process at the same time, with so many threads of torch."""
    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _on_loky(workers: Workers, calls: Iterable[Call]) -> Iterator[Any]:
    with parallel_config("loky", n_jobs=workers.jobs or 1, inner_max_num_threads=workers.threads):
        yield from _by_joblib(workers, calls)


def _version() -> str:
    return __version__


def _on_dask(workers: Workers, calls: Iterable[Call]) -> Iterator[Any]:
    from distributed import Client

    with Client(workers.scheduler) as client:
        try:
            versions = client.run(_version)
        except ImportError as error:  # a task would wait for ever
            raise ParameterError(f"the workers cannot import skal: {error}") from error
        for address, version in versions.items():
            if version != __version__:
                _log.warning("%s has skal %s, here is %s", address, version, __version__)
        with parallel_config("dask", n_jobs=workers.jobs or -1, client=client):
            yield from _by_joblib(workers, calls)


def _by_joblib(workers: Workers, calls: Iterable[Call]) -> Iterator[Any]:
    ahead = "all" if workers.in_advance else "2*n_jobs"
    yield from Parallel(return_as="generator_unordered", pre_dispatch=ahead)(calls)


def _on_ray(workers: Workers, calls: Iterable[Call]) -> Iterator[Any]:
    """Hand out calls by Ray itself: its backend of joblib gives nothing back before the end."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(address=workers.scheduler, log_to_driver=False)
    try:
        most = workers.jobs or (None if workers.in_advance else _twice_the_processors())
        waiting, running = iter(calls), list[Any]()
        while True:
            free = None if most is None else most - len(running)
            for function, args, kwargs in islice(waiting, free):
                start = ray.remote(num_cpus=workers.threads)(function).remote
                running.append(start(*args, **kwargs))
            if not running:
                return
            (done,), running = ray.wait(running)
            yield ray.get(done)
    finally:
        if ours:
            ray.shutdown()


def _twice_the_processors() -> int:
    import ray

    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]


BACKENDS: Mapping[str, Callable[[Workers, Iterable[Call]], Iterator[Any]]] = {
    "loky": _on_loky,
    "dask": _on_dask,
    "ray": _on_ray,
}
