"""Work done by forked children, which may be killed, and what they tell of it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from skal.core.errors import SkalError, is_out_of_memory

SECONDS = 120
"""After which a child hangs."""


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
