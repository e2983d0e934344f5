"""`predict`: predictions of a trained network on any number of images, in resumable parts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..core.durable import locked, remove_folder, remove_leftovers, sha256, write_atomic
from ..core.errors import (
    DataError,
    RunExistsError,
    RunFolderError,
    SkalError,
    told,
)
from ..core.kept import find, forget, put
from ..core.progress import progress
from ..core.text import counted, plural
from ..core.workers import WorkerLostError, Workers, check_scheduler, map_jobs, one_call
from ..datasets.decoding import DECODER_VERSION
from ..datasets.index import listed
from ..datasets.pixel_cache import file_state
from .checks import MEASURED, check_network, check_places, check_utilities
from .exports import read_exported
from .predictor import Predictor, model_key
from .writers import FORMS, MANIFEST, check_parts

PART_SIZE = 10_000
FORMAT = 3
KEPT = "finished shards are saved; repeat the command to resume"

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Predicted:
    """The result of a prediction. `out` is the file, or the folder of files. Of its `n_images` rows
    `n_unreadable` are empty, for unreadable files, and `n_computed` were computed by this call.
    """

    out: Path
    n_images: int
    n_unreadable: int
    n_computed: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class PredictionTask:
    """Settings shared by all parts: image paths are relative to `base`, `folder` holds the parts,
    `model_key` is a hash of the network's files, `form` a name in `FORMS`, and `threads` are for
    torch and decoding.
    """

    base: Path
    run_dir: Path
    folder: Path
    model_key: str
    utilities: tuple[str, ...]
    embeddings: bool
    form: str
    device: str
    threads: int

    def predictor(self, device: str | None = None) -> Predictor:
        return Predictor.load(
            self.run_dir, self.model_key, device or self.device, self.utilities, self.embeddings
        )

    def manifest(self, paths: Sequence[Path], part_size: int) -> dict[str, Any]:
        """Return the facts that all parts in a folder must share."""
        return {
            "format": FORMAT,
            "images": _abbreviated([str(self.base / path) for path in paths]),
            "model": self.model_key,
            "utilities": list(self.utilities),
            "embeddings": self.embeddings,
            "shard_size": part_size,
        }


class Part(NamedTuple):
    """Some images, and the name of the file for their rows."""

    name: str
    paths: Sequence[str]


class PartReport(NamedTuple):
    """A worker's reply about a part."""

    name: str
    unreadable: Mapping[str, str] | None = None
    error: str | None = None


def predict(
    run_dir: str | Path,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    utilities: Sequence[str] | None = None,
    embeddings: bool = False,
    shard_size: int = PART_SIZE,
    jobs: int | None = None,
    threads: int | None = None,
    backend: str = "loky",
    scheduler: str | None = None,
    device: str = "auto",
    trust: bool = False,
) -> Predicted:
    """Write the predictions of a trained network for any number of images, one row per image.

    Parameters
    ----------
    run_dir : str or Path
        A run folder, a folder of `skal train`, any folder with ``model.safetensors`` and
        ``model.json``, or a file written by `skal.prediction.exports.export_model`.
    paths : sequence of str or Path
        Images, and folders that are searched recursively. Rows keep this order, with one row for
        each file.
    out : str or Path
        ``NAME.csv`` (replaced if it exists and has predictions), ``NAME.parquet``, or any other
        name for a folder of Parquet files. Parquet needs the extra ``parquet``.
    utilities : sequence of str, optional
        Strategies whose scores are written: ``least-confidence``, ``margin`` and ``entropy`` (the
        default for Parquet; none for CSV), or any `ScoreStrategy` that scores each image on its
        own, such as ``bald?n_samples=50``.
    embeddings : bool, default=False
        Whether to write the embeddings.
    shard_size : int, default=10000
        Number of images that a worker processes at a time.
    jobs, threads, backend, scheduler
        See `skal.core.workers.Workers`. On a cluster all paths must be on a shared disk.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Device of each worker; several workers share the GPUs of this machine.
    trust : bool, default=False
        See `skal.load_classifier`.

    Returns
    -------
    Predicted

    Raises
    ------
    SkalError
        See `skal.core.errors`. Finished parts are kept: the same call resumes, and recomputes parts
        that have changed or were damaged.

    Notes
    -----
    The columns are `path`; the most probable `class` and its `probability`; ``p_<class>``;
    ``utility_<strategy>``, higher for images more worth labelling; and `embedding`, in CSV one
    column per feature. Unreadable files only have a path, and in Parquet the reason in `error`.
    Parquet escapes bytes in paths that are not UTF-8 with backslashes.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     run = skal.run(data, "random", n_rounds=0, steps=5, out=f"{scratch}/run")
    ...     Image.fromarray(data.X_test[0, 0]).save(f"{scratch}/image.png")
    ...     done = skal.predict(run.folder, [f"{scratch}/image.png"], f"{scratch}/out.csv")
    >>> done.n_images, done.n_unreadable
    (1, 0)
    """
    started = time.perf_counter()
    out, places = Path(out), [Path(path) for path in paths]
    form = check_places(out, places)
    out = out.absolute()
    workers = Workers(backend, scheduler, jobs, threads, device)
    check_scheduler(workers)
    asked = utilities if utilities is not None else MEASURED if form.measures else ()
    check_utilities(asked, shard_size)
    check_network(Path(run_dir), device, trust)
    if Path(run_dir).is_file():
        read_exported(Path(run_dir), trust)
    task = PredictionTask(
        base=Path.cwd(),
        run_dir=Path(run_dir).resolve(),
        folder=out.with_name(f".{out.name}.parts") if form.is_one_file else out,
        model_key=model_key(Path(run_dir)),
        utilities=tuple(dict.fromkeys(asked)),
        embeddings=embeddings,
        form=form.name,
        device=device,
        threads=workers.n_threads,
    )
    # raises errors before anything is written; this machine may lack the cluster's devices
    pages = task.predictor(None if workers.are_local else "cpu").how.pages
    manifest = task.manifest(places, shard_size)
    parts = [*_cut(task, listed(places, pages), shard_size, manifest)]
    n_images = sum(len(part.paths) for part in parts)
    if form.is_finished(out, [part.name for part in parts]):
        _log.info("%s is already up to date", out)
        return Predicted(out, n_images, form.n_unreadable(out), 0, 0.0)
    _prepare(task.folder, manifest)
    with locked(task.folder / MANIFEST):
        remove_leftovers(task.folder)
        n_computed = _predict_all(task, parts, workers)
        n_unreadable = _finish(task, parts, out)
    Predictor.load.cache_clear()  # free the network's memory
    seconds = round(time.perf_counter() - started, 3)
    return Predicted(out, n_images, n_unreadable, n_computed, seconds)


def _abbreviated(names: Sequence[str], most: int = 10) -> list[str]:
    """Return the names, or their number and a hash if there are many."""
    if len(names) <= most:
        return list(names)
    return [f"{len(names)} paths", sha256("\0".join(names))[:16]]


def _cut(
    task: PredictionTask, paths: Sequence[str], size: int, manifest: Mapping[str, Any]
) -> Iterator[Part]:
    """Split images into parts, each named by a hash of everything that its rows depend on."""
    start = os.path.join(task.base, "")  # noqa: PTH118 (Path is slow in a million)
    same = json.dumps([DECODER_VERSION, manifest])
    with progress(total=len(paths), desc="looking for changes", unit="file") as bar:
        for number, first in enumerate(range(0, len(paths), size)):
            digest, part = hashlib.sha256(same.encode()), paths[first : first + size]
            for path in part:
                line = f"{file_state(os.path.join(start, path))} {path}\n"  # noqa: PTH118
                digest.update(line.encode(errors="surrogateescape"))
            bar.update(len(part))
            suffix = FORMS[task.form].suffix
            yield Part(f"{number:06}-{digest.hexdigest()[:16]}{suffix}", part)


def _prepare(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Create the folder of the parts; raise a RunExistsError if it holds anything else."""
    path = folder / MANIFEST
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        check_parts(folder)
        write_atomic(path, json.dumps(manifest, indent=2) + "\n")
        return
    try:
        before = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged, so the predictions cannot be resumed; choose another name "
            f"with --out, or remove {str(folder)!r}"
        ) from error
    for name, value in manifest.items():
        if before.get(name) != value:
            raise RunExistsError(
                f"{str(folder)!r} holds other predictions: {name} is {before.get(name)!r} in its "
                f"{MANIFEST} and {value!r} now; choose another name with --out, or remove it"
            )


def _predict_all(task: PredictionTask, parts: Sequence[Part], workers: Workers) -> int:
    """Compute the missing parts, and return the number of their images."""
    todo = [part for part in parts if not _is_done(task.folder / part.name)]
    if len(todo) < len(parts):
        n_done, of = len(parts) - len(todo), counted(len(parts), "shard")
        _log.info("%d of %s %s already finished", n_done, of, plural(n_done, "is", "are"))
    sizes, counts = {part.name: len(part.paths) for part in todo}, Counter[str]()
    total = sum(sizes.values())
    with (
        progress(total=total, desc="predicting") as bar,
        closing(map_jobs(predict_part, task, todo, workers)) as answers,
    ):
        for _, report in answers:
            failure = report if isinstance(report, WorkerLostError) else report.error
            if failure is not None:
                raise SkalError(f"{failure}; {KEPT}")
            if not (task.folder / report.name).is_file():
                raise SkalError(
                    f"a worker wrote {report.name}, but it is not in {str(task.folder)!r} on this "
                    "machine; --out must be on a disk that all machines share"
                )
            _log_unreadable(report.unreadable or {}, counts)
            bar.update(sizes[report.name])
    expected = {part.name for part in parts}
    for path in task.folder.glob(f"*{FORMS[task.form].suffix}"):
        if path.name not in expected:  # outdated: some of its images have changed
            forget(path)
    return total


def _is_done(path: Path) -> bool:
    facts = find(path)
    if facts is None and path.exists():
        _log.warning("%s is damaged: predicting it again", path)
    return facts is not None and not facts["failed"]


def _log_unreadable(unreadable: Mapping[str, str], counts: Counter[str], most: int = 10) -> None:
    for path, reason in unreadable.items():
        counts["files"] += 1
        if counts["files"] == most + 1:
            _log.warning("... and more unreadable files; --log-level debug shows all of them")
        level = logging.WARNING if counts["files"] <= most else logging.DEBUG
        # a file name may hold terminal escape sequences
        shown = path if path.isprintable() else repr(path)
        _log.log(level, "cannot read %s: %s", shown, reason)


def _finish(task: PredictionTask, parts: Sequence[Part], out: Path) -> int:
    """Merge the parts if requested, and return the number of unreadable images."""
    form = FORMS[task.form]
    files, facts = [task.folder / part.name for part in parts], []
    for file in files:
        if (fact := find(file)) is None:
            raise SkalError(f"{file} is damaged; {KEPT}")
        facts.append(fact)
    n_unreadable: int = sum(fact["unreadable"] for fact in facts)
    n_images = sum(len(part.paths) for part in parts)
    if n_unreadable == n_images:
        images = counted(n_images, "image")
        raise DataError(f"cannot read any of the {images} ({facts[0]['reason']})")
    if form.is_one_file:
        form.merge(files, out, n_unreadable)
        remove_folder(task.folder, last=MANIFEST)
    return n_unreadable


def predict_part(task: PredictionTask, part: Part) -> PartReport:
    """Write the rows of a part; return any exception as one line."""
    try:
        with one_call(task.threads):
            return _predict_part(task, part)
    except Exception as error:  # strategies may raise anything; not all errors can be pickled
        _log.debug("%s failed", part.name, exc_info=True)
        return PartReport(part.name, error=told(error))


def _predict_part(task: PredictionTask, part: Part) -> PartReport:
    predictor, path = task.predictor(), task.folder / part.name
    rows = [*predictor.rows(task.base, part.paths, task.threads)]
    unreadable = {path: reason for some in rows for path, reason in some.unread.items()}
    facts = {
        "unreadable": sum(len(some.read) - int(some.read.sum()) for some in rows),
        "failed": sum(len(some.failed) for some in rows),
        "reason": next((f"{path}: {reason}" for path, reason in unreadable.items()), ""),
    }
    temporary = path.with_name(f".{path.name}.partial")
    FORMS[task.form].write(rows, temporary, predictor.names)
    put(temporary, path, facts)
    return PartReport(part.name, unreadable)
