"""Child processes that must not outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from functools import cache
from typing import Any

LOOK_SECONDS = 0.25
"""Interval between two checks that the parent process is alive."""


@cache
def end_with_parent() -> None:
    """End this process of multiprocessing or joblib soon after its parent ends, even if killed."""
    parent: Any = multiprocessing.parent_process()

    def follow() -> None:
        if os.name == "nt":
            parent.join()
        else:  # joblib's processes get no sentinel of their parent to wait for
            while os.getppid() == parent.pid:
                time.sleep(LOOK_SECONDS)
        os._exit(1)

    if parent is not None:
        threading.Thread(target=follow, daemon=True).start()
