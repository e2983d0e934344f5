"""A lock that lets only one process label a folder: two would show the same images."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..core.durable import locked
from ..core.errors import RunFolderError


class HeldError(RunFolderError):
    """Another process labels the folder."""


def hold(home: Path, stack: ExitStack) -> None:
    """Lock a project's own folder `home` against other processes until a stack is closed."""
    lock = home / "lock"
    lock.touch()
    try:
        stack.enter_context(locked(lock))
    except RunFolderError as error:
        raise HeldError(
            f"{str(home.parent)!r} is being labelled by another process; several people can label "
            "on one page, each with their own name (--as NAME, or the name in its header)"
        ) from error
