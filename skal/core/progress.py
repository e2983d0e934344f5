"""Progress bars, and whether they show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def hidden() -> bool | None:
    """Return tqdm's `disable`: True if ``TQDM_DISABLE`` is set, else None, for terminals only."""
    return os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or None


def progress(*args: Any, unit: str = "image", **options: Any) -> tqdm[Any]:
    """Return a bar that is gone when it is done; arguments are those of tqdm."""
    from tqdm import tqdm  # not for those who only ask for help

    return tqdm(*args, unit=unit, disable=hidden(), leave=False, **options)
