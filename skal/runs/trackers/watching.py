"""Who is told of a run: trackers are made, checked, started, told and closed."""

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
    """Make those that are named; raises as `TRACKERS.resolve`, or `ParameterError` if one fails."""
    made: list[Tracker] = []
    for one in trackers:
        tracker: Any = one
        if isinstance(one, str):
            entry = TRACKERS.resolve(one)
            with blaming(f"the tracker {one} cannot be made", ParameterError):
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
    """Make trackers; a `SkalError` is raised if one's service does not answer."""
    made = make_trackers(trackers)
    for tracker in made:
        tracker.check(folder)
    for name in read_tracking(folder).keys() - {getattr(tracker, "name", None) for tracker in made}:
        _log.warning("the run was tracked by %s, and continues without it", name)
    return made


class Watchers:
    """The trackers of a run that were started and did not fail."""

    def __init__(self) -> None:
        self.trackers: list[Tracker] = []

    def tell(self, hook: str, *args: Any) -> None:
        """Call a hook of all."""
        for tracker in list(self.trackers):
            try:
                getattr(tracker, hook)(*args)
            except Exception as error:
                self._leave_out(tracker, error)

    @contextmanager
    def training(self, classifier: ImageClassifier, round_number: int) -> Iterator[None]:
        """Let the trackers' skorch callbacks hear what is trained inside the block."""
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
        """Close a tracker, unless it failed: it would fail, or wait for its service, again."""
        if tracker in self.trackers:
            try:
                tracker.on_close()
            except Exception as error:
                self._leave_out(tracker, error)

    def _leave_out(self, tracker: Tracker, error: Exception) -> None:
        """Continue without a tracker that failed, if it may."""
        if not tracker.may_fail:
            raise error
        self.trackers.remove(tracker)
        told = str(error) or type(error).__name__
        _log.warning("%s failed, and the run continues without it: %s", tracker, told)


def _callbacks(tracker: Tracker, round_number: int) -> Sequence[Any]:
    """Return a tracker's skorch callbacks, having seen that they are some."""
    from skorch.callbacks import Callback  # here, for it imports torch

    callbacks: Any = tracker.skorch_callbacks(round_number)
    is_sequence = isinstance(callbacks, list | tuple)
    wrong = callbacks if not is_sequence else [c for c in callbacks if not isinstance(c, Callback)]
    if not is_sequence or wrong:
        raise ParameterError(
            f"skorch_callbacks of the tracker {type(tracker).__qualname__} returned {wrong!r}; "
            "expected a list of instances of skorch.callbacks.Callback"
        )
    return list(callbacks)


@contextmanager
def watching(
    trackers: Sequence[Tracker], config: RunConfig, folder: Path | None
) -> Iterator[Watchers]:
    """Start the trackers, and close those that were started."""
    with ExitStack() as stack:
        watchers = Watchers()
        for tracker in trackers:
            tracker.on_start(config, folder)
            watchers.trackers.append(tracker)
            stack.callback(watchers.close, tracker)
        yield watchers
