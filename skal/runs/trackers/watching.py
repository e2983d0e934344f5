"""Trackers of a run: creating, checking, starting, notifying and closing them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ParameterError, blaming
from ..config import RunConfig
from .base import TRACKERS, Tracker
from .logger import read_tracking

if TYPE_CHECKING:
    from ...models.classifier import ImageClassifier

_log = logging.getLogger("skal")


def make_trackers(trackers: Sequence[Tracker | str]) -> list[Tracker]:
    """Create trackers from names; raise as `TRACKERS.resolve`, a `ParameterError` if one fails."""
    made: list[Tracker] = []
    for one in trackers:
        tracker: Any = one
        if isinstance(one, str):
            entry = TRACKERS.resolve(one)
            with blaming(f"cannot create the tracker {one}", ParameterError):
                tracker = entry.make()
        if not isinstance(tracker, Tracker):
            origin = f" of {one}" if isinstance(one, str) else ""
            raise ParameterError(
                f"trackers: got {tracker!r}{origin}; expected a skal.Tracker, module:Name, or one "
                f"of {', '.join(TRACKERS.names())}"
            )
        made.append(tracker)
    return made


def check_trackers(trackers: Sequence[Tracker | str], folder: Path | None) -> list[Tracker]:
    """Create trackers; raise a `SkalError` if a service does not answer."""
    made = make_trackers(trackers)
    for tracker in made:
        tracker.check(folder)
    for name in read_tracking(folder).keys() - {getattr(tracker, "name", None) for tracker in made}:
        _log.warning("the run was tracked by %s before, and continues without it", name)
    return made


class Watchers:
    """The started trackers of a run that have not failed."""

    def __init__(self) -> None:
        self.trackers: list[Tracker] = []

    def tell(self, hook: str, *args: Any) -> None:
        """Call a hook of all trackers."""
        for tracker in list(self.trackers):
            try:
                getattr(tracker, hook)(*args)
            except Exception as error:
                self._leave_out(tracker, error)

    @contextmanager
    def training(self, classifier: ImageClassifier, round_number: int) -> Iterator[None]:
        """Attach the trackers' skorch callbacks to a classifier during the block."""
        heard: list[tuple[Tracker, Any]] = []
        for tracker in list(self.trackers):
            try:
                for callback in _callbacks(tracker, round_number):
                    heard.append((tracker, callback.initialize()))
            except Exception as error:
                self._leave_out(tracker, error)
        if not heard:
            yield
            return
        from .callbacks import Relay

        def tell(event: str, net: Any, facts: Mapping[str, Any]) -> None:
            for tracker, callback in heard:
                if tracker in self.trackers:
                    try:
                        getattr(callback, event)(net, **facts)
                    except Exception as error:
                        self._leave_out(tracker, error)

        before, relay = classifier.callbacks, Relay()
        relay.tell_ = tell
        classifier.callbacks = [*before, relay]
        try:
            yield
        finally:
            classifier.callbacks, relay.tell_ = before, None

    def close(self, tracker: Tracker) -> None:
        """Close a tracker, unless it failed, since it might fail or wait for its service again."""
        if tracker in self.trackers:
            try:
                tracker.on_close()
            except Exception as error:
                self._leave_out(tracker, error)

    def _leave_out(self, tracker: Tracker, error: Exception) -> None:
        """Remove a failed tracker, or raise its error if it may not fail."""
        if not tracker.may_fail:
            raise error
        self.trackers.remove(tracker)
        reason = str(error) or type(error).__name__
        _log.warning("%s failed; the run continues without it: %s", tracker, reason)


def _callbacks(tracker: Tracker, round_number: int) -> Sequence[Any]:
    """Return a tracker's skorch callbacks; raise a `ParameterError` for anything else."""
    from skorch.callbacks import Callback  # imports torch

    callbacks: Any = tracker.skorch_callbacks(round_number)
    is_sequence = isinstance(callbacks, list | tuple)
    wrong = callbacks if not is_sequence else [c for c in callbacks if not isinstance(c, Callback)]
    if not is_sequence or wrong:
        raise ParameterError(
            f"skorch_callbacks of the tracker {type(tracker).__qualname__} returned {wrong!r}; "
            "expected a list of skorch.callbacks.Callback instances"
        )
    return list(callbacks)


@contextmanager
def watching(
    trackers: Sequence[Tracker], config: RunConfig, folder: Path | None
) -> Iterator[Watchers]:
    """Start the trackers, and close them after the block."""
    with ExitStack() as stack:
        watchers = Watchers()
        for tracker in trackers:
            tracker.on_start(config, folder)
            watchers.trackers.append(tracker)
            stack.callback(watchers.close, tracker)
        yield watchers
