"""What is asked of the process that trains while people label, and that process."""

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
"""So long a process waits for the page's first image, which its own start would hold up."""
GUESSES = "guesses.npz"
"""In the project's own folder: what the last network said."""


@dataclass(frozen=True)
class Guesses:
    """What a network says of the images whose numbers are `images`, int64.

    `proba`, float32, has a column for each class, none while there is no network; `embeddings`,
    float32, are what images are alike by; `n_labeled` is how many labels the network, of the name
    `model`, was trained on. `classes` are the numbers of the columns' classes, where these are not
    their places; see `skal.label.classes`.
    """

    images: NDArray[np.int64]
    proba: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    n_labeled: int = 0
    model: str = ""
    classes: Sequence[int] = ()

    def by_class(self, today: Classes) -> Self:
        """Return them with a column for each class of today, if they have others."""
        n_columns = self.proba.shape[1]
        numbers = self.classes or range(n_columns)
        columns = [today.ids.get(number, len(today.names)) for number in numbers]
        if columns == list(range(n_columns)):
            return self
        proba = np.zeros((len(self.proba), len(today.names) + 1), np.float32)
        for column, place in enumerate(columns):  # the last is of classes that were removed
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
        """The images, those first whose two most probable classes are nearest to each other."""
        if not self.is_of_network:
            return []
        best = np.sort(self.proba, axis=1)
        order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
        return self.images[order].tolist()  # type: ignore[no-any-return]

    def proba_of(self, image: int) -> NDArray[np.float32] | None:
        row = self.rows.get(image)
        return self.proba[row] if row is not None and self.is_of_network else None

    def nearest_to(self, image: int) -> list[int]:
        """Return the images by the distance of their embeddings to that of one, itself first."""
        distance = ((self.embeddings - self.embeddings[self.rows[image]]) ** 2).sum(1)
        distance[self.rows[image]] = -1
        return self.images[np.argsort(distance, kind="stable")].tolist()  # type: ignore[no-any-return]

    def near(self, image: int, n: int) -> list[int]:
        """Return the `n` other images that are most like one, in no order; found once an image."""
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
        """Write them to a file, as a whole."""
        content = io.BytesIO()
        np.savez(content, **{field.name: getattr(self, field.name) for field in fields(self)})
        write_atomic(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None if there is nothing, or nothing of use, which is logged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                columns = {name: arrays[name] for name in ("images", "proba", "embeddings")}
                n, model = int(arrays["n_labeled"]), str(arrays["model"])
                numbers = arrays["classes"].tolist()
                return cls(**columns, n_labeled=n, model=model, classes=numbers)
        except FileNotFoundError:
            return None
        except Exception:  # whatever a torn archive raises: people go on labelling
            _log.warning("cannot read %s: there are no guesses until a network is trained", path)
            return None


@dataclass(frozen=True)
class LearnerSetup:
    """What the learner needs of a project: its images, those of the test, and the settings."""

    root: Path
    files: Files
    paths: Paths
    config: RunConfig
    keep: Path | None
    of_test: Sequence[int]


@dataclass(frozen=True)
class BatchRequest:
    """One question: which `n` of the images `candidates` next, by the `labels` of images?

    `n_batches` have been handed out since the project was begun; `numbers` are those of the
    `classes`, which `labels` name by their places.
    """

    classes: Sequence[str]
    labels: Mapping[int, int]
    candidates: Sequence[int]
    n: int
    n_batches: int = 0
    numbers: Sequence[int] = ()

    def __call__(self, pickers: Pickers) -> ComputedBatch:
        """Answer it, where a network is trained, and keep what that says."""
        batch, keep = pickers.of_today().answer(self), pickers.setup.keep
        if keep is not None:
            batch.guesses.save(keep)
        return batch


@dataclass(frozen=True)
class Failure:
    """Why a job has no answer: a line of text, and for debugging, where it happened."""

    reason: str
    details: str = ""


@dataclass(frozen=True)
class ComputedBatch:
    """What became of a `BatchRequest`: the first choice stands first in `picks`.

    The `kind` is "strategy", or "start" for a batch chosen without a network, whose guesses are
    embeddings only; `unreadable` images cannot be decoded.
    """

    picks: list[int]
    kind: str
    guesses: Guesses
    unreadable: list[int]
    seconds: float


class Pickers:
    """The picker of the images that there are today, made when it is needed.

    Of images decoded while people label, only the latest are kept on the disk.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self.setup = setup
        self._picker: Picker | None = None
        self._added: list[Path] = []

    def of_today(self) -> Picker:
        from .picking import Picker  # and torch with it

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
"""What can be called in another process: a `BatchRequest`, or a function, which may have its first
arguments; or other images, of which the jobs after it are."""
Take: TypeAlias = Callable[[Any], None]
Fail: TypeAlias = Callable[[Failure], None]
Ask: TypeAlias = Callable[[Job, Take, Fail], None]


class Learner:
    """Sends jobs to a process of its own, one at a time; answers come in a thread of the learner's.

    The process is started by the first job, once an image is `seen` or a few seconds have passed,
    and, if it dies, again by the next. It ends with the process that started it, however that ends.
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
        """Let a job be done after those before it, and its answer be told."""
        self._jobs.put((job, on_answer, on_failure))

    def renew(self, task: LearnerSetup) -> None:
        """Let the jobs after those before it be done with other images."""
        self.ask(task, lambda answer: None, lambda failure: None)  # the next one says it again

    def stop(self) -> None:
        """End the process at once, whatever it is doing, and remove what it had half written."""
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
                except Exception as error:  # a full disk, perhaps: people go on labelling
                    answer = Failure(told(error), traceback.format_exc())
            if isinstance(answer, Failure):
                on_failure(answer)

    def _answer_to(self, job: Job) -> Any:
        try:
            return self._send(job)
        except (EOFError, OSError) as error:  # it died
            if self._process is None:
                return Failure(f"no process could be started: {error}")
            self._process.join(timeout=1)
            code = self._process.exitcode
            self._process = None
            as_when = ", as when memory runs out" if code == -signal.SIGKILL else ""
            return Failure(f"its process ended with {code}{as_when}")

    def _send(self, job: Job) -> Any:
        if isinstance(job, LearnerSetup):
            self._task = job  # of a process that is started again, too
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
        theirs.close()  # so that the end of the process is the end of the file
        if self._stopped:
            process.kill()


def work(task: LearnerSetup, connection: Connection) -> None:
    """Answer the requests that come by a connection until it is closed: what the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends this too
    end_with_parent()
    with suppress(OSError, AttributeError):  # the page comes first
        os.nice(NICENESS)
    os.environ["TQDM_DISABLE"] = "1"  # bars would stand between the lines of the page
    from tqdm import tqdm

    # a lock between processes would be reported as lost when this one is killed
    tqdm.set_lock(threading.RLock())
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # a processor is left to the page
    pickers = Pickers(task)
    with suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                if isinstance(job, LearnerSetup):
                    pickers.setup, answer = job, None
                else:
                    answer = job(pickers)
            except Exception as error:  # whatever it is, people go on labelling
                answer = Failure(told(error), traceback.format_exc())
            connection.send(answer)
