"""Whether progress bars show."""

from __future__ import annotations

import os


def hidden() -> bool | None:
    """Return tqdm's `disable`: True if ``TQDM_DISABLE`` is set, else None, for terminals alone.

    By itself tqdm reads that variable when it is imported, and for bars that say nothing of it.
    """
    return os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or None
