"""The folder of a comparison: everything ever requested in it, and its lock. No torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import tomli_w

from ..core.durable import (
    LEFT,
    check_signed,
    fsync_folder,
    locked,
    remove_leftovers,
    signed,
    write_atomic,
)
from ..core.errors import ParameterError, RunExistsError, RunFolderError
from ..core.text import counted
from ..runs import record
from ..runs.config import SETTINGS, RunConfig
from .config import AXES, GRID, GridConfig, base_config, read_config

GRID_FILE = record.GRID_FILE
CELLS = "cells"
ANALYSIS = "comparison.json"
LOCK = ".lock"
"""Unlike the other files it is never replaced, since a lock belongs to a file, not to its name."""

_log = logging.getLogger("skal")


def check_place(folder: Path, for_runs: bool = False) -> None:
    """Raise a RunExistsError if a folder holds anything but a comparison, or with `for_runs` only a
    report on other runs.
    """
    if not (folder.is_symlink() or folder.exists()):
        return
    if not folder.is_dir():
        raise RunExistsError(
            f"{str(folder)!r} is a file, not a comparison's folder; choose another name with --out"
        )
    ours = (folder / GRID_FILE).is_file() if for_runs else is_comparison(folder)
    if not ours and not all(_is_of_start(path) for path in folder.iterdir()):
        raise RunExistsError(
            f"{str(folder)!r} is not empty and not a comparison (it has no {GRID_FILE}); choose a "
            "new folder with --out"
        )


def choose_place(folders: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Return where to write a report: by default a comparison's own folder if it is the only one,
    else the first free of ``report``, ``report-2``, ...; see `check_place`.
    """
    if out is None:
        one = Path(folders[0])
        out = one if len(folders) == 1 and is_comparison(one) else record.free_name(Path("report"))
    check_place(Path(out))
    return Path(out)


def is_comparison(folder: Path) -> bool:
    """Return whether `compare` or `write_report` made a folder."""
    if (folder / GRID_FILE).is_file():
        return True
    try:
        found = json.loads((folder / ANALYSIS).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"baseline", "strategies", "groups"} <= found.keys()


def is_finished(folder: Path | None, cell: str) -> bool:
    return folder is not None and record.is_finished(folder / CELLS / cell)


def needs_run(folder: Path | None, cell: str) -> bool:
    """Return whether a run is unfinished, or was killed just before it wrote its summary."""
    if folder is None or not is_finished(folder, cell):
        return True
    return not (folder / CELLS / cell / record.SUMMARY).is_file()


@contextmanager
def opened(
    folder: Path | None, grid: GridConfig, base: RunConfig, threads: int
) -> Iterator[GridConfig]:
    """Create or open a comparison's folder, and lock it; yield everything ever requested in it,
    with the `threads` of the first call.
    """
    if folder is None:
        yield grid.replace(threads=threads)
        return
    (folder / CELLS).mkdir(parents=True, exist_ok=True)
    (folder / LOCK).touch()
    fsync_folder(folder.parent)
    with locked(folder / LOCK):
        remove_leftovers(folder, untouched=LEFT)  # another process may be writing a report
        kept = _kept_grid(folder, base)
        if kept.get("threads", threads) != threads:
            threads = kept["threads"]
            _log.warning(
                "the runs in %s use %s each, and so will the new ones",
                folder,
                counted(threads, "thread"),
            )
        lists = {
            name: [*kept.get(name, ()), *getattr(grid, name)] for name in ("strategies", *AXES)
        }
        seeds = max(kept.get("seeds", 0), grid.seeds)
        whole = grid.replace(seeds=seeds, threads=threads, **lists)
        of_runs, decided = base.as_dict(), {"strategy", *AXES.values()}
        settings = {name: value for name, value in of_runs.items() if name not in decided}
        asked = {k: v for k, v in whole.as_dict().items() if k not in ("html", "jobs")}
        write_atomic(folder / GRID_FILE, signed(tomli_w.dumps({**settings, GRID: asked})))
        yield whole


def _kept_grid(folder: Path, base: RunConfig) -> dict[str, Any]:
    """Return the grid requested before; raise a ParameterError if other settings differ."""
    path = folder / GRID_FILE
    if not path.is_file():
        return {}
    try:
        settings = read_grid(path)
    except RunFolderError as error:
        raise RunFolderError(
            f"{error}; restore a copy of it, or choose another folder with --out (skal report "
            f"still reads the runs in {str(folder / CELLS)!r})"
        ) from error
    kept: dict[str, Any] = settings.pop(GRID, {})
    settings.pop("strategy", None)
    dataset = settings.pop("dataset", base.dataset)
    axes = GridConfig(**{axis: kept.get(axis, ()) for axis in AXES})
    before = base_config(dataset, axes, settings)
    for name in SETTINGS.keys() - set(AXES.values()):
        was, wanted = getattr(before, name), getattr(base, name)
        if was != wanted:
            raise ParameterError(
                f"{name} is {was!r} in the comparison in {str(folder)!r} and {wanted!r} now; set "
                "it back, or choose another folder with --out"
            )
    return kept


def read_grid(path: Path) -> dict[str, Any]:
    """Read a comparison's settings file; raise a RunFolderError if it is damaged."""
    check_signed(path)
    return read_config(path)


def _is_of_start(path: Path) -> bool:
    """Return whether a file may be left by a comparison or report that was killed at its start."""
    begun = (f".{name}.*.tmp" for name in (GRID_FILE, ANALYSIS))
    return path.name in (LOCK, CELLS) or any(fnmatch(path.name, name) for name in begun)
