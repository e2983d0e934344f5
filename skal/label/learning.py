"""The process that trains networks while people label, and the requests to it."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.durable import remove_leftovers, write_atomic
from ..core.errors import told
from ..core.kept import forget
from ..core.processes import end_with_parent
from ..datasets.pixel_cache import HASHES
from ..runs.config import RunConfig
from .classes import Classes
from .listing import Files, Paths

if TYPE_CHECKING:
    from .picking import Picker

_log = logging.getLogger("skal")

NICENESS = 10
MOST_SECONDS_UNSEEN = 3.0
"""Seconds to wait for the page's first image, which the start of the process would delay."""
GUESSES = "guesses.npz"
"""In the project's own folder: the last network's predictions."""


@dataclass(frozen=True)
class Guesses:
    """A network's predictions for the images with the numbers `images`, int64.

    `proba`, float32, has a column for each class, or none while there is no network. `embeddings`,
    float32, measure similarity. `n_labeled` is the number of labels that the network `model` was
    trained on. `classes` are the class numbers of the columns, if these are not their indices; see
    `skal.label.classes`.
    """

    images: NDArray[np.int64]
    proba: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    n_labeled: int = 0
    model: str = ""
    classes: Sequence[int] = ()

    def by_class(self, today: Classes) -> Self:
        """Return predictions with a column for each current class."""
        n_columns = self.proba.shape[1]
        numbers = self.classes or range(n_columns)
        columns = [today.ids.get(number, len(today.names)) for number in numbers]
        if columns == list(range(n_columns)):
            return self
        proba = np.zeros((len(self.proba), len(today.names) + 1), np.float32)
        for column, place in enumerate(columns):  # the last is for removed classes
            proba[:, place] += self.proba[:, column]
        proba = proba[:, :-1] / np.maximum(proba[:, :-1].sum(1, keepdims=True), 1e-12)
        return replace(self, proba=proba, classes=tuple(today.numbers))

    @cached_property
    def rows(self) -> dict[int, int]:
        """The row of each image."""
        return {number: row for row, number in enumerate(self.images.tolist())}

    @property
    def is_of_network(self) -> bool:
        return bool(self.proba.shape[1])

    @cached_property
    def by_margin(self) -> list[int]:
        """The images by margin between the two highest class probabilities, smallest first."""
        if not self.is_of_network:
            return []
        best = np.sort(self.proba, axis=1)
        order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
        return self.images[order].tolist()  # type: ignore[no-any-return]

    def proba_of(self, image: int) -> NDArray[np.float32] | None:
        row = self.rows.get(image)
        return self.proba[row] if row is not None and self.is_of_network else None

    def nearest_to(self, image: int) -> list[int]:
        """Return all images by embedding distance to one, itself first."""
        distance = ((self.embeddings - self.embeddings[self.rows[image]]) ** 2).sum(1)
        distance[self.rows[image]] = -1
        return self.images[np.argsort(distance, kind="stable")].tolist()  # type: ignore[no-any-return]

    def near(self, image: int, n: int) -> list[int]:
        """Return the `n` nearest other images of one, unordered and cached."""
        key, row = (image, n), self.rows[image]
        if key not in self._near:
            distance = self._lengths - 2 * (self.embeddings @ self.embeddings[row])
            distance[row] = np.inf
            nearest = np.argpartition(distance, min(n, len(distance)) - 1)[:n]
            self._near[key] = self.images[nearest[nearest != row]].tolist()
        return self._near[key]

    @cached_property
    def _near(self) -> dict[tuple[int, int], list[int]]:
        return {}

    @cached_property
    def _lengths(self) -> NDArray[np.float32]:
        return (self.embeddings**2).sum(1)  # type: ignore[no-any-return]

    def save(self, path: Path) -> None:
        """Write the predictions to a file, atomically."""
        content = io.BytesIO()
        np.savez(content, **{field.name: getattr(self, field.name) for field in fields(self)})
        write_atomic(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None if the file is missing or, with a warning, damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                columns = {name: arrays[name] for name in ("images", "proba", "embeddings")}
                n, model = int(arrays["n_labeled"]), str(arrays["model"])
                numbers = arrays["classes"].tolist()
                return cls(**columns, n_labeled=n, model=model, classes=numbers)
        except FileNotFoundError:
            return None
        except Exception:  # a damaged archive may raise anything, and labelling must continue
            _log.warning("cannot read %s; predictions follow once a network is trained", path)
            return None


@dataclass(frozen=True)
class LearnerSetup:
    """The parts of a project that the learner needs: images, test images and settings."""

    root: Path
    files: Files
    paths: Paths
    config: RunConfig
    keep: Path | None
    of_test: Sequence[int]


@dataclass(frozen=True)
class BatchRequest:
    """A request to pick the next `n` of the images `candidates`, given the `labels` of images.

    `n_batches` is the number of earlier batches. `labels` are indices of `classes`, whose numbers
    are `numbers`.
    """

    classes: Sequence[str]
    labels: Mapping[int, int]
    candidates: Sequence[int]
    n: int
    n_batches: int = 0
    numbers: Sequence[int] = ()

    def __call__(self, pickers: Pickers) -> ComputedBatch:
        """Compute the batch, and save the network's predictions."""
        batch, keep = pickers.of_today().answer(self), pickers.setup.keep
        if keep is not None:
            batch.guesses.save(keep)
        return batch


@dataclass(frozen=True)
class Failure:
    """Why a job failed: a line of text, and a traceback for debugging."""

    reason: str
    details: str = ""


@dataclass(frozen=True)
class ComputedBatch:
    """The answer to a `BatchRequest`, with the best of the `picks` first.

    The `kind` is "strategy", or "start" for a batch picked without a network, whose guesses have
    only embeddings. `unreadable` images cannot be decoded.
    """

    picks: list[int]
    kind: str
    guesses: Guesses
    unreadable: list[int]
    seconds: float


class Pickers:
    """Makes the picker for the current images when it is needed.

    Of the caches of images that were added while people label, only the latest is kept on disk.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self.setup = setup
        self._picker: Picker | None = None
        self._added: list[Path] = []

    def of_today(self) -> Picker:
        from .picking import Picker  # imports torch

        before = self._picker
        if before is not None and before.setup is self.setup:
            return before
        self._picker = today = Picker(self.setup)
        if before is not None and today.cache != before.cache:
            for cache in self._added:
                forget(cache)
                forget(cache.with_name(f"{cache.name}.{HASHES}"))
            self._added = [today.cache]
        return today


Job: TypeAlias = Callable[[Pickers], Any] | LearnerSetup
"""A callable to run in the process (a `BatchRequest`, or a picklable function), or a new setup for
later jobs."""
Take: TypeAlias = Callable[[Any], None]
Fail: TypeAlias = Callable[[Failure], None]
Ask: TypeAlias = Callable[[Job, Take, Fail], None]


class Learner:
    """Runs jobs in a separate process, one at a time; answers arrive in a thread of the learner.

    The first job starts the process, once an image is `seen` or a few seconds have passed. If the
    process dies, the next job restarts it. It ends with its parent process, however that ends.
    """

    def __init__(self, task: LearnerSetup, seen: threading.Event | None = None) -> None:
        self._task, self._seen = task, seen
        self._jobs: queue.SimpleQueue[tuple[Job, Take, Fail] | None] = queue.SimpleQueue()
        self._process: Any = None
        self._connection: Connection | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="skal-learner", daemon=True)
        self._thread.start()

    def ask(self, job: Job, on_answer: Take, on_failure: Fail) -> None:
        """Queue a job, and call back with its answer or failure."""
        self._jobs.put((job, on_answer, on_failure))

    def renew(self, task: LearnerSetup) -> None:
        """Use another setup for later jobs."""
        self.ask(task, lambda answer: None, lambda failure: None)  # later jobs report a failure

    def stop(self) -> None:
        """Kill the process, and remove partly written files."""
        self._stopped = True
        self._jobs.put(None)
        if self._seen is not None:
            self._seen.set()
        process, keep = self._process, self._task.keep
        if process is not None:
            process.kill()
        self._thread.join(timeout=5)
        if process is not None and keep is not None:
            process.join(timeout=5)
            remove_leftovers(keep.parent, keep.name)

    def _run(self) -> None:
        while (asked := self._jobs.get()) is not None and not self._stopped:
            job, on_answer, on_failure = asked
            if self._seen is not None:
                self._seen.wait(MOST_SECONDS_UNSEEN)
                self._seen.set()  # once is enough
            if self._stopped:
                return
            answer = self._answer_to(job)
            if self._stopped:
                return
            if not isinstance(answer, Failure):
                try:
                    on_answer(answer)
                except Exception as error:  # for example a full disk: labelling must continue
                    answer = Failure(told(error), traceback.format_exc())
            if isinstance(answer, Failure):
                on_failure(answer)

    def _answer_to(self, job: Job) -> Any:
        try:
            return self._send(job)
        except (EOFError, OSError) as error:  # it died
            if self._process is None:
                return Failure(f"cannot start the background process: {error}")
            self._process.join(timeout=1)
            code = self._process.exitcode
            self._process = None
            as_when = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
            return Failure(f"the background process ended with {code}{as_when}")

    def _send(self, job: Job) -> Any:
        if isinstance(job, LearnerSetup):
            self._task = job  # also for a restarted process
            if self._process is None:
                return None
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._connection is not None
        self._connection.send(job)
        return self._connection.recv()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(self._task, theirs), name="skal-label-learner", daemon=True
        )
        process.start()
        self._process = process
        theirs.close()  # so that reading ends when the process does
        if self._stopped:
            process.kill()


def work(task: LearnerSetup, connection: Connection) -> None:
    """Answer requests from a connection until it is closed: the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C and ends this process
    end_with_parent()
    with suppress(OSError, AttributeError):  # the page has priority
        os.nice(NICENESS)
    os.environ["TQDM_DISABLE"] = "1"  # bars would mix with the server's log
    from tqdm import tqdm

    # a multiprocessing lock would be reported as leaked when this process is killed
    tqdm.set_lock(threading.RLock())
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # leave one processor to the page
    pickers = Pickers(task)
    with suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                if isinstance(job, LearnerSetup):
                    pickers.setup, answer = job, None
                else:
                    answer = job(pickers)
            except Exception as error:  # labelling must continue whatever happens
                answer = Failure(told(error), traceback.format_exc())
            connection.send(answer)
