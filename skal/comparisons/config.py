"""`GridConfig`: the settings of a comparison, in addition to those of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import ParameterError, UnknownNameError
from ..core.kinds import Share
from ..core.settings import Settings, read_settings, setting, settings_of
from ..runs.config import SETTINGS, RunConfig

BASELINE = "random"
AXES = {"models": "model", "noise_rates": "noise_rate", "label_noises": "label_noise"}
"""Lists that may vary in a grid besides strategies and seeds, each with its setting of a run."""
GRID = "compare"
"""The table of a settings file with the grid's settings."""
NOT_OF_A_GRID = ("strategy", "strategy_params")
"""Settings of a run that a grid does not take."""

_grid = partial(setting, group="comparison")


@dataclass(frozen=True, kw_only=True)
class GridConfig(Settings):
    """The settings of a comparison, in addition to those of its runs."""

    strategies: Sequence[str] = _grid(
        (BASELINE, "margin", "badge"),
        "Query strategies, with parameters as NAME?K=V&K=V; random is always added",
        metavar="A,B",
        names=("strategies", "stream-strategies"),
        lowest=1,
    )
    seeds: int = _grid(
        10, "Number of seeds, counted from --seed", metavar="N", lowest=1, highest=10**6
    )
    models: Sequence[str] = _grid((), "Networks to compare", metavar="A,B", names=("models",))
    noise_rates: Sequence[Share] = _grid((), "Rates of image noise to compare", metavar="R,R")
    label_noises: Sequence[Share] = _grid((), "Rates of label noise to compare", metavar="R,R")
    jobs: int | None = _grid(
        None,
        "Jobs at a time; by default 1, on a cluster as many as fit",
        metavar="N",
        lowest=1,
        highest=10**4,
    )
    threads: int | None = _grid(
        None,
        "Threads of each job; by default processors divided by --jobs, on a cluster 1",
        metavar="N",
        lowest=1,
        highest=10**4,
        details="It affects the last digits of the figures, so a resumed comparison keeps its "
        "number.",
    )
    backend: str = _grid(
        "loky",
        "Where jobs run: in processes on this machine (loky), or on a cluster",
        choices=("loky", "dask", "ray"),
        details="On a cluster, named data must have the same path on all machines; arrays are "
        "sent to them.",
    )
    scheduler: str | None = _grid(
        None,
        "Address of the cluster; by default one is started on this machine",
        metavar="ADDRESS",
        needs=("backend=dask|ray",),
    )
    html: bool = _grid(False, "Also write report.html", details="It needs the extra ``report``.")


GRID_SETTINGS = settings_of(GridConfig)


def read_config(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, with those of the grid in the table ``compare``."""
    return read_settings(path, SETTINGS, **{GRID: GRID_SETTINGS})


def base_config(dataset: str, grid: GridConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Return the settings that a grid's runs share, with one value for each that varies. Raise a
    ParameterError or UnknownNameError if a setting is invalid or decided by the grid.
    """
    varied = {
        of: max(getattr(grid, axis), key=bool) for axis, of in AXES.items() if getattr(grid, axis)
    }
    for name in NOT_OF_A_GRID:
        if name in settings:
            hint = "; use strategies, such as 'k-means?pick_from=farthest'"
            raise UnknownNameError("setting", name, SETTINGS.keys() - set(NOT_OF_A_GRID), hint)
    for axis, name in AXES.items():
        if name in varied and settings.get(name) is not None:
            raise ParameterError(f"give {name} or {axis}, not both")
    # start at random, since strategies are compared with random
    first = {"init_strategy": settings.get("init_strategy") or "random"}
    return RunConfig(**{**settings, **varied, **first, "dataset": dataset, "strategy": BASELINE})
