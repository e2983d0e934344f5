"""Progress bars on a terminal, and log lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY = 30.0
"""Seconds between two log lines, where there is no terminal for a bar."""
SLOW_SECONDS = 2.0
"""The `delay` of bars, in seconds, for work that is usually shorter."""
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {remaining} left"
LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}s so far"

_log = logging.getLogger("skal")


class _Log:
    """A stream for tqdm that writes its lines to the log."""

    def write(self, text: str) -> None:
        if line := text.strip():
            _log.info(line)

    def flush(self) -> None:
        """Do nothing: lines are written at once."""


def hidden() -> bool | None:
    """Return tqdm's `disable`: True if ``TQDM_DISABLE`` is set, else None, for terminals only."""
    return os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or None


@cache
def _kinds() -> tuple[type[tqdm[Any]], type[tqdm[Any]]]:
    """Return the classes of bars and of log lines."""
    from tqdm import tqdm  # imported here, to keep --help fast

    methods: dict[str, Any] = {
        # a lock of its own would not be replaced with tqdm's, and a killed fork may hold it
        "get_lock": staticmethod(tqdm.get_lock),
        # a bar whose construction Ctrl-C interrupted has no position yet
        "__del__": lambda bar: hasattr(bar, "pos") and bar.close(),
    }
    bars = type("Bars", (tqdm,), methods)
    return bars, type("Lines", (bars,), {"monitor_interval": 0})  # no thread redraws


def progress(*args: Any, unit: str = "image", every: float = EVERY, **options: Any) -> tqdm[Any]:
    """Return a tqdm bar that vanishes when it is done, or without a terminal one that logs a line
    `every` so many seconds. Other arguments are those of tqdm.
    """
    if sys.stderr is None or sys.stderr.isatty() or hidden():
        return _kinds()[0](*args, unit=unit, disable=hidden(), leave=False, **options)

    # check the time at every step, for work may become slow; log lines have no position
    line = {"delay": every, "mininterval": every, "miniters": 1, "position": 0}
    bar = _kinds()[1](
        *args, unit=unit, leave=False, file=_Log(), bar_format=LINE, **{**options, **line}
    )
    if bar.total is None:
        bar.bar_format = LINE_WITHOUT_TOTAL
    return bar
