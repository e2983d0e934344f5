"""Leases of images to annotators, so that no two people are shown the same image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

LEASE_SECONDS = 600.0
"""How long images sent to one annotator are not shown to another."""
WINDOW_SECONDS = 10.0
"""How long a window without requests counts as open."""


class Leases:
    """The images sent to each annotator (`told`, by place) and when; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.told: dict[str, dict[str, tuple[Sequence[int], float]]] = {}
        self._windows: dict[str, dict[str, float]] = {}

    def tell(self, annotator: str, place: str, images: Sequence[int] | None) -> None:
        """Lease the images of an annotator's "queue" or "grid"; None renews the lease."""
        places = self.told.setdefault(annotator, {})
        before, _ = places.get(place, ((), 0.0))
        places[place] = (before if images is None else images), self._clock()

    def see(self, annotator: str, window: str) -> None:
        """Note that a window is open under a name."""
        now, before = self._clock(), self._windows.get(annotator, {})
        still_open = {name: at for name, at in before.items() if at > now - WINDOW_SECONDS}
        self._windows[annotator] = {**still_open, window: now}

    def leave(self, annotator: str, window: str | None) -> None:
        """Note that a window was closed, until it sends another request."""
        self._windows.get(annotator, {}).pop(window or "", None)

    def is_elsewhere(self, annotator: str, window: str | None) -> bool:
        """Return whether another window is open under this name."""
        since = self._clock() - WINDOW_SECONDS
        seen = self._windows.get(annotator, {}).items()
        return window is not None and any(at > since for name, at in seen if name != window)

    def of_others(self, annotator: str) -> Counter[int]:
        """Return how many other people hold each image."""
        return Counter(n for who in self.told if who != annotator for n in self.held_by(who))

    def holders(self, images: Collection[int], but: str) -> list[str]:
        return [who for who in self.told if who != but and self.held_by(who).intersection(images)]

    def held_by(self, annotator: str) -> set[int]:
        """Return the images that an annotator holds."""
        since, places = self._clock() - LEASE_SECONDS, self.told.get(annotator, {}).values()
        return {image for images, at in places if at > since for image in images}
