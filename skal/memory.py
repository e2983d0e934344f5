"""How much memory there is to take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    # of cgroups version 2, then 1: what may be used, what is, and what of that can be dropped
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def available_memory(cgroup: Path = _CGROUP, *, device: str = "cpu") -> int:
    """Return how many bytes can be allocated before the machine, or its container, is out of them.

    Parameters
    ----------
    cgroup : Path
        Where Linux says what a container may use.
    device : str, default="cpu"
        Where else they are to fit: of a CUDA device's memory and the machine's the lesser counts.

    Returns
    -------
    int
    """
    available = int(psutil.virtual_memory().available)
    for limit, usage, stat in _LIMITS:
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
            facts = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
            # pages of files that were read count as used, but make way
            available = min(available, most - used + int(facts.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue  # no such limit ("max" is none)
    if device.startswith("cuda"):
        available = min(available, _available_on(device))
    return max(available, 0)


def _available_on(device: str) -> int:
    import torch  # not for those who only ask what the machine has

    free, _ = torch.cuda.mem_get_info(device)
    # and what torch keeps in reserve, from which it allocates first
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + reserve)


def bytes_needed(terms: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Evaluate a polynomial of sizes.

    Parameters
    ----------
    terms : mapping of str to float
        Bytes by product of sizes: ``{"nn": 8, "nb": 4}`` is ``8 n n + 4 n b``.
    sizes : mapping of str to int
        What each letter stands for.

    Returns
    -------
    float
    """
    total = 0.0
    for letters, factor in terms.items():
        product = float(factor)
        for letter in letters:
            product *= sizes[letter]
        total += product
    return total


def gib(n_bytes: float) -> str:
    """Return bytes as text, such as "3.2 GiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 2**10:.0f} KiB"
