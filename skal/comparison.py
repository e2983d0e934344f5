"""`compare`: strategies against random, in pairs; a grid of runs, here or on a cluster."""

from __future__ import annotations

import io
import itertools
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Any

import tomli_w
from joblib import delayed
from tqdm import tqdm

from .backends import Workers, alone, check_backend
from .config import (
    GRID,
    SETTINGS,
    GridConfig,
    RunConfig,
    Share,
    parse_params,
    read_config,
    resolve_share,
)
from .datasets import ImageDataset, load_dataset
from .datasets.base import one_line
from .errors import ParameterError, RunFolderError, SkalError, UnknownNameError
from .experiment import Run, check_run, resume, run
from .files import fsync_folder, locked, write_atomic
from .models import default_model
from .preflight import image_size_for, name_of_folder
from .records import JOURNAL, SUMMARY
from .report import check_extra, text_table, write_report
from .results import Result, read_result, strategy_label
from .statistics import analyse
from .strategies.catalogue import stands_for
from .streaming import stream_strategy_name
from .trackers import check_trackers

BASELINE = "random"
AXES = {"models": "model", "noise_rates": "noise_rate", "label_noises": "label_noise"}
"""What beside strategies and seeds may vary in a grid: the setting that each list is of."""
CONFIG = "compare.toml"
CELLS = "cells"

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


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    name: str
    config: RunConfig


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a worker sends back of a cell: a result, a packed run folder, or what went wrong."""

    cell: Cell
    result: Result | None = None
    archive: bytes | None = field(default=None, repr=False)
    error: str | None = None


def compare(
    data: ImageDataset | str | Path,
    strategies: Sequence[str] = GridConfig().strategies,
    seeds: int = GridConfig().seeds,
    *,
    models: Sequence[str] = (),
    noise_rates: Sequence[Share] = (),
    label_noises: Sequence[Share] = (),
    jobs: int | None = None,
    threads: int | None = None,
    backend: str = "loky",
    scheduler: str | None = None,
    html: bool = False,
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
    models, noise_rates, label_noises : sequence, optional
        Several of `model`, `noise_rate` or `label_noise`: the grid is run for each of them.
    jobs : int, optional
        Runs at a time: by default 1, on a cluster as many as it has room for.
    threads : int, optional
        Of each run: by default the processors of this machine over `jobs`, on a cluster 1. The
        figures depend on it in the last digits, so a comparison that goes on keeps its number.
    backend : {"loky", "dask", "ray"}, default="loky"
        Processes on this machine, or a cluster; data that are named must lie at the same place
        on all its machines, arrays are sent there.
    scheduler : str, optional
        The cluster's address; without, one is started on this machine.
    html : bool, default=False
        Whether ``report.html`` is written, which needs the extra ``report``.
    out : str or Path, optional
        The comparison's folder. One that exists is gone on with: its finished runs are kept, and
        it may be given more strategies, seeds, models or rates. By default nothing is written.
    trackers : sequence of str, default=()
        Who watches each run: names of `TRACKERS`.
    **settings
        Of each run: what `run` takes, such as `n_init`, `n_query`, `n_rounds` and `seed`.

    Returns
    -------
    Comparison

    Raises
    ------
    SkalError
        See `skal.errors`: usage errors come before any run; if a run fails, the others are
        finished and written all the same.

    Notes
    -----
    On a cluster a run that is lost with its machine is begun anew on another one; the folder is
    written by this process alone.
    """
    grid = GridConfig(
        strategies=strategies,
        seeds=seeds,
        models=models,
        noise_rates=noise_rates,
        label_noises=label_noises,
        jobs=jobs,
        threads=threads,
        backend=backend,
        scheduler=scheduler,
        html=html,
    )
    base = _base_config(data, settings)
    grid = _complete(grid, base)
    folder = None if out is None else Path(out)
    check_backend(backend)
    if html:
        check_extra()
    cells = _check(grid, base, data)
    check_trackers(trackers, folder / CELLS / cells[0].name if folder else None)
    with ExitStack() as stack:
        if folder is not None:
            grid = stack.enter_context(_opened(folder, grid, base))
        done, todo = _split(cells, folder)
        outcomes = [Outcome(cell, read_result(path)) for cell, path in done]
        if done:
            _log.info("%d of %d runs are done already", len(done), len(cells))
        outcomes += _run_all(todo, grid, data, folder, trackers)
        return _conclude(cells, outcomes, folder, html)


def _base_config(data: ImageDataset | str | Path, settings: Mapping[str, Any]) -> RunConfig:
    for name in settings:
        if name not in SETTINGS or name in ("dataset", "strategy", "strategy_params"):
            raise UnknownNameError("setting", name, SETTINGS)
    name = str(data) if isinstance(data, str | Path) else data.name
    return RunConfig(dataset=name, strategy=BASELINE, **settings)


def _complete(grid: GridConfig, base: RunConfig) -> GridConfig:
    """Add the baseline, and say how many runs and threads there are at a time."""
    resolve = stands_for if base.stream == "off" else stream_strategy_name
    strategies = dict.fromkeys(_resolved(strategy, resolve) for strategy in grid.strategies)
    if BASELINE not in strategies:
        strategies = {BASELINE: None, **strategies}
    here = grid.backend == "loky"
    jobs = grid.jobs or (1 if here else -1)
    threads = grid.threads or (max(1, (os.cpu_count() or 1) // jobs) if here else 1)
    return grid.replace(strategies=tuple(strategies), threads=threads)


def _resolved(strategy: str, resolve: Callable[[str], str]) -> str:
    """Put in place of `auto` what it stands for."""
    name, question, params = strategy.partition("?")
    return strategy if ":" in name else f"{resolve(name)}{question}{params}"


def parse_strategy(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of ``NAME?K=V&K=V``.

    Raises
    ------
    ParameterError
        If an argument has no ``=``.
    """
    name, _, rest = text.partition("?")
    return name, parse_params(filter(None, rest.split("&")))


def _check(grid: GridConfig, base: RunConfig, data: ImageDataset | str | Path) -> list[Cell]:
    """Find what is wrong before anything is run; return the cells, those of a seed together."""
    first = _load(data, base, base.seed)
    cells = []
    axes = {AXES[name]: getattr(grid, name) or (None,) for name in AXES}
    for seed in range(base.seed, base.seed + grid.seeds):
        for strategy, *values in itertools.product(grid.strategies, *axes.values()):
            name, params = parse_strategy(strategy)
            varied = {k: v for k, v in zip(axes, values, strict=True) if v is not None}
            config = base.replace(strategy=name, strategy_params=params, seed=seed, **varied)
            if config.model is None:
                config = config.replace(model=default_model(first.image_size))
            if seed == base.seed:
                check_run(config, _load(data, config, seed))
            cells.append(Cell(_cell_name(config), config))
    return cells


def _cell_name(config: RunConfig) -> str:
    """Return ``<strategy>-<model>[-noise<rate>][-labelnoise<rate>]-s<seed>``."""
    rates = {"noise": config.noise_rate, "labelnoise": config.label_noise}
    parts = [f"{k}{v:g}" for k, v in ((k, resolve_share(k, v)) for k, v in rates.items()) if v]
    names = [strategy_label(config), str(config.model), *parts, f"s{config.seed}"]
    return name_of_folder("-".join(names))


@contextmanager
def _opened(folder: Path, grid: GridConfig, base: RunConfig) -> Iterator[GridConfig]:
    """Make a comparison's folder, or go on with it; hold it, and yield the grid as it is there."""
    path = folder / CONFIG
    settings = base.as_dict()
    for name in ("strategy", *(AXES[axis] for axis in AXES if getattr(grid, axis))):
        settings.pop(name, None)
    if not path.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(
                f"{str(folder)!r} exists and holds no comparison; choose another name by --out"
            )
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)
        kept: dict[str, Any] = {}
    else:
        before = read_config(path)
        kept = before.pop(GRID, {})
        for name in sorted(before.keys() | settings.keys()):
            if before.get(name) != settings.get(name):
                raise ParameterError(
                    f"{name} is {before.get(name)!r} in the comparison in {str(folder)!r} and "
                    f"{settings.get(name)!r} now; set it back, or choose another folder by --out"
                )
        if kept.get("threads", grid.threads) != grid.threads:
            _log.warning("its runs have %d threads each, and so have the new ones", kept["threads"])
            grid = grid.replace(threads=kept["threads"])
    asked = {**kept, **{k: v for k, v in grid.as_dict().items() if k not in ("html", "jobs")}}
    for name in ("strategies", *AXES):
        values = [*dict.fromkeys([*kept.get(name, ()), *getattr(grid, name)])]
        asked.update({name: values} if values else {})
    asked["seeds"] = max(kept.get("seeds", 0), grid.seeds)
    write_atomic(path, tomli_w.dumps({**settings, GRID: asked}))
    with locked(path):
        yield grid


def _split(
    cells: Sequence[Cell], folder: Path | None
) -> tuple[list[tuple[Cell, Path]], list[Cell]]:
    """Return the cells that are finished, with their folders, and the others."""
    done, todo = [], []
    for cell in cells:
        path = folder / CELLS / cell.name if folder else None
        if path is not None and (path / SUMMARY).is_file():
            done.append((cell, path))
        else:
            todo.append(cell)
    return done, todo


def _run_all(
    cells: Sequence[Cell],
    grid: GridConfig,
    data: ImageDataset | str | Path,
    folder: Path | None,
    trackers: Sequence[str],
) -> Iterator[Outcome]:
    """Run cells, and yield what comes of each, as it comes."""
    here = grid.backend == "loky"
    cells_folder = folder / CELLS if folder else None
    calls = [
        delayed(run_cell)(
            cell,
            data,
            cells_folder if here else None,
            int(grid.threads or 1),
            tuple(trackers),
            pack=folder.resolve().name if folder is not None and not here else None,
        )
        for cell in cells
    ]
    if not calls:
        return
    workers = Workers(
        grid.backend, grid.jobs, int(grid.threads or 1), grid.scheduler, in_advance=True
    )
    with tqdm(total=len(calls), unit="run", disable=None) as bar:
        for outcome in workers.run(calls):
            if outcome.archive is not None and cells_folder is not None:
                outcome = Outcome(outcome.cell, read_result(_unpack(outcome, cells_folder)))
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
    cells: Sequence[Cell], outcomes: Sequence[Outcome], folder: Path | None, html: bool
) -> Comparison:
    """Analyse what is finished, in the order of the grid; then say what failed."""
    by_name = {outcome.cell.name: outcome for outcome in outcomes}
    ordered = [by_name[cell.name] for cell in cells]
    results = [outcome.result for outcome in ordered if outcome.result is not None]
    failed = [outcome for outcome in ordered if outcome.result is None]
    if results:
        analysis = write_report(results, folder, html=html) if folder else analyse(results)
    if failed:
        first = failed[0]
        where = f"; what finished is in {quote(str(folder))}" if folder and results else ""
        raise SkalError(
            f"{len(failed)} of {len(cells)} runs failed, the first ({first.cell.name}) with: "
            f"{first.error}{where}"
        )
    return Comparison(results, analysis, folder)


# What a worker does.


def run_cell(
    cell: Cell,
    data: ImageDataset | str | Path,
    cells: Path | None,
    threads: int,
    trackers: Sequence[str] = (),
    *,
    pack: str | None = None,
) -> Outcome:
    """Run a cell, or go on with it; whatever goes wrong is returned, since others go on.

    Parameters
    ----------
    cell : Cell
        Which.
    data : ImageDataset, str or Path
        See `compare`.
    cells : Path or None
        Where its run folder is; None if nothing is written there.
    threads : int
        Of torch.
    trackers : sequence of str
        Names.
    pack : str, optional
        The comparison's name, if the run folder is sent back, packed, and not kept here.
    """
    with alone(threads), _quiet(), ExitStack() as stack:
        try:
            if pack:
                # the path has the comparison's name, by which trackers group runs
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                cells = scratch / pack / CELLS
            folder = None if cells is None else cells / cell.name
            result = _run_or_resume(cell, data, folder, trackers)
            if pack and folder is not None:
                return Outcome(cell, archive=_packed(folder))
            return Outcome(cell, result)
        except Exception as error:  # also a foreign strategy's
            _log.debug("%s failed", cell.name, exc_info=True)
            kind = "" if isinstance(error, SkalError) else f"{type(error).__name__}: "
            return Outcome(cell, error=f"{kind}{one_line(error)}")


def _run_or_resume(
    cell: Cell, data: ImageDataset | str | Path, folder: Path | None, trackers: Sequence[str]
) -> Result:
    config = cell.config
    images = _load(data, config, config.seed)
    if folder is not None and (folder / JOURNAL).is_file() and (folder / "config.toml").is_file():
        resume(folder, data=images, trackers=trackers)
        return read_result(folder)
    if folder is not None and folder.exists():
        shutil.rmtree(folder)  # killed while it was made
    settings = {"strategy_params": {}, **config.as_dict()}
    del settings["dataset"]
    done = run(images, **settings, out=folder, trackers=trackers)
    return _result_of(done) if folder is None else read_result(folder)


def _result_of(done: Run) -> Result:
    return Result(done.config, done.summary, done.rounds, done.queries)


def _load(data: ImageDataset | str | Path, config: RunConfig, seed: int) -> ImageDataset:
    if isinstance(data, ImageDataset):
        return data
    return _load_once(str(data), image_size_for(config, data), config.data_dir, seed)


_load_once = lru_cache(maxsize=2)(load_dataset)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what each run says to its own ``log.txt``."""
    handlers, propagate = _log.handlers[:], _log.propagate
    _log.handlers[:], _log.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        _log.handlers[:], _log.propagate = handlers, propagate


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def _unpack(outcome: Outcome, cells: Path) -> Path:
    """Write a run folder that was sent, as a whole."""
    assert outcome.archive is not None
    final = cells / outcome.cell.name
    temporary = cells / f".{outcome.cell.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(outcome.archive)) as archive:
        archive.extractall(temporary)
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)  # what an interrupted run left
    temporary.rename(final)
    fsync_folder(cells)
    return final
