"""One run of a comparison: what a worker does, wherever it is."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..core.durable import fsync_folder
from ..core.errors import SkalError
from ..core.workers import one_call
from ..datasets import ImageDataset, load_dataset
from ..datasets.base import one_line
from ..runs.config import RunConfig
from ..runs.finished import Run
from ..runs.preparation import image_size_for
from ..runs.record import JOURNAL
from ..runs.run import resume, run
from .results import Result, read_result

CELLS = "cells"

_log = logging.getLogger("skal")


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
    trace: str = field(default="", repr=False)


@dataclass(frozen=True, eq=False)
class Work:
    """What all cells of one comparison share.

    Parameters
    ----------
    data : ImageDataset, str or Path
        See `skal.compare`.
    call : str
        Names this call of `skal.compare`: a folder of images is read anew by the next.
    cells : Path or None
        Where the run folders are; None if nothing is written there.
    threads : int
        Of torch.
    trackers : sequence of str
        Names.
    pack : str, optional
        The comparison's name, if run folders are sent back, packed, and not kept here.
    command : sequence of str
        What was called, for the records.
    """

    data: ImageDataset | str | Path
    call: str
    cells: Path | None
    threads: int
    trackers: Sequence[str] = ()
    pack: str | None = None
    command: Sequence[str] = ()

    def load(self, config: RunConfig) -> ImageDataset:
        """Return the images of a run."""
        if isinstance(self.data, ImageDataset):
            return self.data
        size = image_size_for(config, self.data)
        return _load_once(self.call, str(self.data), size, config.data_dir, config.seed)


@lru_cache(maxsize=2)
def _load_once(
    call: str, name: str, image_size: int | None, data_dir: str | None, seed: int
) -> ImageDataset:
    return load_dataset(name, image_size, data_dir, seed)


forget_datasets = _load_once.cache_clear


def run_cell(work: Work, cell: Cell) -> Outcome:
    """Run a cell, or go on with it; whatever goes wrong is returned, since others go on."""
    with (
        one_call(work.threads),
        _quiet(),
        _called(work.command),
        _place_of(work) as cells,
    ):
        folder = None if cells is None else cells / cell.name
        try:
            result = _run_or_resume(work, cell, folder)
            if work.pack and folder is not None:
                return Outcome(cell, archive=_packed(folder))
            return Outcome(cell, result)
        except Exception as error:  # also a foreign strategy's
            kind = "" if isinstance(error, SkalError) else f"{type(error).__name__}: "
            trace = traceback.format_exc()
            _keep_trace(folder, trace)
            return Outcome(cell, error=f"{kind}{one_line(error)}", trace=trace)


@contextmanager
def _place_of(work: Work) -> Iterator[Path | None]:
    """Yield where run folders are written: for those that are sent back, somewhere for a while."""
    if not work.pack:
        yield work.cells
        return
    with tempfile.TemporaryDirectory() as scratch:
        # the path has the comparison's name, by which trackers group runs
        yield Path(scratch) / work.pack / CELLS


def _run_or_resume(work: Work, cell: Cell, folder: Path | None) -> Result:
    config = cell.config
    images = work.load(config)
    if folder is not None and (folder / JOURNAL).is_file() and (folder / "config.toml").is_file():
        resume(folder, data=images, trackers=work.trackers)
        return read_result(folder)
    if folder is not None and folder.exists():
        shutil.rmtree(folder)  # killed while it was made
    settings = {"strategy_params": {}, **config.as_dict()}
    del settings["dataset"]
    done = run(images, **settings, out=folder, trackers=work.trackers)
    return _result_of(done) if folder is None else read_result(folder)


def _result_of(done: Run) -> Result:
    return Result(done.config, done.summary, done.rounds, done.queries)


def _keep_trace(folder: Path | None, trace: str) -> None:
    """Put a traceback behind what the run said, for whoever wrote the strategy."""
    if folder is not None and folder.is_dir():
        with (folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(trace)


@contextmanager
def _called(command: Sequence[str]) -> Iterator[None]:
    """Let the records say what was called and not how this worker was started."""
    before, sys.argv = sys.argv, list(command) or sys.argv
    try:
        yield
    finally:
        sys.argv = before


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


def unpack(outcome: Outcome, cells: Path) -> Path:
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
