"""Progress bars on a terminal, lines of the log elsewhere, and whether they show."""

from __future__ import annotations

import logging
import os
import sys
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


def progress(*args: Any, unit: str = "image", every: float = EVERY, **options: Any) -> tqdm[Any]:
    """Return a bar that is gone when it is done, or without a terminal one that logs a line `every`
    so many seconds; other arguments are those of tqdm.
    """
    from tqdm import tqdm  # not for those who only ask for help

    if sys.stderr is None or sys.stderr.isatty() or hidden():
        return tqdm(*args, unit=unit, disable=hidden(), leave=False, **options)

    lines = type("Lines", (tqdm,), {"monitor_interval": 0})  # no thread draws what nobody sees
    # each step looks at the time, for work may become slow; no bar has a place below another
    line = {"delay": every, "mininterval": every, "miniters": 1, "position": 0}
    bar = lines(*args, unit=unit, leave=False, file=_Log(), bar_format=LINE, **{**options, **line})
    if bar.total is None:
        bar.bar_format = LINE_TO_NO_END
    return bar
