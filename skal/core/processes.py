"""Processes that others start, and that must not outlive them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from functools import cache
from typing import Any

LOOK_SECONDS = 0.25
"""Between two looks whether the process that started this one is there."""


@cache
def end_with_parent() -> None:
    """End this process, which multiprocessing or joblib has started, soon after the one that
    started it, however that ends: who is killed can tell nobody.
    """
    parent: Any = multiprocessing.parent_process()

    def follow() -> None:
        if os.name == "nt":
            parent.join()
        else:  # joblib's processes are given nothing to wait for
            while os.getppid() == parent.pid:
                time.sleep(LOOK_SECONDS)
        os._exit(1)

    if parent is not None:
        threading.Thread(target=follow, daemon=True).start()
