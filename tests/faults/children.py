"""Work done by forked children, which may be killed, and what they tell of it."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import damage
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from skal.core.errors import SkalError, is_out_of_memory

SECONDS = 120
"""After which a child hangs."""
SECONDS_EACH = 30
"""That one of several things may take which a child does."""
MOST_BYTES = 2**29
"""More than the process had before; with what is imported that is a GiB."""


def begin(
    do: Callable[[Path], Any],
    work: Path,
    answer: Path,
    first: Callable[[], None] = lambda: None,
    last: Callable[[], Any] = lambda: None,
) -> int:
    """Let a child do it, between what it does first and last; return its process id."""
    answer.unlink(missing_ok=True)
    # a child would wait for ever for processes that this one has started before
    get_reusable_executor().shutdown(wait=True)
    child = os.fork()
    if child:
        return child
    try:
        tqdm.set_lock(threading.RLock())  # the parent's is shared, and who is killed keeps it
        signal.alarm(SECONDS)
        first()
        try:
            with damage.quiet():
                status, found = "done", do(work)
        except SkalError as error:
            status, found = "named", str(error)
        except OSError as error:  # to the command line, one line
            status, found = "named", f"{error.filename}: {error.strerror or error}"
        except BaseException as error:
            status = "out of memory" if is_out_of_memory(error) else "raw"
            found = repr(error)
        answer.write_bytes(pickle.dumps((status, found, last())))
    finally:
        os._exit(0)


def end(child: int, answer: Path) -> tuple[str, Any, Any]:
    """Wait for a child; return how it ended, what it found or said, and what it did last."""
    _, code = os.waitpid(child, 0)
    if os.WIFSIGNALED(code):
        number = os.WTERMSIG(code)
        return ("killed" if number == signal.SIGKILL else f"ended by signal {number}"), "", ""
    if not answer.exists():
        return "without an answer", "", ""
    return pickle.loads(answer.read_bytes())  # type: ignore[no-any-return]


def undisturbed(ended: tuple[str, Any, Any]) -> tuple[Any, Any]:
    """Return what a child found that nothing disturbed, and what it did last."""
    status, found, last = ended
    if status != "done":
        raise RuntimeError(f"an undisturbed child ended as {status}: {found}")
    return found, last


def is_one_line(told: str, work: Path) -> bool:
    """Tell whether what was said is one line that names a file."""
    names = {path.name for path in work.rglob("*")} | {str(work)}
    return "\n" not in told and any(name in told for name in names)


def one_by_one(
    names: list[str], outcome_of: Callable[[str], str], work: Path, answer: Path
) -> Iterator[tuple[str, str]]:
    """Tell how each of several things ends that a child does, and another one the rest where one of
    them ends the child.
    """
    log = answer.with_suffix(".log")
    while names:
        log.unlink(missing_ok=True)
        child = begin(partial(_each, names, outcome_of, log), work, answer)
        status, found, _ = end(child, answer)
        if status == "done":
            yield from found
            return
        begun = log.read_text().split() if log.exists() else names[:1]
        yield begun[-1], f"{status} {found}"
        names = names[len(begun) :]


def _each(
    names: list[str], outcome_of: Callable[[str], str], log: Path, work: Path
) -> list[tuple[str, str]]:
    outcomes, before = [], _peak()  # of a fork: what the parent had
    with log.open("w") as told:
        for name in names:
            told.write(f"{name}\n")
            told.flush()
            signal.alarm(SECONDS_EACH)
            outcomes.append((name, outcome_of(name)))
    most = _peak() - before
    if most > MOST_BYTES:
        outcomes.append((names[0], f"{most / 2**20:.0f} MiB"))
    return outcomes


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
