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
    """The images that were told to an annotator, those of his grid, and when."""

    queue: Sequence[int] = ()
    grid: Sequence[int] = ()
    since: float = 0.0
    grid_since: float = 0.0
    windows: dict[str, float] = field(default_factory=dict)


class Leases:
    """What was told to whom.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of: dict[str, Lease] = {}

    def tell(self, annotator: str, images: Sequence[int]) -> None:
        """Note the next images of an annotator, in place of those told before."""
        lease = self._of.setdefault(annotator, Lease())
        lease.queue, lease.since = images, self._clock()

    def tell_grid(self, annotator: str, images: Sequence[int]) -> None:
        """Note the images of an annotator's grid, in place of those before; none if it is shut."""
        lease = self._of.setdefault(annotator, Lease())
        lease.grid, lease.grid_since = images, self._clock()

    def renew_grid(self, annotator: str) -> None:
        """Note that an annotator's grid is open yet."""
        self._of.setdefault(annotator, Lease()).grid_since = self._clock()

    def of_others(self, annotator: str) -> Counter[int]:
        """Return by how many other people each image is held."""
        held: Counter[int] = Counter()
        for who in self._of:
            if who != annotator:
                held.update(self._held_by(who))
        return held

    def holders(self, images: Collection[int], but: str) -> list[str]:
        """Return who else holds one of some images."""
        return [who for who in self._of if who != but and self._held_by(who).intersection(images)]

    def _held_by(self, annotator: str) -> set[int]:
        lease, since = self._of[annotator], self._clock() - LEASE_SECONDS
        queue = lease.queue if lease.since > since else ()
        return {*queue, *(lease.grid if lease.grid_since > since else ())}

    def is_elsewhere(self, annotator: str, window: str | None) -> bool:
        """Tell whether another window labels under this name, and note that this one does."""
        if window is None:
            return False
        windows, now = self._of.setdefault(annotator, Lease()).windows, self._clock()
        windows[window] = now
        recent = {name for name, seen in windows.items() if seen > now - WINDOW_SECONDS}
        for name in windows.keys() - recent:
            del windows[name]
        return len(recent) > 1
