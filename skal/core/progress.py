"""Progress bars on a terminal, lines of the log elsewhere, and whether they show."""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY = 30.0
"""Seconds from one line to the next, where there is no terminal for a bar."""
SLOW_SECONDS = 2.0
"""What a bar waits for where the work is mostly shorter: the `delay` of tqdm."""
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {remaining} left"
LINE_TO_NO_END = "{desc}: {n_fmt} {unit}s so far"

_log = logging.getLogger("skal")


class _Log:
    """Takes what is drawn on a terminal as lines of the log."""

    def write(self, text: str) -> None:
        if line := text.strip():
            _log.info(line)

    def flush(self) -> None:
        """Do nothing: a line is written at once."""


def hidden() -> bool | None:
    """Return tqdm's `disable`: True if ``TQDM_DISABLE`` is set, else None, for terminals only."""
    return os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or None


@cache
def _kinds() -> tuple[type[tqdm[Any]], type[tqdm[Any]]]:
    """Return the classes of bars, and of lines."""
    from tqdm import tqdm  # not for those who only ask for help

    methods: dict[str, Any] = {
        # a lock of its own would not be replaced where tqdm's is, and a killed fork may hold it
        "get_lock": staticmethod(tqdm.get_lock),
        # what Ctrl-C broke off the making of has no place yet
        "__del__": lambda bar: hasattr(bar, "pos") and bar.close(),
    }
    bars = type("Bars", (tqdm,), methods)
    return bars, type("Lines", (bars,), {"monitor_interval": 0})  # no thread draws what is unseen


def progress(*args: Any, unit: str = "image", every: float = EVERY, **options: Any) -> tqdm[Any]:
    """Return a bar that is gone when it is done, or without a terminal one that logs a line `every`
    so many seconds; other arguments are those of tqdm.
    """
    if sys.stderr is None or sys.stderr.isatty() or hidden():
        return _kinds()[0](*args, unit=unit, disable=hidden(), leave=False, **options)

    # each step looks at the time, for work may become slow; no bar has a place below another
    line = {"delay": every, "mininterval": every, "miniters": 1, "position": 0}
    bar = _kinds()[1](
        *args, unit=unit, leave=False, file=_Log(), bar_format=LINE, **{**options, **line}
    )
    if bar.total is None:
        bar.bar_format = LINE_TO_NO_END
    return bar
