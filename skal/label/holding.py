"""Labelling as the only process: others would show the same images to people."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..core.durable import locked
from ..core.errors import RunFolderError


class HeldError(RunFolderError):
    """Another process labels the folder."""


def hold(home: Path, stack: ExitStack) -> None:
    """Keep other processes from labelling, until a stack is closed; `home` is a project's own."""
    lock = home / "lock"
    lock.touch()
    try:
        stack.enter_context(locked(lock))
    except RunFolderError as error:
        raise HeldError(
            f"{str(home.parent)!r} is being labelled by another process; several people label on "
            "one page, each under a name of their own (--as NAME, or the name in its header)"
        ) from error
