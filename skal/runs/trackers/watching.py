"""Who is told of a run: trackers are made, checked, started, told and closed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ParameterError, failing
from ..config import RunConfig
from ..record import SECONDS
from .base import TRACKERS, Tracker
from .logger import read_tracking

if TYPE_CHECKING:
    from ...models.classifier import ImageClassifier

_log = logging.getLogger("skal")


def make_trackers(trackers: Sequence[Tracker | str]) -> list[Tracker]:
    """Make those that are named; raises as `TRACKERS.resolve`, or `ParameterError` if one fails."""
    return [_made(one) if isinstance(one, str) else _checked(one, "") for one in trackers]


def _made(spec: str) -> Tracker:
    entry = TRACKERS.resolve(spec)
    with failing(f"the tracker {spec} cannot be made", ParameterError):
        made = entry.make()
    return _checked(made, f" of {spec}")


def _checked(tracker: Any, origin: str) -> Tracker:
    if not isinstance(tracker, Tracker):
        raise ParameterError(
            f"trackers: got {tracker!r}{origin}; expected a skal.Tracker, module:Name, or one of "
            f"{', '.join(TRACKERS.names())}"
        )
    return tracker


def check_trackers(trackers: Sequence[Tracker | str], folder: Path | None) -> list[Tracker]:
    """Make trackers; a `SkalError` is raised if one's service does not answer."""
    made = make_trackers(trackers)
    for tracker in made:
        tracker.check(folder)
    for name in read_tracking(folder).keys() - {getattr(tracker, "name", None) for tracker in made}:
        _log.warning("the run was tracked by %s, and continues without it", name)
    return made


class Watchers(Tracker):
    """Passes every hook on, and says a line a round."""

    def __init__(self, config: RunConfig) -> None:
        self.trackers: list[Tracker] = []
        self.n_rounds = config.n_rounds

    def on_phase(self, round_number: int, phase: str) -> None:
        self._tell("on_phase", round_number, phase)

    def on_round(self, row: Mapping[str, Any]) -> None:
        _log.info(
            "round %d/%d: %d labels, accuracy %.4f  (fit %.1f s, score %.1f s, query %.1f s)",
            row["round"],
            self.n_rounds,
            row["n_labeled"],
            row["accuracy"],
            *(row[name] for name in SECONDS),
        )
        self._tell("on_round", row)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._tell("on_end", summary)

    @contextmanager
    def training(self, classifier: ImageClassifier, round_number: int) -> Iterator[None]:
        """Let the trackers' skorch callbacks hear what is trained inside the block."""
        heard: list[tuple[Tracker, Any]] = []
        for tracker in list(self.trackers):
            with self.excusing(tracker):
                for callback in _callbacks(tracker, round_number):
                    heard.append((tracker, callback.initialize()))
        if not heard:
            yield
            return
        from .callbacks import Relay

        def tell(event: str, net: Any, facts: Mapping[str, Any]) -> None:
            for tracker, callback in heard:
                if tracker in self.trackers:
                    with self.excusing(tracker):
                        getattr(callback, event)(net, **facts)

        before, relay = classifier.callbacks, Relay()
        relay.tell_ = tell
        classifier.callbacks = [*before, relay]
        try:
            yield
        finally:
            classifier.callbacks, relay.tell_ = before, None

    @contextmanager
    def excusing(self, tracker: Tracker) -> Iterator[None]:
        """Continue without a tracker that fails inside the block, if it may."""
        try:
            yield
        except Exception as error:
            if not tracker.may_fail:
                raise
            self.trackers.remove(tracker)
            _log.warning(
                "%s failed, and the run continues without it: %s",
                tracker,
                str(error) or type(error).__name__,
            )

    def close(self, tracker: Tracker) -> None:
        """Close a tracker, unless it failed: it would fail, or wait for its service, again."""
        if tracker in self.trackers:
            with self.excusing(tracker):
                tracker.on_close()

    def _tell(self, hook: str, *args: Any) -> None:
        for tracker in list(self.trackers):
            with self.excusing(tracker):
                getattr(tracker, hook)(*args)


def _callbacks(tracker: Tracker, round_number: int) -> Sequence[Any]:
    """Return a tracker's skorch callbacks, having seen that they are some."""
    callbacks: Any = tracker.skorch_callbacks(round_number)
    is_sequence = isinstance(callbacks, list | tuple)
    wrong = callbacks if not is_sequence else [c for c in callbacks if not _is_callback(c)]
    if not is_sequence or wrong:
        raise ParameterError(
            f"skorch_callbacks of the tracker {type(tracker).__qualname__} returned {wrong!r}; "
            "expected a list of instances of skorch.callbacks.Callback"
        )
    return list(callbacks)


def _is_callback(value: Any) -> bool:
    from skorch.callbacks import Callback

    return isinstance(value, Callback)


@contextmanager
def watching(
    trackers: Sequence[Tracker], config: RunConfig, folder: Path | None
) -> Iterator[Watchers]:
    """Start the trackers, yield one that stands for all, and close those that were started."""
    with ExitStack() as stack:
        watchers = Watchers(config)
        for tracker in trackers:
            tracker.on_start(config, folder)
            watchers.trackers.append(tracker)
            stack.callback(watchers.close, tracker)
        yield watchers
