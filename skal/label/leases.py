"""Who has which images before them, so that no two people are shown the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

LEASE_SECONDS = 600.0
"""For so long the images told to one annotator are not shown to another."""
WINDOW_SECONDS = 10.0
"""For so long a window that asks for nothing counts as open."""


@dataclass
class Lease:
    """What was told to an annotator, as a queue and in the grid, and when."""

    queue: Sequence[int] = ()
    grid: Sequence[int] = ()
    since: float = 0.0
    grid_since: float = 0.0
    windows: dict[str, float] = field(default_factory=dict)


class Leases:
    """What was `told` to each annotator; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.told: dict[str, Lease] = {}

    def tell(self, annotator: str, images: Sequence[int]) -> None:
        """Note the next images of an annotator, in place of those told before."""
        lease = self.told.setdefault(annotator, Lease())
        lease.queue, lease.since = images, self._clock()

    def tell_grid(self, annotator: str, images: Sequence[int] | None) -> None:
        """Note the images of an annotator's grid; none if it is shut, None if it is still open."""
        lease = self.told.setdefault(annotator, Lease())
        lease.grid = lease.grid if images is None else images
        lease.grid_since = self._clock()

    def see(self, annotator: str, window: str) -> None:
        """Note that a window labels under a name."""
        windows, now = self.told.setdefault(annotator, Lease()).windows, self._clock()
        windows[window] = now
        for name in [name for name, seen in windows.items() if seen <= now - WINDOW_SECONDS]:
            del windows[name]

    def is_elsewhere(self, annotator: str, window: str | None) -> bool:
        """Tell whether another window labels under this name."""
        if window is None or annotator not in self.told:
            return False
        since = self._clock() - WINDOW_SECONDS
        windows = self.told[annotator].windows.items()
        return any(seen > since for name, seen in windows if name != window)

    def of_others(self, annotator: str) -> Counter[int]:
        """Return by how many other people each image is held."""
        return Counter(n for who in self.told if who != annotator for n in self.held_by(who))

    def holders(self, images: Collection[int], but: str) -> list[str]:
        return [who for who in self.told if who != but and self.held_by(who).intersection(images)]

    def held_by(self, annotator: str) -> set[int]:
        """Return the images that an annotator has before them."""
        lease, since = self.told.get(annotator, Lease()), self._clock() - LEASE_SECONDS
        queue = lease.queue if lease.since > since else ()
        return {*queue, *(lease.grid if lease.grid_since > since else ())}
