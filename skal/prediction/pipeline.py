"""`score`: what a network says of every image of a folder, to Parquet, shard by shard."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..comparisons.grid import parse_strategy
from ..core.durable import fsync_folder, locked, naming, write_atomic
from ..core.errors import (
    FolderNotFoundError,
    MissingExtraError,
    ParameterError,
    RunExistsError,
    RunFolderError,
    SkalError,
)
from ..core.progress import hidden
from ..core.settings import settings_of
from ..core.workers import WorkerLostError, Workers, map_jobs, one_call
from ..datasets.base import Images, one_line
from ..datasets.decoding import DECODER_VERSION, Decoded, decode_many, to_channels
from ..datasets.index import list_images
from ..datasets.pixel_cache import file_state
from ..models.classifier import ImageClassifier
from ..models.persistence import class_names, load_classifier
from ..models.settings import TrainingSettings
from ..strategies.base import ScoreStrategy
from ..strategies.scores import ScoreRequest, Scores, enough, score_pool
from ..strategies.selection import Strategy, made_up_scores, resolve_strategy
from ..strategies.uncertainty import MEASURES

if TYPE_CHECKING:
    import pyarrow as pa

MEASURED = ("least-confidence", "margin", "entropy")
SHARD_SIZE = 10_000
FORMAT = 1
MANIFEST = "_skal.json"
"""Readers of Parquet folders pass over names that begin so."""
PIXELS_AT_ONCE, MOST_AT_ONCE = 2**26, 2**29
_SHARD = re.compile(r"\d{6}-[0-9a-f]{16}\.parquet")

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class ScoredFolder:
    """What came of a scoring.

    Parameters
    ----------
    out : Path
        The Parquet file, or the folder of them.
    n_images : int
        Its rows.
    n_unreadable : int
        Those of them that have an error and no scores.
    n_scored : int
        Those that were computed by this call, and not found.
    seconds : float
        That it took.
    """

    out: Path
    n_images: int
    n_unreadable: int
    n_scored: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class Job:
    """What is the same for all shards.

    Parameters
    ----------
    root, model, parts : Path
        The images, the run folder, and where the shards go.
    model_key : str
        Hash of the network's files.
    strategies : tuple of str
        Whose utilities are wanted.
    embeddings : bool
        Whether the embeddings are.
    device : str
        See `load_classifier`.
    threads : int
        Of torch, and to decode with.
    """

    root: Path
    model: Path
    parts: Path
    model_key: str
    strategies: tuple[str, ...]
    embeddings: bool
    device: str
    threads: int

    def manifest(self, shard_size: int) -> dict[str, Any]:
        """Return what all shards in a place must agree in."""
        return {
            "format": FORMAT,
            "images": str(self.root),
            "model": self.model_key,
            "strategies": list(self.strategies),
            "embeddings": self.embeddings,
            "shard_size": shard_size,
        }


@dataclass(frozen=True)
class Shard:
    """Some images, and the file that their scores are in."""

    name: str
    paths: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """What a worker sends back of a shard."""

    shard: str
    n_images: int = 0
    unreadable: Mapping[str, str] | None = None
    error: str | None = None


def score(
    folder: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    strategies: Sequence[str] = MEASURED,
    embeddings: bool = False,
    shard_size: int = SHARD_SIZE,
    jobs: int | None = None,
    threads: int | None = None,
    backend: str = "loky",
    scheduler: str | None = None,
    device: str = "auto",
) -> ScoredFolder:
    """Say of every image of a folder what a trained network thinks of it.

    Parameters
    ----------
    folder : str or Path
        Images, in whatever subfolders; what these say about labels plays no part.
    model : str or Path
        A run folder, or any with ``model.safetensors`` and ``model.json``.
    out : str or Path
        ``NAME.parquet`` for one file, any other name for a folder of shards.
    strategies : sequence of str, default=("least-confidence", "margin", "entropy")
        Whose utilities are wanted: these, or strategies that are a `ScoreStrategy` and look at
        each image by itself, such as ``bald`` or ``bald?n_samples=50``.
    embeddings : bool, default=False
        Whether the embeddings are kept.
    shard_size : int, default=10000
        Images of a shard, which a worker does at a time.
    jobs : int, optional
        Shards at a time: by default 1, on a cluster as many as it has room for.
    threads : int, optional
        Of each: by default the processors of this machine over `jobs`, on a cluster 1.
    backend : {"loky", "dask", "ray"}, default="loky"
        Processes on this machine, or a cluster, on whose machines `folder`, `model` and `out` must
        lie at the same place.
    scheduler : str, optional
        The cluster's address; without, one is started on this machine.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where each worker computes: one job on all GPUs of this machine, of several each on one;
        see `skal.core.workers.Workers`.

    Returns
    -------
    ScoredFolder

    Raises
    ------
    SkalError
        See `skal.core.errors`. Shards that are finished stay: the same call goes on.

    Notes
    -----
    A row is an image, in the order of their paths. Its columns are `path`, relative to the folder;
    `class`, the likeliest, and its `probability`; ``p_<class>`` for each class; a
    ``utility_<strategy>`` for each strategy, the higher the more worth a label; `embedding`, if
    asked for, a list of fixed length; and `error`, which is null but for files that cannot be
    read, where all the others are. What is no UTF-8 in a path is escaped by backslashes.

    A shard is done anew if its images or their files' sizes or times have changed. What a network
    says does not depend on the shards but for the last digits.
    """
    started = time.perf_counter()
    root, place = _existing(folder), Path(out).absolute()
    settings_of(TrainingSettings)["device"].check(device)
    if find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "parquet", "score")
    for name, value in (("shard_size", shard_size), ("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise ParameterError(f"{name}={value}; expected 1 or more")
    workers = Workers(backend, scheduler, jobs, threads, device)
    is_file = place.suffix == ".parquet"
    job = Job(
        root=root,
        model=Path(model).resolve(),
        parts=place.with_name(f".{place.name}.parts") if is_file else place,
        model_key=model_key(Path(model)),
        strategies=tuple(dict.fromkeys(strategies)),
        embeddings=embeddings,
        device=device,
        threads=workers.n_threads,
    )
    # finds what is wrong before anything is written; a cluster's devices are not here
    Scorer.load(
        job.model, job.model_key, device if workers.are_local else "cpu", job.strategies, embeddings
    )
    shards = [*_cut(job, list_images(root), shard_size)]
    n_images = sum(len(shard.paths) for shard in shards)
    if is_file and _is_finished(place, shards):
        _log.info("%s is up to date: nothing is left to do", place)
        return ScoredFolder(place, n_images, _n_unreadable(place), 0, 0.0)
    _prepare(job, shard_size)
    with locked(job.parts / MANIFEST):
        n_scored = _score_all(job, shards, workers)
        Scorer.load.cache_clear()  # this process may have better uses for the memory
        n_unreadable = sum(_n_unreadable(job.parts / shard.name) for shard in shards)
        if is_file:
            _merge(job.parts, shards, place)
            shutil.rmtree(job.parts)
    seconds = round(time.perf_counter() - started, 3)
    return ScoredFolder(place, n_images, n_unreadable, n_scored, seconds)


def _existing(folder: str | Path) -> Path:
    root = Path(folder).resolve()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FolderNotFoundError(f"{str(folder)!r} {what}; expected a folder of images")
    return root


def model_key(folder: Path) -> str:
    """Return a hash of a network's files.

    Raises
    ------
    RunFolderError
        If they are not there.
    """
    digest = hashlib.sha256()
    for name in ("model.safetensors", "model.json"):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise RunFolderError(
                f"no usable model in {str(folder)!r}: {name}: {error.strerror or error}"
            ) from error
    return digest.hexdigest()[:16]


def _cut(job: Job, paths: Sequence[str], shard_size: int) -> Iterator[Shard]:
    """Cut a folder into shards, named by a hash of all that their content depends on."""
    start = os.path.join(job.root, "")  # noqa: PTH118 (Path is slow in a million)
    same = json.dumps([DECODER_VERSION, job.manifest(shard_size)])
    with tqdm(
        total=len(paths), desc="looking for changes", unit="file", disable=hidden(), leave=False
    ) as bar:
        for number, first in enumerate(range(0, len(paths), shard_size)):
            digest, part = hashlib.sha256(same.encode()), paths[first : first + shard_size]
            for path in part:
                line = f"{file_state(start + path)} {path}\n"
                digest.update(line.encode(errors="surrogateescape"))
            bar.update(len(part))
            yield Shard(f"{number:06}-{digest.hexdigest()[:16]}.parquet", part)


def _prepare(job: Job, shard_size: int) -> None:
    """Make the folder of the shards, or see that it holds those of the same scoring."""
    path, manifest = job.parts / MANIFEST, job.manifest(shard_size)
    if not path.is_file():
        if job.parts.exists() and any(job.parts.iterdir()):
            raise RunExistsError(
                f"{str(job.parts)!r} exists and holds no scores; choose another name by --out"
            )
        job.parts.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(manifest, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    for name, value in manifest.items():
        if before.get(name) != value:
            raise RunExistsError(
                f"{str(job.parts)!r} holds other scores: {name} is {before.get(name)!r} there and "
                f"{value!r} now; choose another name by --out, or remove it"
            )


def _score_all(job: Job, shards: Sequence[Shard], workers: Workers) -> int:
    """Score the shards that are not there yet; return of how many images they are."""
    expected = {shard.name for shard in shards}
    there = {path.name for path in job.parts.iterdir() if _SHARD.fullmatch(path.name)}
    todo = [shard for shard in shards if shard.name not in there]
    if len(todo) < len(shards):
        _log.info("%d of %d shards are done already", len(shards) - len(todo), len(shards))
    total, n_told = sum(len(shard.paths) for shard in todo), 0
    with (
        tqdm(total=total, desc="scoring", unit="image", disable=hidden(), leave=False) as bar,
        closing(map_jobs(score_shard, job, todo, workers)) as outcomes,
    ):
        for _, outcome in outcomes:
            failure = outcome if isinstance(outcome, WorkerLostError) else outcome.error
            if failure is not None:
                raise SkalError(
                    f"{failure}; the shards that are done stay, and the same call goes on"
                )
            if not (job.parts / outcome.shard).is_file():
                raise SkalError(
                    f"a worker wrote {outcome.shard}, and it is not in {str(job.parts)!r} here; "
                    "--out must be on a disk that all machines share"
                )
            n_told = _tell_unreadable(outcome.unreadable or {}, n_told)
            bar.update(outcome.n_images)
    for name in there - expected:  # of images that were changed since
        (job.parts / name).unlink()
    return total


def _tell_unreadable(unreadable: Mapping[str, str], n_told: int, most: int = 10) -> int:
    for path, reason in unreadable.items():
        n_told += 1
        if n_told <= most:
            _log.warning("cannot read %s: %s", path, reason)
        elif n_told == most + 1:
            _log.warning("... and more unreadable files; the column error has them all")
    return n_told


# What a worker does.


def score_shard(job: Job, shard: Shard) -> Outcome:
    """Score some images into a file; what goes wrong is returned as one line.

    Parameters
    ----------
    job : Job
        What is the same for all.
    shard : Shard
        Which images.

    Returns
    -------
    Outcome
    """
    try:
        with one_call(job.threads):
            return _score_shard(job, shard)
    except Exception as error:  # also a foreign strategy's; not all errors travel well
        _log.debug("%s failed", shard.name, exc_info=True)
        kind = "" if isinstance(error, SkalError) else f"{type(error).__name__}: "
        return Outcome(shard.name, error=f"{kind}{one_line(error)}")


def _score_shard(job: Job, shard: Shard) -> Outcome:
    import pyarrow as pa
    import pyarrow.parquet as pq

    scorer = Scorer.load(job.model, job.model_key, job.device, job.strategies, job.embeddings)
    tables, unreadable = [], {}
    size = scorer.classifier.image_shape_[-1]
    decoded = decode_many(job.root, shard.paths, size, job.threads)
    with closing(decoded) as chunks:
        for chunk in _in_lots(chunks, enough(scorer.classifier)):
            tables.append(scorer.table(chunk))
            unreadable.update(chunk.unread)
    facts = {"classes": scorer.names, "n_unreadable": len(unreadable), "key": shard.name}
    table = pa.concat_tables(tables).replace_schema_metadata({"skal": json.dumps(facts)})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomic(job.parts / shard.name, buffer.getvalue().to_pybytes())
    return Outcome(shard.name, len(shard.paths), unreadable)


def _in_lots(chunks: Iterator[Decoded], least: int = 1) -> Iterator[Decoded]:
    """Join chunks to so many images at least, and so that a GPU is filled."""
    waiting: list[Decoded] = []
    for chunk in chunks:
        waiting.append(chunk)
        n_bytes = sum(part.pixels.nbytes for part in waiting)
        n_images = sum(len(part.pixels) for part in waiting)
        if n_bytes >= PIXELS_AT_ONCE and (n_images >= least or n_bytes >= MOST_AT_ONCE):
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(chunks: Sequence[Decoded]) -> Decoded:
    return Decoded(
        [path for chunk in chunks for path in chunk.paths],
        np.concatenate([chunk.pixels for chunk in chunks]),
        {path: reason for chunk in chunks for path, reason in chunk.unread.items()},
    )


@dataclass(frozen=True, eq=False)
class Scorer:
    """A network, and what is wanted of it.

    Parameters
    ----------
    classifier : ImageClassifier
        A fitted one.
    names : list of str
        Of its classes.
    utilities : dict of str to Utility
        By the name of the strategy.
    embeddings : bool
        Whether the embeddings are wanted.
    """

    classifier: ImageClassifier
    names: list[str]
    utilities: dict[str, Utility]
    embeddings: bool

    @staticmethod
    @lru_cache(maxsize=1)
    def load(
        model: Path, key: str, device: str, strategies: tuple[str, ...], embeddings: bool
    ) -> Scorer:
        """Load a network, once a process.

        Raises
        ------
        SkalError
            If it cannot be, is another than that of the key, or a strategy will not do.
        """
        utilities = {name: Utility.of(name) for name in strategies}
        if model_key(model) != key:
            raise RunFolderError(f"the network in {str(model)!r} is not that of this scoring")
        classifier = load_classifier(model, device)
        return Scorer(classifier, class_names(model), utilities, embeddings)

    def scores(self, pixels: Images) -> Scores:
        """Score images, as far as is needed."""
        reads = {name for utility in self.utilities.values() for name in utility.reads}
        n_samples = max((utility.n_samples for utility in self.utilities.values()), default=0)
        return score_pool(
            self.classifier,
            to_channels(pixels, self.classifier.image_shape_[0]),
            ScoreRequest(
                self.embeddings or "embeddings" in reads, n_samples, "gradient_length" in reads
            ),
            random_state=0,  # the same dropout samples for all shards
        )

    def table(self, chunk: Decoded) -> pa.Table:
        """Return rows of images, those that cannot be read included."""
        import pyarrow as pa

        scores = self.scores(chunk.pixels)
        best = scores.proba.argmax(axis=1)
        columns: dict[str, Any] = {
            "class": pa.array(np.array(self.names, dtype=object)[best], pa.string()),
            "probability": scores.proba.max(axis=1),
            **{f"p_{name}": scores.proba[:, k] for k, name in enumerate(self.names)},
            **{f"utility_{name}": u(scores) for name, u in self.utilities.items()},
        }
        if self.embeddings:
            assert scores.embeddings is not None
            flat, width = scores.embeddings.ravel(), scores.embeddings.shape[1]
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
        columns = {name: pa.array(values) for name, values in columns.items()}
        # where a file has no row among the scores, null is taken
        read = np.array([path not in chunk.unread for path in chunk.paths], dtype=bool)
        rows = pa.array(np.cumsum(read) - 1, mask=~read)
        errors = [chunk.unread.get(path) for path in chunk.paths]
        return pa.table(
            {
                "path": pa.array([_as_text(path) for path in chunk.paths], pa.string()),
                **{name: values.take(rows) for name, values in columns.items()},
                "error": pa.array(errors, pa.string()),
            }
        )


def _as_text(path: str) -> str:
    """Return a path as UTF-8 can be; what stands for other bytes is escaped."""
    return path.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, eq=False)
class Utility:
    """What a strategy says an image is worth.

    Parameters
    ----------
    name : str
        The strategy's.
    strategy : Strategy or None
        None for the measures of uncertainty.
    """

    name: str
    strategy: Strategy | None = None

    @classmethod
    def of(cls, name: str) -> Utility:
        """Find a strategy, and see that it looks at each image by itself.

        Raises
        ------
        UnknownNameError, ParameterError
            If there is none of that name, or it will not do.
        """
        if name in MEASURED:
            return cls(name)
        plain, params = parse_strategy(name)
        strategy = resolve_strategy(plain, params)
        if issubclass(strategy.cls, ScoreStrategy) and not strategy.n_members:
            utility = cls(name, strategy)
            if not strategy.needs_labeled and utility._goes_image_by_image():
                return utility
        raise ParameterError(
            f"{name} weighs images against each other, or trains networks; score takes "
            f"{', '.join(MEASURED)}, and strategies that score each image by itself, such as bald"
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Which scores it looks at."""
        return ("proba",) if self.strategy is None else self.strategy.reads or ()

    @property
    def n_samples(self) -> int:
        """Samples of Monte-Carlo dropout that it needs; 0 for none."""
        return 0 if self.strategy is None else self.strategy.n_samples

    def __call__(self, scores: Scores) -> NDArray[np.float64]:
        """Return the utilities of images."""
        if self.strategy is None:
            return MEASURES[self.name](scores.proba)
        if scores.mc_proba is not None:  # as many as the one that needs most
            scores = replace(scores, mc_proba=scores.mc_proba[: self.n_samples])
        utilities = self.strategy.cls(**self.strategy.params).score(scores)
        return np.asarray(utilities, np.float64)

    def _goes_image_by_image(self) -> bool:
        assert self.strategy is not None
        scores = made_up_scores(self.strategy)
        halves = np.array_split(np.arange(len(scores)), 2)
        apart = np.concatenate([self(scores.take(rows)) for rows in halves])
        return bool(np.allclose(self(scores), apart))


# One file of many.


def _file_key(shards: Sequence[Shard]) -> str:
    names = "".join(shard.name for shard in shards)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _is_finished(place: Path, shards: Sequence[Shard]) -> bool:
    """Tell whether a file has these scores; one that has others is not touched."""
    if not place.exists():
        return False
    if _facts(place).get("key") == _file_key(shards):
        return True
    raise RunExistsError(
        f"{str(place)!r} exists and holds something else; choose another name by --out"
    )


def _facts(path: Path) -> dict[str, Any]:
    """Return what skal wrote into the metadata of a file; nothing, if it did not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        facts = json.loads(metadata.get(b"skal", b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return facts if isinstance(facts, dict) else {}


def _n_unreadable(path: Path) -> int:
    return int(_facts(path).get("n_unreadable", 0))


def _merge(parts: Path, shards: Sequence[Shard], place: Path) -> None:
    """Write the rows of all shards into one file, a shard at a time in memory."""
    import pyarrow.parquet as pq

    facts = [_facts(parts / shard.name) for shard in shards]
    whole = {
        "classes": facts[0]["classes"],
        "n_unreadable": sum(fact["n_unreadable"] for fact in facts),
        "key": _file_key(shards),
    }
    schema = pq.read_schema(parts / shards[0].name).with_metadata({"skal": json.dumps(whole)})
    temporary = parts / "whole.tmp"
    with naming(place), pq.ParquetWriter(temporary, schema) as writer:
        for shard in shards:
            table = pq.read_table(parts / shard.name)
            writer.write_table(table.replace_schema_metadata(schema.metadata))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(place)
    fsync_folder(place.parent)
