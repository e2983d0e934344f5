"""`predict`: what a trained network says of any number of images, in parts that are kept."""

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
from .checks import MEASURED, check_asked, check_network, check_places
from .exports import read_exported
from .predictor import Predictor, model_key
from .writers import FORMS, MANIFEST, check_parts

PART_SIZE = 10_000
FORMAT = 2
KEPT = "what is done is kept: run the same command again to resume"

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Predicted:
    """The result of a prediction. `out` is the file, or the folder of files; `n_unreadable` of its
    `n_images` rows are empty, for files that cannot be read; `n_computed` were not found finished.
    """

    out: Path
    n_images: int
    n_unreadable: int
    n_computed: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it with plain JSON values."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class PredictionTask:
    """What all parts share: `base` is where images' relative paths start, `folder` holds the parts,
    `model_key` is a hash of the network's files, `form` a name of `FORMS`; `threads` are for torch
    and decoding.
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
        """Return what all parts in a folder must agree in."""
        return {
            "format": FORMAT,
            "images": _few([str(self.base / path) for path in paths]),
            "model": self.model_key,
            "utilities": list(self.utilities),
            "embeddings": self.embeddings,
            "shard_size": part_size,
        }


class Part(NamedTuple):
    """Some images, and the name of the file that their rows are in."""

    name: str
    paths: Sequence[str]


class PartReport(NamedTuple):
    """What a worker sends back of a part."""

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
    """Write what a trained network says of any number of images, a row each.

    Parameters
    ----------
    run_dir : str or Path
        A run folder, one of `skal train`, any with ``model.safetensors`` and ``model.json``, or a
        file that `skal.prediction.exports.export_model` wrote.
    paths : sequence of str or Path
        Images, and folders of images in whatever subfolders; rows come in their order, of each
        file one.
    out : str or Path
        ``NAME.csv`` (replaced if it exists and has predictions) or ``NAME.parquet``; any other name
        is that of a folder of Parquet files. Parquet needs the extra ``parquet``.
    utilities : sequence of str, optional
        Strategies whose scores are written: ``least-confidence``, ``margin`` and ``entropy`` (the
        default for Parquet; none for CSV), or any `ScoreStrategy` that looks at each image by
        itself, such as ``bald?n_samples=50``.
    embeddings : bool, default=False
        Whether the embeddings are written.
    shard_size : int, default=10000
        Images that a worker does at a time.
    jobs, threads, backend, scheduler
        See `skal.core.workers.Workers`. A cluster needs all places on a disk that is shared.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where each worker computes; several share the GPUs of this machine.
    trust : bool, default=False
        See `skal.load_classifier`.

    Returns
    -------
    Predicted

    Raises
    ------
    SkalError
        See `skal.core.errors`. What is finished stays: the same call resumes, and does again what
        was changed or damaged meanwhile.

    Notes
    -----
    The columns are `path`; the most probable `class` and its `probability`; ``p_<class>``;
    ``utility_<strategy>``, higher for what is more worth a label; and `embedding`, in CSV a column
    for each number. Of files that cannot be read only the path is written, and in Parquet the
    reason in `error`. Parquet has backslash escapes for what is no UTF-8 in a path.

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
    check_asked(asked, shard_size)
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
    # finds what is wrong before anything is written; a cluster's devices are not here
    pages = task.predictor(None if workers.are_local else "cpu").how.pages
    manifest = task.manifest(places, shard_size)
    parts = [*_cut(task, listed(places, pages), shard_size, manifest)]
    n_images = sum(len(part.paths) for part in parts)
    if form.is_finished(out, [part.name for part in parts]):
        _log.info("%s is up to date: nothing is left to do", out)
        return Predicted(out, n_images, form.n_unreadable(out), 0, 0.0)
    _prepare(task.folder, manifest)
    with locked(task.folder / MANIFEST):
        remove_leftovers(task.folder)
        n_computed = _predict_all(task, parts, workers)
        n_unreadable = _finish(task, parts, out)
    Predictor.load.cache_clear()  # this process may have better uses for the memory
    seconds = round(time.perf_counter() - started, 3)
    return Predicted(out, n_images, n_unreadable, n_computed, seconds)


def _few(names: Sequence[str], most: int = 10) -> list[str]:
    """Return names, or their number and a hash if there are many."""
    if len(names) <= most:
        return list(names)
    return [f"{len(names)} paths", sha256("\0".join(names))[:16]]


def _cut(
    task: PredictionTask, paths: Sequence[str], size: int, manifest: Mapping[str, Any]
) -> Iterator[Part]:
    """Cut images into parts, named by a hash of all that their rows depend on."""
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
    """Make the folder of the parts; RunExistsError if it holds anything else."""
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
            f"{str(path)!r} is damaged: what is predicted there is not known; choose another name "
            f"by --out, or remove {str(folder)!r}"
        ) from error
    for name, value in manifest.items():
        if before.get(name) != value:
            raise RunExistsError(
                f"{str(folder)!r} holds other predictions: {name} is {before.get(name)!r} there, "
                f"by {MANIFEST}, and {value!r} now; choose another name by --out, or remove it"
            )


def _predict_all(task: PredictionTask, parts: Sequence[Part], workers: Workers) -> int:
    """Compute the missing parts, and return their number of images."""
    todo = [part for part in parts if not _is_done(task.folder / part.name)]
    if len(todo) < len(parts):
        n_done, of = len(parts) - len(todo), counted(len(parts), "part")
        _log.info("%d of %s %s done already", n_done, of, plural(n_done, "is", "are"))
    sizes, told = {part.name: len(part.paths) for part in todo}, Counter[str]()
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
                    f"a worker wrote {report.name}, and it is not in {str(task.folder)!r} here; "
                    "--out must be on a disk that all machines share"
                )
            _tell_unreadable(report.unreadable or {}, told)
            bar.update(sizes[report.name])
    expected = {part.name for part in parts}
    for path in task.folder.glob(f"*{FORMS[task.form].suffix}"):
        if path.name not in expected:  # of images that were changed since
            forget(path)
    return total


def _is_done(path: Path) -> bool:
    facts = find(path)
    if facts is None and path.exists():
        _log.warning("%s is damaged: it is made again", path)
    return facts is not None and not facts["failed"]


def _tell_unreadable(unreadable: Mapping[str, str], told: Counter[str], most: int = 10) -> None:
    for path, reason in unreadable.items():
        told["files"] += 1
        if told["files"] == most + 1:
            _log.warning("... and more unreadable files, whose reasons --log-level debug shows")
        level = logging.WARNING if told["files"] <= most else logging.DEBUG
        # a name may hold what a terminal takes for a command
        shown = path if path.isprintable() else repr(path)
        _log.log(level, "cannot read %s: %s", shown, reason)


def _finish(task: PredictionTask, parts: Sequence[Part], out: Path) -> int:
    """Merge the parts if requested, and return how many images are unreadable."""
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
        raise DataError(f"none of the {images} can be read ({facts[0]['reason']})")
    if form.is_one_file:
        form.merge(files, out, n_unreadable)
        remove_folder(task.folder, last=MANIFEST)
    return n_unreadable


def predict_part(task: PredictionTask, part: Part) -> PartReport:
    """Write the rows of some images; any exception is returned as one line."""
    try:
        with one_call(task.threads):
            return _predict_part(task, part)
    except Exception as error:  # also a foreign strategy's; not all errors travel well
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
