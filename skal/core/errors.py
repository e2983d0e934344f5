"""The exceptions that skal raises for user errors.

    SkalError
    ├── UsageError (ValueError)              invalid argument
    │   ├── UnknownNameError (LookupError)   unknown dataset, model, strategy, ...
    │   ├── ParameterError                   invalid keyword or value
    │   └── RunExistsError (FileExistsError) the output path exists
    ├── DataError (ValueError)               images or labels that cannot be used
    │   └── DatasetNotFoundError (FileNotFoundError)
    │       └── FolderNotFoundError (UsageError)   the image folder does not exist
    ├── RunFolderError (OSError)             a run folder that cannot be read or written
    ├── MissingExtraError (ImportError)      an optional package is not installed
    ├── workers.WorkerLostError              a worker process died
    ├── comparisons RunsFailedError          some runs of a comparison failed; holds the others
    └── models NotFittedError                defined there; also scikit-learn's NotFittedError

The command line exits with an exception's `exit_code`.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

MOST_SHOWN = 40
"""Most names that an error lists in full when none of them is similar to the unknown one."""

NO_MEMORY = (
    "DefaultCPUAllocator",
    "could not create a primitive",
    "bad_alloc",
    "can't start new thread",
)
"""Parts of out-of-memory messages of torch, oneDNN, OpenVINO, and threads (for their stacks)."""

DIVERGED = "the training diverged; a lower learning rate (lr) may help"


class SkalError(Exception):
    """Base class of the exceptions that skal raises.

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
    """An argument is invalid."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """The name is unknown; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.name = name
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}{hint}")


class ParameterError(UsageError):
    """A keyword or value is invalid."""


class RunExistsError(UsageError, FileExistsError):
    """The output path exists; nothing was written."""


class DataError(SkalError, ValueError):
    """Images or labels cannot be used."""


class DatasetNotFoundError(DataError, FileNotFoundError):
    """The files of a dataset were not found."""


class FolderNotFoundError(DatasetNotFoundError, UsageError):
    """The image folder does not exist."""


class RunFolderError(SkalError, OSError):
    """A run folder cannot be read or written."""


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
    """Return an error's message, or its type's name, on one line of at most `longest` characters;
    that of a KeyError, which is only the key, becomes "there is no KEY".
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"there is no {text}" if isinstance(error, KeyError) else text
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def told(error: BaseException) -> str:
    """Return an error as one line, starting with its type unless it is one of skal's own."""
    if is_out_of_memory(error):
        return "out of memory"
    kind = "" if isinstance(error, SkalError) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; on a CPU, torch raises a RuntimeError for that."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def pass_on_memory(error: BaseException) -> None:
    """Re-raise an out-of-memory error, so that it is not reported as a damaged or invalid file."""
    if is_out_of_memory(error):
        raise error


def blame(
    error: Exception, what: str, kind: type[SkalError] = SkalError, *, always: bool = False
) -> NoReturn:
    """Raise an error of type `kind`, starting with `what`, for one raised by third-party code;
    re-raise out-of-memory errors, and skal's own unless `always`.
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
    """Turn exceptions of third-party code in the block into errors of type `kind`; see `blame`."""
    try:
        yield
    except Exception as error:
        blame(error, what, kind, always=always)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an "unknown ..." message: the nearest names, or all if there are few."""
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
        listed = " or ".join(names[one] for one in nearest)
        return f"; none of the {len(names)} known names is similar, the nearest are {listed}"
    return f"; known: {', '.join(names.values())}" if names else "; none are known"
