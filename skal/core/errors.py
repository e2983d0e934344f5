"""Every error that a user can cause.

    SkalError
    ├── UsageError (ValueError)             what was asked for is not valid
    │   ├── UnknownNameError (LookupError)  no dataset, model, strategy ... of that name
    │   ├── ParameterError                  a keyword or value that the callee does not take
    │   └── RunExistsError (FileExistsError) the place to write to is taken
    ├── DataError (ValueError)              images or labels that cannot be used
    │   └── DatasetNotFoundError (FileNotFoundError)
    │       └── FolderNotFoundError (UsageError)   there is no such folder of images
    ├── RunFolderError (OSError)            a run folder that cannot be read or written
    ├── MissingExtraError (ImportError)     an optional package is not installed
    ├── workers.WorkerLostError            a process that is gone
    ├── comparisons RunsFailedError        some runs of a comparison failed; it has the others
    └── models NotFittedError              defined there, for it is also scikit-learn's own

`exit_code` is what the command line ends with.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

MOST_SHOWN = 40
"""Names that an error lists when none of them is near what was asked for."""

NO_MEMORY = (
    "DefaultCPUAllocator",
    "could not create a primitive",
    "bad_alloc",
    "can't start new thread",
)
"""In errors of torch, of oneDNN, of OpenVINO, and of threads, whose stacks are memory."""


DIVERGED = "the training diverged; a lower learning rate (lr) may help"


class SkalError(Exception):
    """Base of all errors that skal raises on purpose.

    Examples
    --------
    >>> import skal
    >>> try:
    ...     skal.run("digits", "magrin")
    ... except skal.SkalError as error:
    ...     print(str(error).partition(";")[0])
    unknown strategy 'magrin'
    """

    exit_code = 1


class UsageError(SkalError, ValueError):
    """What was asked for is not valid."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """No such name; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.name = name
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}{hint}")


class ParameterError(UsageError):
    """A keyword or a value that the callee does not take."""


class RunExistsError(UsageError, FileExistsError):
    """The place to write to is taken; nothing was touched."""


class DataError(SkalError, ValueError):
    """Images or labels that cannot be used."""


class DatasetNotFoundError(DataError, FileNotFoundError):
    """The files of a dataset are not where they were looked for."""


class FolderNotFoundError(DatasetNotFoundError, UsageError):
    """There is no such folder of images."""


class RunFolderError(SkalError, OSError):
    """A run folder that cannot be read or written."""


class MissingExtraError(SkalError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}: pip install 'skal[{extra}]'", name=package
        )


def require(package: str, extra: str, purpose: str) -> None:
    """Raise a MissingExtraError unless a package is installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra, purpose)


def one_line(error: BaseException, longest: int = 200) -> str:
    """Return an error's message, or its type's name, without line breaks and cut to `longest`; of a
    KeyError, whose message is the key alone, that there is none.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"there is no {text}" if isinstance(error, KeyError) else text
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def told(error: BaseException) -> str:
    """Return an error as one line to who is not where it happened: skal's own as it is, of others
    the kind, too.
    """
    if is_out_of_memory(error):
        return "out of memory"
    kind = "" if isinstance(error, SkalError) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, which torch says of a CPU by a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def pass_on_memory(error: BaseException) -> None:
    """Raise an error again if memory ran out: then nothing is damaged, or of the wrong kind."""
    if is_out_of_memory(error):
        raise error


def blame(
    error: Exception, what: str, kind: type[SkalError] = SkalError, *, always: bool = False
) -> NoReturn:
    """Raise a `kind` that starts with `what` for what somebody else's code raised; running out of
    memory is passed on, and so are skal's own errors unless `always`.
    """
    if isinstance(error, SkalError) and not always:
        raise error
    pass_on_memory(error)
    reason = " ".join(str(error).split())
    if not reason or not isinstance(error, TypeError | ValueError | SkalError):
        reason = f"{type(error).__name__}: {reason}".rstrip(": ")
    raise kind(f"{what}: {reason}") from error


@contextmanager
def blaming(
    what: str, kind: type[SkalError] = SkalError, *, always: bool = False
) -> Iterator[None]:
    """Call somebody else's code inside the block; see `blame`."""
    try:
        yield
    except Exception as error:
        blame(error, what, kind, always=always)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the nearest names, or all if these are few, to put behind "unknown ..."."""
    names = {one.lower(): one for one in sorted(known)}
    small = name.lower()
    near = difflib.get_close_matches(small, names, n=3, cutoff=0.5)
    is_long = len(names) > MOST_SHOWN
    if is_long:
        near = [one for one in names if small and small in one][:3] or near
    if near:
        return f"; did you mean {' or '.join(names[one] for one in near)}?"
    if is_long:
        nearest = difflib.get_close_matches(small, names, n=3, cutoff=0.0)
        told = " or ".join(names[one] for one in nearest)
        return f"; none of the {len(names)} known ones is like it, the nearest are {told}"
    return f"; known: {', '.join(names.values())}" if names else "; none are known"
