"""`compare`: paired runs of strategies and random, on this machine or a cluster."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from ..core.errors import ParameterError, SkalError
from ..core.progress import progress
from ..core.signatures import shows_settings
from ..core.text import counted, plural
from ..core.workers import WorkerLostError, Workers, check_scheduler, map_jobs
from ..datasets import ImageDataset
from ..runs.config import RunConfig
from ..runs.environment import changed_code, own_code
from ..runs.start import with_network
from ..runs.trackers import check_trackers
from .config import GRID_SETTINGS, NOT_OF_A_GRID, GridConfig, base_config
from .folder import CELLS, check_place, is_finished, needs_run, opened
from .grid import Cell, cells_of, check_cells, complete_grid, found_anywhere
from .report import check_extra, text_table, write_report
from .results import Result, read_result
from .verdicts import analyse
from .worker import CellRunner, Reply, forgetting_datasets, unpack

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Comparison:
    """The results of a comparison.

    Parameters
    ----------
    results : list of Result
        One result per run.
    analysis : dict
        The content of ``comparison.json``.
    folder : Path or None
        The comparison's folder; None if nothing was written.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> done = skal.compare(data, ["entropy"], seeds=1, n_rounds=1, steps=5, threads=1)
    >>> print(done.table().splitlines()[0])
    digits, small-cnn, 40 labels at the end
    """

    results: list[Result]
    analysis: dict[str, Any]
    folder: Path | None = None

    def __repr__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Return the figures and verdicts as text."""
        return text_table(self.analysis)


class RunsFailedError(SkalError):
    """Some runs of a comparison failed; `comparison` has the others, None if all failed."""

    def __init__(self, message: str, comparison: Comparison | None) -> None:
        super().__init__(message)
        self.comparison = comparison


@shows_settings(GridConfig, RunConfig, omit=("dataset", *NOT_OF_A_GRID))
@forgetting_datasets()
def compare(
    data: ImageDataset | str | Path,
    strategies: Sequence[str] = GridConfig().strategies,
    seeds: int = GridConfig().seeds,
    *,
    out: str | Path | None = None,
    trackers: Sequence[str] = (),
    **settings: Any,
) -> Comparison:
    """Run every strategy with every seed, and test which ones beat random, and by how much.

    Runs with the same seed share the test split, the initial set, and the randomness of the network
    and its training, so that strategies are compared in pairs.

    Parameters
    ----------
    data : ImageDataset, str or Path
        See `run`.
    strategies : sequence of str
        Names or import paths, with arguments as in ``"k-means?pick_from=farthest"``. `random` is
        added if it is missing.
    seeds : int, default=10
        Number of seeds, counted from the setting `seed` (0 by default).
    out : str or Path, optional
        The comparison's folder. An existing comparison is resumed: finished runs are kept, and
        strategies, seeds, models or rates may be added; all runs ever requested are analysed
        together. By default nothing is written.
    trackers : sequence of str, default=()
        Names of the trackers for each run, from ``skal list trackers``.
    **settings

    Returns
    -------
    Comparison

    Raises
    ------
    SkalError
        See `skal.core.errors`. Usage errors are raised before any run. If a run fails, the others
        are still finished and written, and are in the `comparison` of a `RunsFailedError`.

    Notes
    -----
    On a cluster, a run that is lost with its machine is restarted on another one; only this
    process writes to the folder.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> done = skal.compare(data, ["margin"], seeds=1, n_rounds=1, steps=5, threads=1)
    >>> len(done.results)  # random and margin, a seed each
    2
    """
    of_grid = {name: settings.pop(name) for name in GRID_SETTINGS if name in settings}
    grid = GridConfig(strategies=strategies, seeds=seeds, **of_grid)
    name = str(data) if isinstance(data, str | Path) else data.name
    base = base_config(name, grid, settings)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_place(folder, for_runs=True)
    workers = Workers(grid.backend, grid.scheduler, grid.jobs, grid.threads, base.device)
    check_scheduler(workers)
    if grid.html:
        check_extra()
    runner = CellRunner(data, _names(trackers), command=tuple(sys.argv))
    if base.model is None:
        size = runner.image_size(base)
        base = with_network(base, runner.load(base).image_size).replace(image_size=size)
    grid = complete_grid(grid, base)
    cells = cells_of(grid, found_anywhere(base))
    check_cells(cells, runner.load)
    check_trackers(trackers, None)
    with opened(folder, grid, base, workers.n_threads) as whole:
        workers = replace(workers, threads=whole.threads)
        replies = list(_run_all(cells, runner.sent_to(workers, folder), workers))
        return _conclude(cells_of(whole, base), cells, replies, folder, grid.html)


def _names(trackers: Sequence[str]) -> tuple[str, ...]:
    if isinstance(trackers, str) or not all(isinstance(name, str) for name in trackers):
        raise ParameterError(f"trackers: got {trackers!r}; expected a list of names")
    return tuple(trackers)


def _run_all(cells: Sequence[Cell], runner: CellRunner, workers: Workers) -> Iterator[Reply]:
    """Execute unfinished runs, and yield their replies as they arrive."""
    left = [cell for cell in cells if needs_run(runner.folder, cell.name)]
    if len(left) < len(cells):
        n_done, of = len(cells) - len(left), counted(len(cells), "run")
        _log.info("%d of %s %s already finished", n_done, of, plural(n_done, "is", "are"))
        _warn_of_changed_code(runner.folder, [cell for cell in cells if cell not in left])
    if not left:
        return
    with progress(total=len(left), desc="comparing", unit="run") as bar:
        for number, reply in map_jobs(CellRunner.run, runner, left, workers):
            if isinstance(reply, WorkerLostError):
                reply = Reply(left[number], error=str(reply))
            if runner.folder is not None:
                reply = unpack(reply, runner.folder)
            bar.update()
            if reply.result is None:
                _log.warning("%s failed: %s", reply.cell.name, reply.error)
            else:
                figures = {"name": reply.cell.name, **reply.result.summary}
                _log.info(
                    "%(name)s: accuracy %(accuracy).4f with %(n_labeled)d labels (%(seconds).0f s)",
                    figures,
                )
            yield reply


def _warn_of_changed_code(folder: Path | None, done: Sequence[Cell]) -> None:
    """Warn if finished runs were made with an older version of the user's own code."""
    made_by_other = Counter[str]()
    for cell in done:
        assert folder is not None
        now = own_code(cell.config)
        if now:  # else nothing to compare
            with suppress(SkalError):  # raised again when the result is read for the analysis
                before = read_result(folder / CELLS / cell.name).environment
                made_by_other.update(changed_code(before, now))
    for module, n in made_by_other.items():
        _log.warning(
            "the code of %s has changed since %d of these runs %s made; to run all of them with "
            "the new code, choose another folder with --out",
            module,
            n,
            plural(n, "was", "were"),
        )


def _conclude(
    every: Sequence[Cell],
    cells: Sequence[Cell],
    replies: Sequence[Reply],
    folder: Path | None,
    html: bool,
) -> Comparison:
    """Analyse all finished runs in grid order, then raise RunsFailedError if some failed. Runs of
    earlier calls are included, since trying strategies one by one would evade the correction.
    """
    found = {reply.cell.name: reply.result for reply in replies if reply.result is not None}
    for cell in every:
        if folder is not None and cell.name not in found and is_finished(folder, cell.name):
            found[cell.name] = read_result(folder / CELLS / cell.name)
    results = [found[cell.name] for cell in every if cell.name in found]
    failed = {reply.cell.name: reply for reply in replies if reply.result is None}
    done = None
    if results:
        names = tuple(failed)
        if folder:
            analysis = write_report(results, folder, html=html, failed=names)
        else:
            analysis = analyse(results, failed=names)
        done = Comparison(results, analysis, folder)
    if done is not None and not failed:
        return done
    first = next(failed[cell.name] for cell in cells if cell.name in failed)
    where = f"; the others are in {quote(str(done.folder))}" if done and done.folder else ""
    error = RunsFailedError(
        f"{len(failed)} of {counted(len(cells), 'run')} failed; the first ({first.cell.name}) "
        f"failed with: {first.error}{where}",
        done,
    )
    error.add_note(first.trace)
    raise error
