"""The hooks of a run, and those who are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.registry import Registry
from ..config import RunConfig
from ..record import SECONDS

if TYPE_CHECKING:
    from ...models.classifier import ImageClassifier

TRACKING = "tracking.json"
TRACKERS: Registry[type[Tracker]] = Registry("tracker")

_log = logging.getLogger("skal")


class Tracker:
    """Does nothing at any hook; subclasses override those that they need.

    Attributes
    ----------
    may_fail : bool, default=False
        Whether the run goes on without the tracker, with a warning, when a hook after `on_start`
        raises. By default what it raises ends the run.
    """

    may_fail: ClassVar[bool] = False

    def check(self, folder: Path | None) -> None:
        """Raise if a run kept in `folder` could not be watched; nothing is written yet."""

    def on_start(self, config: RunConfig, folder: Path | None) -> None:
        """Be told that a run starts or goes on, with all its settings resolved."""

    def on_phase(self, round_number: int, phase: str) -> None:
        """Be told that a part of a round starts: "querying", "training" or "evaluating"."""

    def skorch_callbacks(self, round_number: int) -> Sequence[Any]:
        """Return skorch callbacks that hear the training of a round's network, and no other."""
        return ()

    def on_round(self, row: Mapping[str, Any]) -> None:
        """Be told that a round is whole and on the disk, with its row of ``rounds.csv``."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Be told that the run is done, with the content of ``summary.json``."""

    def on_close(self) -> None:
        """Be told that the run is left, whether it is done, failed or was interrupted."""


def make_trackers(trackers: Sequence[Tracker | str]) -> list[Tracker]:
    """Return trackers, those that are named made without arguments.

    Raises
    ------
    UnknownNameError
        If a name is not one of `TRACKERS`.
    MissingExtraError
        If a tracker's package is not installed.
    """
    return [TRACKERS.get(t)() if isinstance(t, str) else t for t in trackers]


def check_trackers(trackers: Sequence[Tracker | str], folder: Path | None) -> list[Tracker]:
    """Make trackers, and find what would keep them from watching a run.

    Parameters
    ----------
    trackers : sequence of Tracker or str
        Names are those of `TRACKERS`.
    folder : Path or None
        The run's folder, which need not exist.

    Returns
    -------
    list of Tracker

    Raises
    ------
    SkalError
        If a name is unknown, a package is not installed, or a service does not answer.
    """
    made = make_trackers(trackers)
    for tracker in made:
        tracker.check(folder)
    for name in read_tracking(folder).keys() - {getattr(tracker, "name", None) for tracker in made}:
        _log.warning("the run was tracked by %s, and goes on without it", name)
    return made


def read_tracking(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Return the content of a run's ``tracking.json``: how far each tracker has logged it."""
    try:
        content: dict[str, Any] = json.loads((folder / TRACKING).read_bytes()) if folder else {}
    except FileNotFoundError:
        return {}
    return content


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
        """Let the trackers' skorch callbacks hear what is trained inside the block.

        They hear nothing of it later, nor of its clones: the classifier is as without them.
        """
        heard: list[tuple[Tracker, Any]] = []
        for tracker in list(self.trackers):
            with self.excusing(tracker):
                callbacks = tracker.skorch_callbacks(round_number)
                heard += [(tracker, callback.initialize()) for callback in callbacks]
        if not heard:
            yield
            return
        from .training import Relay

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
        """Go on without a tracker that fails inside the block, if it may."""
        try:
            yield
        except Exception as error:
            if not tracker.may_fail:
                raise
            self.trackers.remove(tracker)
            _log.warning(
                "%s failed, and the run goes on without it: %s",
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
