"""`RunConfig`: all settings of a run, for Python, the command line and ``config.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..core.kinds import Count, Share
from ..core.settings import Settings, read_settings, setting, settings_of
from ..datasets.settings import DataSettings
from ..models.settings import NetworkSettings, TrainingSettings

_labels = partial(setting, group="labels")
_query = partial(setting, group="query")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class LabelSettings(Settings):
    """Number of labels per round, their source, and the initial set."""

    n_init: Count = _labels(
        20, "Size of the initial labelled set, or its share of the pool", metavar="N|P%", lowest=1
    )
    n_query: Count = _labels(
        20,
        "Images to label per round, or their share of the pool",
        metavar="N|P%",
        lowest=1,
        idle_with=("stream",),
    )
    n_rounds: int = _labels(
        5,
        "Query rounds after the initial set",
        metavar="N",
        lowest=0,
        highest=10**6,
        details="The network is trained ``n_rounds + 1`` times.",
    )
    init_strategy: str | None = _labels(
        None,
        "How to choose the initial set; by default herding on a frozen network, else random",
        metavar="NAME",
        names=("init-strategies",),
        details="In a comparison, the default is random. The initial set is the same for every "
        "strategy with the same seed. See `skal.strategies.cold_start.ColdStart`.",
    )
    oracle: str = _labels(
        "true",
        "Source of the labels: true, those of the dataset, or an oracle's name",
        metavar="NAME",
        names=("oracles",),
    )
    n_valid: Count = _labels(
        0,
        "Labelled images held out for validation; they count as labels spent",
        metavar="N|P%",
        lowest=0,
        details="They are drawn at random, not trained on, and hidden from the strategy. "
        "``rounds.csv`` then has `valid_accuracy` and `valid_nll`, by the oracle's labels, and "
        "``valid.csv`` lists the images.",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class QuerySettings(Settings):
    """Query strategy, its candidates, and when to stop."""

    strategy: str = _query(
        "auto",
        "Query strategy: a name, or module:Class",
        metavar="NAME",
        names=("strategies", "stream-strategies"),
    )
    strategy_params: Mapping[str, Any] = _query(
        {}, "A parameter of the strategy; may be repeated", metavar="K=V", option="strategy-param"
    )
    explore: Share = _query(
        "0%",
        "Share of each batch to draw at random",
        metavar="P%",
        idle_with=("stream",),
    )
    max_candidates: int | None = _query(
        None,
        "Let the strategy choose from a random subset of this size, drawn anew each round",
        metavar="N",
        lowest=1,
        idle_with=("stream",),
        details="Other images are not scored. The default is all, or 100,000 if the strategy reads "
        "embeddings.",
    )
    stream: str = _query(
        "off",
        "Present the pool once, in n-rounds chunks, and decide on each image as it comes",
        choices=("off", "in-order", "shuffled"),
        bare="in-order",
    )
    budget: Share = _query(
        "10%",
        "Share of the stream that may be labelled",
        metavar="P%",
        above=0,
        needs=("stream",),
    )
    stop: str = _query(
        "notice",
        "Log a notice, or end the run, when the predictions have stabilised",
        choices=("off", "notice", "end"),
        bare="end",
        details="See `skal.runs.stopping.StopMonitor`. ``rounds.csv`` has the `agreement` with the "
        "previous round, and ``summary.json`` the `stop_round`.",
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingSettings, NetworkSettings, QuerySettings, LabelSettings, DataSettings):
    """The settings of a run."""

    @property
    def absolute_weights(self) -> str | None:
        """The path of the initial weights, for processes with another working folder."""
        return None if self.weights is None else str(Path(self.weights).resolve())

    @property
    def cache(self) -> Path:
        """Folder of cached pixels and features; needs the resolved `data_dir`."""
        return Path(str(self.data_dir)) / "cache"


SETTINGS = settings_of(RunConfig)
TRAINING_SETTINGS = settings_of(TrainingSettings)


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a run from a TOML file; see `skal.core.settings.read_settings`."""
    return read_settings(path, SETTINGS)
