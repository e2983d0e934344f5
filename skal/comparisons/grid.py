"""The runs that a comparison consists of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..core.registry import parse_spec
from ..datasets import ImageDataset
from ..datasets.loading import data_folder
from ..runs.config import RunConfig
from ..runs.preparation import name_of_folder
from ..runs.run import check_run
from ..runs.streaming import stream_strategy_name
from ..strategies.catalogue import stands_for
from .config import AXES, BASELINE, GridConfig
from .results import strategy_label

Load = Callable[[RunConfig], ImageDataset]


@dataclass(frozen=True)
class Cell:
    """One run of the grid, and the name of its folder."""

    name: str
    config: RunConfig


def complete_grid(grid: GridConfig, base: RunConfig) -> GridConfig:
    """Add the baseline, and the single value of each axis that does not vary."""
    of_pool = partial(stands_for, frozen=base.freeze)
    resolve = of_pool if base.stream == "off" else stream_strategy_name
    strategies = dict.fromkeys(_resolved(strategy, resolve) for strategy in grid.strategies)
    if BASELINE not in strategies:
        strategies = {BASELINE: None, **strategies}
    axes = {a: (getattr(base, of),) for a, of in AXES.items() if not getattr(grid, a)}
    return grid.replace(strategies=tuple(strategies), **axes)


def _resolved(strategy: str, resolve: Callable[[str], str]) -> str:
    """Replace `auto` with the strategy that it stands for."""
    name, question, params = strategy.partition("?")
    return strategy if ":" in name else f"{resolve(name)}{question}{params}"


def cells_of(grid: GridConfig, base: RunConfig) -> list[Cell]:
    """Return the runs of a complete grid, seed by seed."""
    cells = []
    axes = [getattr(grid, axis) for axis in AXES]
    for seed in range(base.seed, base.seed + grid.seeds):
        for strategy, *values in itertools.product(grid.strategies, *axes):
            name, params = parse_spec(strategy)
            varied = dict(zip(AXES.values(), values, strict=True))
            config = base.replace(strategy=name, strategy_params=params, seed=seed, **varied)
            cells.append(Cell(_cell_name(config), config))
    return cells


def found_anywhere(config: RunConfig) -> RunConfig:
    """Return settings with absolute paths, which workers find from any working folder."""
    data_dir = config.data_dir and str(data_folder(config.data_dir).resolve())
    return config.replace(weights=config.absolute_weights, data_dir=data_dir)


def _cell_name(config: RunConfig) -> str:
    """Return ``<strategy>-<model>[-noise<rate>][-labelnoise<rate>]-s<seed>``."""
    rates = {"noise": config.noise_rate, "labelnoise": config.label_noise}
    parts = [f"{kind}{rate:g}" for kind, rate in rates.items() if rate]
    names = [strategy_label(config), str(config.model), *parts, f"s{config.seed}"]
    return name_of_folder("-".join(names))


def check_cells(cells: Sequence[Cell], load: Load) -> None:
    """Check the runs of the first seed before any starts; those of other seeds are alike."""
    for cell in cells:
        if cell.config.seed == cells[0].config.seed:
            check_run(cell.config, load(cell.config))
