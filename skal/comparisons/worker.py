"""One run of a comparison, executed by a worker on any machine."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
import traceback
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ..core.durable import fsync_file, new_folder
from ..core.errors import told
from ..core.trust import foreign_names
from ..core.workers import Workers, one_call
from ..datasets import ImageDataset
from ..datasets.decoding import Decoding
from ..datasets.doubles import tell_doubles
from ..datasets.loading import data_folder, is_folder, load_as
from ..runs.config import RunConfig
from ..runs.record import Record, is_begun
from ..runs.run import resume, run
from ..runs.start import check_folder, decoding_for, input_size
from .folder import CELLS
from .grid import Cell
from .results import Result, read_result

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Reply:
    """A worker's reply about a cell: a result, a zipped run folder, or an error."""

    cell: Cell
    result: Result | None = None
    archive: bytes | None = field(default=None, repr=False)
    error: str | None = None
    trace: str = field(default="", repr=False)


@dataclass(frozen=True, eq=False)
class CellRunner:
    """Executes any run of a comparison; it is sent to all workers. `threads` are torch's. If `here`
    is false, workers cannot write to `folder` and send run folders back zipped. `call` identifies
    one call of `compare`, so that the next call reads images again. `data_dir` is the caller's data
    folder.
    """

    data: ImageDataset | str | Path
    trackers: Sequence[str] = ()
    threads: int = 1
    folder: Path | None = None
    here: bool = True
    command: Sequence[str] = ()
    call: str = field(default_factory=lambda: uuid.uuid4().hex)
    data_dir: Path | None = None

    def sent_to(self, workers: Workers, folder: Path | None) -> CellRunner:
        """Return the runner to send to workers; on a cluster these have other working folders."""
        sent = replace(self, folder=folder, threads=workers.n_threads, here=workers.are_local)
        if workers.are_local:
            return sent
        data = self.data
        if not isinstance(data, ImageDataset) and is_folder(data):
            data = Path(data).expanduser().resolve()
        # trackers on the workers group runs by the name of the folder
        folder = folder and folder.resolve()
        return replace(sent, data=data, folder=folder, data_dir=data_folder().resolve())

    def load(self, config: RunConfig) -> ImageDataset:
        if isinstance(self.data, ImageDataset):
            return self.data
        size = self.image_size(config)
        how = (str(self.data), size, config.data_dir, config.seed, decoding_for(config))
        return _load_once(self.call, how, not config.drop_duplicates)

    def image_size(self, config: RunConfig) -> int | None:
        """Return the size to load images at, None for their own."""
        if isinstance(self.data, ImageDataset):
            return config.image_size
        check_folder(config, self.data)
        return input_size(config, self.data)

    def placed(self, config: RunConfig) -> RunConfig:
        """Use the caller's data folder and its cached features, unless this worker cannot write to
        it, or the settings or the worker's environment name another.
        """
        other = config.data_dir or self.data_dir is None or os.environ.get("SKAL_DATA_DIR")
        if other or not os.access(str(self.data_dir), os.W_OK):
            return config
        return config.replace(data_dir=str(self.data_dir))

    def run(self, cell: Cell) -> Reply:
        """Execute or resume a run; return any exception, so that other runs continue."""
        cell = replace(cell, config=self.placed(cell.config))
        with one_call(self.threads), _isolated_log(self.command), self._run_folder(cell) as folder:
            try:
                result = self._run_or_resume(cell, folder)
                if folder is not None and not self.here:
                    archive = shutil.make_archive(str(folder), "zip", folder)
                    return Reply(cell, archive=Path(archive).read_bytes())
                return Reply(cell, result)
            except Exception as error:  # strategies from outside may raise anything
                trace = traceback.format_exc()
                if folder is not None and folder.is_dir():
                    with (folder / "log.txt").open("a", encoding="utf-8") as file:
                        file.write(trace)
                return Reply(cell, error=told(error), trace=trace)

    @contextmanager
    def _run_folder(self, cell: Cell) -> Iterator[Path | None]:
        """Yield a run's folder, or a temporary one that is sent back."""
        if self.folder is None or self.here:
            yield self.folder and self.folder / CELLS / cell.name
            return
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / self.folder.name / CELLS / cell.name

    def _run_or_resume(self, cell: Cell, folder: Path | None) -> Result:
        images = self.load(cell.config)
        if folder and is_begun(folder):
            # trust only code that this call names itself, not other code that the folder names
            trust = foreign_names(Record.read(folder)[1]) == foreign_names(cell.config)
            resume(folder, data=images, trackers=self.trackers, trust=trust)
            return read_result(folder)
        if folder and folder.exists():
            shutil.rmtree(folder)  # its process was killed while creating the folder
        settings = {"strategy_params": {}, **cell.config.as_dict()}
        del settings["dataset"]
        done = run(images, **settings, out=folder, trackers=self.trackers)
        if folder:
            return read_result(folder)
        return Result(done.config, done.summary, done.rounds, done.queries)


@lru_cache(maxsize=2)
def _load_once(
    call: str, how: tuple[str, int | None, str | None, int, Decoding], tells_doubles: bool
) -> ImageDataset:
    data = load_as(*how)
    if tells_doubles:
        tell_doubles(data)
    return data


@contextmanager
def forgetting_datasets() -> Iterator[None]:
    """Discard all images that runners loaded in this process at the end of the block."""
    try:
        yield
    finally:
        _load_once.cache_clear()


@contextmanager
def _isolated_log(command: Sequence[str]) -> Iterator[None]:
    """Restrict each run's log to its ``log.txt``, and record `command` instead of the command that
    started this worker.
    """
    before = _log.handlers[:], _log.propagate, sys.argv
    _log.handlers[:], _log.propagate = [logging.NullHandler()], False
    sys.argv = list(command) or sys.argv
    try:
        yield
    finally:
        _log.handlers[:], _log.propagate, sys.argv = before


def unpack(reply: Reply, folder: Path) -> Reply:
    """Write a run folder that was sent back atomically, and read its result."""
    if reply.archive is None:
        return reply
    final = folder / CELLS / reply.cell.name
    with zipfile.ZipFile(io.BytesIO(reply.archive)) as archive:
        shutil.rmtree(final, ignore_errors=True)  # left by an interrupted run
        with new_folder(final) as made:
            archive.extractall(made)
            for path in made.rglob("*"):
                if path.is_file():
                    fsync_file(path)
    return replace(reply, result=read_result(final), archive=None)
