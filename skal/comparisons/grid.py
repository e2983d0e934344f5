"""`compare`: strategies against random, in pairs; a grid of runs, here or on a cluster."""

from __future__ import annotations

import itertools
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import tomli_w
from tqdm import tqdm

from ..core.durable import fsync_folder, locked, write_atomic
from ..core.errors import ParameterError, RunExistsError, RunFolderError, SkalError
from ..core.progress import hidden
from ..core.registry import parse_spec
from ..core.signatures import shows_settings
from ..core.workers import WorkerLostError, Workers, map_jobs
from ..datasets import ImageDataset
from ..models import default_model
from ..runs.config import SETTINGS, RunConfig
from ..runs.preparation import name_of_folder
from ..runs.record import SUMMARY
from ..runs.run import check_run
from ..runs.streaming import stream_strategy_name
from ..runs.trackers import check_trackers
from ..strategies.catalogue import stands_for
from .cells import CELLS, Cell, Outcome, Work, forget_datasets, run_cell, unpack
from .config import (
    AXES,
    BASELINE,
    GRID,
    GRID_SETTINGS,
    NOT_OF_A_GRID,
    GridConfig,
    base_config,
    read_config,
)
from .report import check_extra, text_table, write_report
from .results import Result, read_result, strategy_label
from .verdicts import analyse

CONFIG = "compare.toml"
LOCK = ".lock"
"""Never replaced, as the others are: a lock is on a file and not on its name."""

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came out of a comparison.

    Parameters
    ----------
    results : list of Result
        One a run.
    analysis : dict
        The content of ``comparison.json``.
    folder : Path or None
        Where it was written to.
    """

    results: list[Result]
    analysis: dict[str, Any]
    folder: Path | None = None

    def table(self) -> str:
        """Return the figures and the verdicts as text."""
        return str(text_table(self.analysis))


class RunsFailedError(SkalError):
    """Some runs of a comparison failed; `comparison` has the others, None if there are none."""

    def __init__(self, message: str, comparison: Comparison | None) -> None:
        super().__init__(message)
        self.comparison = comparison


@shows_settings(GridConfig, RunConfig, omit=("dataset", *NOT_OF_A_GRID))
def compare(
    data: ImageDataset | str | Path,
    strategies: Sequence[str] = GridConfig().strategies,
    seeds: int = GridConfig().seeds,
    *,
    out: str | Path | None = None,
    trackers: Sequence[str] = (),
    **settings: Any,
) -> Comparison:
    """Run every strategy with every seed, and say what beats picking at random, and by how much.

    Runs of the same seed share the test split, the initial set, and the randomness of the network
    and its training, whatever their strategy: they are compared in pairs.

    Parameters
    ----------
    data : ImageDataset, str or Path
        See `run`.
    strategies : sequence of str
        Names or import paths; ``"k-means?pick_from=farthest"`` gives one arguments. `random` is
        added if it is missing.
    seeds : int, default=10
        How many, from `seed` (among the other settings, 0 by default) on.
    out : str or Path, optional
        The comparison's folder. One that exists is gone on with: its finished runs are kept, and
        it may be given more strategies, seeds, models or rates; all that was ever asked for is
        analysed together. By default nothing is written.
    trackers : sequence of str, default=()
        Who watches each run: names of `TRACKERS`.
    **settings

    Returns
    -------
    Comparison

    Raises
    ------
    SkalError
        See `skal.core.errors`: usage errors come before any run; if a run fails, the others are
        finished and written all the same, and are in the `comparison` of a `RunsFailedError`.

    Notes
    -----
    On a cluster a run that is lost with its machine is begun anew on another one; the folder is
    written by this process alone.
    """
    of_grid = {name: settings.pop(name) for name in GRID_SETTINGS if name in settings}
    grid = GridConfig(strategies=strategies, seeds=seeds, **of_grid)
    name = str(data) if isinstance(data, str | Path) else data.name
    base = base_config(name, grid, settings)
    folder = None if out is None else Path(out)
    _check_folder(folder)
    trackers = _names("trackers", trackers)
    workers = Workers(grid.backend, grid.scheduler, grid.jobs, grid.threads, base.device)
    if grid.html:
        check_extra()
    cells_folder = folder / CELLS if folder else None
    work = Work(data, uuid.uuid4().hex, cells_folder, workers.n_threads, trackers)
    grid = _complete(grid, base, work)
    cells = _check(grid, base, work)
    check_trackers(trackers, None)
    with ExitStack() as stack:
        stack.callback(forget_datasets)
        every = cells
        if folder is not None:
            whole, n_threads = stack.enter_context(_opened(folder, grid, base, workers.n_threads))
            workers = replace(workers, threads=n_threads)
            every = _cells(whole, base)
        work = replace(
            work,
            threads=workers.n_threads,
            cells=work.cells if workers.are_local else None,
            pack=folder.resolve().name if folder and not workers.are_local else None,
            command=tuple(sys.argv),
        )
        finished, todo = _split(cells, folder)
        if finished:
            _log.info("%d of %d runs are done already", len(finished), len(cells))
        outcomes = list(_run_all(todo, work, workers, folder))
        return _conclude(every, cells, outcomes, folder, grid.html)


def _names(what: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ParameterError(f"{what}: got {values!r}; expected a list of names")
    return tuple(values)


def _complete(grid: GridConfig, base: RunConfig, work: Work) -> GridConfig:
    """Add the baseline, and the one value of what does not vary."""
    resolve = stands_for if base.stream == "off" else stream_strategy_name
    strategies = dict.fromkeys(_resolved(strategy, resolve) for strategy in grid.strategies)
    if BASELINE not in strategies:
        strategies = {BASELINE: None, **strategies}
    axes = {}
    for axis, setting in AXES.items():
        if not getattr(grid, axis):
            value = getattr(base, setting)
            size = None if setting != "model" or value else work.load(base).image_size
            axes[axis] = (default_model(size) if size else value,)
    return grid.replace(strategies=tuple(strategies), **axes)


def _resolved(strategy: str, resolve: Callable[[str], str]) -> str:
    """Put in place of `auto` what it stands for."""
    name, question, params = strategy.partition("?")
    return strategy if ":" in name else f"{resolve(name)}{question}{params}"


def _check(grid: GridConfig, base: RunConfig, work: Work) -> list[Cell]:
    """Find what is wrong before anything is run; return the cells."""
    cells = _cells(grid, base)
    for cell in cells:
        if cell.config.seed == base.seed:
            check_run(cell.config, work.load(cell.config))
    return cells


def _cells(grid: GridConfig, base: RunConfig) -> list[Cell]:
    """Return the runs of a complete grid, those of a seed together."""
    cells = []
    for seed in range(base.seed, base.seed + grid.seeds):
        for strategy, *values in itertools.product(
            grid.strategies, *(getattr(grid, a) for a in AXES)
        ):
            name, params = parse_spec(strategy)
            varied = dict(zip(AXES.values(), values, strict=True))
            config = base.replace(strategy=name, strategy_params=params, seed=seed, **varied)
            cells.append(Cell(_cell_name(config), config))
    return cells


def _cell_name(config: RunConfig) -> str:
    """Return ``<strategy>-<model>[-noise<rate>][-labelnoise<rate>]-s<seed>``."""
    rates = {"noise": config.noise_rate, "labelnoise": config.label_noise}
    parts = [f"{kind}{rate:g}" for kind, rate in rates.items() if rate]
    names = [strategy_label(config), str(config.model), *parts, f"s{config.seed}"]
    return name_of_folder("-".join(names))


def _check_folder(folder: Path | None) -> None:
    """Make sure that a folder is a comparison's, or none yet."""
    if folder is None or not (folder.exists() or folder.is_symlink()):
        return
    if not folder.is_dir():
        raise RunExistsError(f"{str(folder)!r} is a file; choose another name by --out")
    if not (folder / CONFIG).is_file() and {path.name for path in folder.iterdir()} - {LOCK, CELLS}:
        raise RunFolderError(
            f"{str(folder)!r} exists and holds no comparison; choose another name by --out"
        )


@contextmanager
def _opened(
    folder: Path, grid: GridConfig, base: RunConfig, threads: int
) -> Iterator[tuple[GridConfig, int]]:
    """Make a comparison's folder, or go on with it, and hold it.

    Yields
    ------
    grid : GridConfig
        All that was ever asked for in this folder.
    threads : int
        Of each run: as many as the first had.
    """
    (folder / CELLS).mkdir(parents=True, exist_ok=True)
    (folder / LOCK).touch()
    fsync_folder(folder.parent)
    with locked(folder / LOCK):
        path = folder / CONFIG
        kept: dict[str, Any] = {}
        if path.is_file():
            before = read_config(path)
            kept = before.pop(GRID, {})
            before.pop("strategy", None)
            name = before.pop("dataset", base.dataset)
            grid_before = GridConfig(**{axis: kept.get(axis, ()) for axis in AXES})
            _check_same(folder, base, base_config(name, grid_before, before))
        if kept.get("threads", threads) != threads:
            threads = kept["threads"]
            _log.warning("its runs have %d threads each, and so have the new ones", threads)
        whole = grid.replace(
            seeds=max(kept.get("seeds", 0), grid.seeds),
            threads=threads,
            **{name: [*kept.get(name, ()), *getattr(grid, name)] for name in ("strategies", *AXES)},
        )
        settings = {
            k: v for k, v in base.as_dict().items() if k not in ("strategy", *AXES.values())
        }
        asked = {k: v for k, v in whole.as_dict().items() if k not in ("html", "jobs")}
        write_atomic(path, tomli_w.dumps({**settings, GRID: asked}))
        yield whole, threads


def _check_same(folder: Path, now: RunConfig, before: RunConfig) -> None:
    """Make sure that the runs to come are of the same kind as those that are there."""
    for name in SETTINGS.keys() - set(AXES.values()):
        was, wanted = getattr(before, name), getattr(now, name)
        if was != wanted:
            raise ParameterError(
                f"{name} is {was!r} in the comparison in {str(folder)!r} and {wanted!r} now; set "
                "it back, or choose another folder by --out"
            )


def _split(cells: Sequence[Cell], folder: Path | None) -> tuple[list[Cell], list[Cell]]:
    """Return the cells that are finished, and the others."""
    finished = [c for c in cells if folder and (folder / CELLS / c.name / SUMMARY).is_file()]
    return finished, [cell for cell in cells if cell not in finished]


def _run_all(
    cells: Sequence[Cell], work: Work, workers: Workers, folder: Path | None
) -> Iterator[Outcome]:
    """Run cells, and yield what comes of each, as it comes."""
    if not cells:
        return
    with tqdm(total=len(cells), unit="run", disable=hidden()) as bar:
        for number, outcome in map_jobs(run_cell, work, cells, workers):
            if isinstance(outcome, WorkerLostError):
                outcome = Outcome(cells[number], error=str(outcome))
            if outcome.archive is not None and folder is not None:
                outcome = Outcome(outcome.cell, read_result(unpack(outcome, folder / CELLS)))
            bar.update()
            _tell(outcome)
            yield outcome


def _tell(outcome: Outcome) -> None:
    name = outcome.cell.name
    if outcome.result is None:
        _log.warning("%s failed: %s", name, outcome.error)
        return
    summary = outcome.result.summary
    _log.info(
        "%s: accuracy %.4f with %d labels (%.0f s)",
        name,
        summary["accuracy"],
        summary["n_labeled"],
        summary["seconds"],
    )


def _conclude(
    every: Sequence[Cell],
    cells: Sequence[Cell],
    outcomes: Sequence[Outcome],
    folder: Path | None,
    html: bool,
) -> Comparison:
    """Analyse what is finished of every cell, in the order of the grid; then say what failed.

    That those of earlier calls are among them is what the correction for several strategies is
    worth: else it would be got round by trying one after the other.
    """
    found = {o.cell.name: o.result for o in outcomes if o.result is not None}
    for cell in _split(every, folder)[0]:
        if folder is not None and cell.name not in found:
            found[cell.name] = read_result(folder / CELLS / cell.name)
    results = [found[cell.name] for cell in every if cell.name in found]
    failed = {outcome.cell.name: outcome for outcome in outcomes if outcome.result is None}
    done = None
    if results:
        names = tuple(failed)
        if folder:
            analysis = write_report(results, folder, html=html, failed=names)
        else:
            analysis = analyse(results, failed=names)
        done = Comparison(results, analysis, folder)
    if failed:
        first = next(failed[cell.name] for cell in cells if cell.name in failed)
        where = f"; what finished is in {quote(str(folder))}" if folder and results else ""
        error = RunsFailedError(
            f"{len(failed)} of {len(cells)} runs failed, the first ({first.cell.name}) with: "
            f"{first.error}{where}",
            done,
        )
        error.add_note(first.trace)
        raise error
    assert done is not None
    return done
