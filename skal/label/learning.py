"""The process that trains, scores and picks while people label."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..core.settings import RunConfig
from ..datasets.base import one_line
from ..datasets.index import ImageFile
from .project import GUESSES, Guesses, LabelProject

NICENESS = 10

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Task:
    """What a picker needs of a project: where its images are, which test, and the settings."""

    root: Path
    files: Sequence[ImageFile]
    numbers: Mapping[str, int]
    config: RunConfig
    keep: Path | None
    of_test: Sequence[int]

    @classmethod
    def of(cls, project: LabelProject) -> Task:
        """Take it from a project."""
        numbers = {path: number for number, path in project.paths.items()}
        keep = project.place / GUESSES if project.store.path else None
        of_test = sorted({*project.reserve, *project.test_labels})
        return cls(project.root.resolve(), project.files, numbers, project.config, keep, of_test)


@dataclass(frozen=True)
class Job:
    """One question: which images next?

    Parameters
    ----------
    classes : sequence of str
        Names of the classes.
    labels : mapping of int to int
        Labels to train on, by image.
    candidates : sequence of int
        The images that may be picked.
    reserve : sequence of int
        The images kept for the test: the network is asked for their classes alone.
    n : int
        How many picks.
    """

    classes: Sequence[str]
    labels: Mapping[int, int]
    candidates: Sequence[int]
    reserve: Sequence[int]
    n: int


@dataclass(frozen=True)
class Failure:
    """Why there is no `Answer`: a line of text, and for who wants to know, where it happened."""

    reason: str
    details: str = ""


@dataclass(frozen=True)
class Answer:
    """What became of a `Job`.

    Parameters
    ----------
    picks : list of int
        Images, the first choice first.
    kind : str
        "strategy", or "start" for a batch chosen without a network.
    guesses : Guesses
        What the network says, or embeddings alone.
    unreadable : list of int
        Images that cannot be decoded.
    seconds : float
        What it took.
    """

    picks: list[int]
    kind: str
    guesses: Guesses
    unreadable: list[int]
    seconds: float


class Learner:
    """Sends jobs to a process of its own, one at a time.

    The process is started by the first job and, if it dies, again by the next. It ends with the
    process that started it, however that ends.

    Parameters
    ----------
    task : Task
        Of the project.
    on_answer : callable
        Takes an `Answer`; called in a thread of the learner's.
    on_failure : callable
        Takes a `Failure`; called likewise.
    """

    def __init__(
        self,
        task: Task,
        on_answer: Callable[[Answer], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        self._task = task
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._process: Any = None
        self._connection: Connection | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="skal-learner", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Ask for the next images; the answer comes by a callback."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the process at once, whatever it is doing."""
        self._stopped = True
        self._jobs.put(None)
        if self._process is not None:
            self._process.kill()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped:
            answer = self._answer_to(job)
            if self._stopped:
                return
            if isinstance(answer, Answer):
                try:
                    self._on_answer(answer)
                except Exception as error:  # a full disk, perhaps: people go on labelling
                    answer = Failure(one_line(error), traceback.format_exc())
            if isinstance(answer, Failure):
                self._on_failure(answer)

    def _answer_to(self, job: Job) -> Answer | Failure:
        try:
            return self._ask(job)
        except (EOFError, OSError) as error:  # it died
            if self._process is None:
                return Failure(f"no process could be started: {error}")
            self._process.join(timeout=1)
            code = self._process.exitcode
            self._process = None
            as_when = ", as when memory runs out" if code == -signal.SIGKILL else ""
            return Failure(f"its process ended with {code}{as_when}")

    def _ask(self, job: Job) -> Answer | Failure:
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._connection is not None
        self._connection.send(job)
        answer: Answer | Failure = self._connection.recv()
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(self._task, theirs), name="skal-label-learner", daemon=True
        )
        with _environment(TQDM_DISABLE="1"):  # bars would stand between the lines of the page
            process.start()
        self._process = process
        theirs.close()  # so that the end of the process is the end of the file
        if self._stopped:
            process.kill()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def work(task: Task, connection: Connection) -> None:
    """Answer jobs until nobody asks any more: what the process does.

    Parameters
    ----------
    task : Task
        Of the project.
    connection : Connection
        Jobs come in by it; what goes out is an `Answer` or a `Failure`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends this too
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError, AttributeError):  # the page comes first
        os.nice(NICENESS)
    from tqdm import tqdm

    # a lock between processes would be reported as lost when this one is killed
    tqdm.set_lock(threading.RLock())
    from .picking import Picker, one_line_of, use_few_threads

    use_few_threads()
    picker: Picker | None = None
    with suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                if picker is None:
                    picker = Picker(task)
                answer = picker.answer(job)
                if task.keep is not None:
                    answer.guesses.save(task.keep)
            except Exception as error:  # whatever it is, people go on labelling
                connection.send(Failure(one_line_of(error), traceback.format_exc()))
                continue
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
