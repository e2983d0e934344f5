"""`run`: the loop. `ActiveLearner`: the same in steps, for scripts."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from .config import Count, RunConfig, resolve_count
from .datasets import ImageDataset, data_folder, load_dataset
from .datasets.base import Images, Labels
from .errors import DataError, ParameterError, RunFolderError, SkalError, UnknownNameError
from .files import locked, naming
from .learner import (
    ImageClassifier,
    default_lr,
    load_classifier,
    resolve_device,
    save_classifier,
)
from .metrics import area_under_curve, evaluate
from .models import MODELS, default_model
from .oracles import Oracle, TrueLabels
from .plots import learning_curve
from .pool import Pool
from .records import JOURNAL, Record, check_free, check_run_folder, free_name
from .scoring import Scores, score_pool
from .seeding import derive_seed
from .strategies.selection import Strategy, resolve_strategy, select
from .trackers import Tracker

_log = logging.getLogger("skal")


@dataclass(frozen=True, eq=False)
class Run:
    """What came out of a run.

    Parameters
    ----------
    config : RunConfig
        All its settings.
    summary : dict
        The content of ``summary.json``.
    rounds : list of dict
        The rows of ``rounds.csv``.
    queries : list of dict
        The rows of ``queries.csv``.
    classifier : ImageClassifier
        The network of the last round.
    folder : Path or None
        Where it was written to.
    """

    config: RunConfig
    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    queries: list[dict[str, Any]]
    classifier: ImageClassifier
    folder: Path | None

    def table(self) -> str:
        """Return the rounds as a small table of text."""
        columns = ("round", "labels", "accuracy", "balanced", "macro F1", "NLL", "ECE")
        lines = ["".join(f"{column:>10}" for column in columns)]
        for row in self.rounds:
            metrics = "".join(
                f"{row[name]:>10.4f}"
                for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")
            )
            lines.append(f"{row['round']:>10}{row['n_labeled']:>10}{metrics}")
        return "\n".join(lines)


def run(
    data: ImageDataset | str | Path,
    strategy: str | type | SingleAnnotatorPoolQueryStrategy = "random",
    *,
    strategy_params: Mapping[str, Any] | None = None,
    model: str | None = None,
    n_init: Count = 20,
    n_query: Count = 20,
    n_rounds: int = 5,
    init_strategy: str = "random",
    seed: int = 0,
    image_size: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    train_batch_size: int = 64,
    optimizer: str = "adamw",
    lr: float | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    data_dir: str | Path | None = None,
    oracle: Oracle | None = None,
    out: str | Path | bool | None = None,
    trackers: Sequence[Tracker] = (),
) -> Run:
    """Run active learning: train, score the pool, query, label, and again.

    Parameters
    ----------
    data : ImageDataset, str or Path
        Images with labels and a test set, or what `load_dataset` takes.
    strategy : str, class or instance, default="random"
        A name of ``skal list strategies``, an import path ``module:Class``, or a query strategy
        of scikit-activeml or one's own.
    strategy_params : mapping, optional
        Arguments of the strategy.
    model : str, optional
        A name of ``skal list models``; by default small-cnn below 64 px, else resnet18.
    n_init, n_query : int or str, default=20
        Images labelled at the start, and in each round; "10%" is a share of the pool.
    n_rounds : int, default=5
        Rounds after the initial one; the network is trained ``n_rounds + 1`` times.
    init_strategy : {"random"}, default="random"
        How the initial images are chosen; the same for every strategy with the same seed.
    seed : int, default=0
        Decides split, initial set, training and draws, each independently.
    image_size, data_dir
        See `load_dataset`; used if `data` is a name or a folder.
    steps, epochs, train_batch_size, optimizer, lr, pretrained, weights, device, precision
        See `ImageClassifier`.
    oracle : Oracle, optional
        Who labels; by default the labels of `data`, which nothing else in the run sees.
    out : str, Path or bool, optional
        The folder to write to, which must not exist; True for a name under ``runs/`` made of the
        settings; by default nothing is written.
    trackers : sequence of Tracker, default=()
        Who watches.

    Returns
    -------
    Run

    Raises
    ------
    SkalError
        See `skal.errors`; usage errors come before anything is trained or written.

    Notes
    -----
    A row of ``rounds.csv`` has the metrics of the network trained on `n_labeled` images, and what
    it took to get there: the seconds of its training, and those of scoring the pool and querying
    for the images that were new in this round.
    """
    # plain from the start, so that a run that is gone on with is given the very same
    params = {**(strategy_params or {}), **_plain(strategy_params or {})[0]}
    chosen = resolve_strategy(strategy, params)
    config = RunConfig(
        dataset=str(data) if isinstance(data, str | Path) else data.name,
        strategy=chosen.name,
        strategy_params=_plain(chosen.given)[0],
        model=model,
        n_init=n_init,
        n_query=n_query,
        n_rounds=n_rounds,
        init_strategy=init_strategy,
        seed=seed,
        image_size=image_size,
        steps=steps,
        epochs=epochs,
        train_batch_size=train_batch_size,
        optimizer=optimizer,
        lr=lr,
        pretrained=pretrained,
        weights=None if weights is None else str(weights),
        device=device,
        precision=precision,
        data_dir=None if data_dir is None else str(data_dir),
    )
    check_settings(config)
    if isinstance(out, str | Path):
        check_free(Path(out))
    if not isinstance(data, ImageDataset):
        data = load_dataset(data, image_size, data_dir, seed)
    check_usable(data)
    config = resolve_settings(config, data)
    folder = default_folder(config, data) if out is True else Path(out) if out else None
    oracle = TrueLabels(data.y) if oracle is None else oracle
    facts = {} if folder is None else _facts_to_keep(config, data, oracle, chosen)
    record = Record.create(folder, config, resolve_device(config.device), facts)
    with _alone(record.folder):
        return _loop(config, data, chosen, oracle, record, trackers)


def resume(
    folder: str | Path,
    *,
    data: ImageDataset | None = None,
    oracle: Oracle | None = None,
    trackers: Sequence[Tracker] = (),
) -> Run:
    """Go on with a run that was stopped, at its last whole round.

    Parameters
    ----------
    folder : str or Path
        The run folder. Nothing is done to one whose run is finished.
    data : ImageDataset, optional
        What was run on, if it was made of arrays and cannot be loaded by its name.
    oracle : Oracle, optional
        Who labels, if the run was started with one.
    trackers : sequence of Tracker, default=()
        Who watches.

    Returns
    -------
    Run
        With the same labels and figures as if it had never been stopped.

    Raises
    ------
    RunFolderError
        If there is no run, it is damaged, or another process is at it.
    DataError
        If the data are not those that the run was started on.
    ParameterError
        If the run had an oracle or a strategy that must be, or cannot be, given again.
    """
    folder = Path(folder)
    check_run_folder(folder)
    with _alone(folder):
        record, config = Record.open(folder)
        if record.finished:
            _log.info("the run in %s is finished: nothing is left to do", folder)
            summary, classifier = record.read_summary(), load_classifier(folder)
            return Run(config, summary, record.rounds, record.queries, classifier, folder)
        data = _load_again(config) if data is None else data
        check_usable(data)
        _check_resumable(record, config, data, oracle)
        record.rewrite_tables()
        chosen = resolve_strategy(config.strategy, config.strategy_params)
        oracle = TrueLabels(data.y) if oracle is None else oracle
        return _loop(config, data, chosen, oracle, record, trackers)


def _alone(folder: Path | None) -> AbstractContextManager[None]:
    """Keep another process from going on with the run at the same time."""
    return nullcontext() if folder is None else locked(folder / JOURNAL)


def _load_again(config: RunConfig) -> ImageDataset:
    try:
        return load_dataset(config.dataset, config.image_size, config.data_dir, config.seed)
    except UnknownNameError as error:
        raise DataError(
            f"the run was made on {config.dataset!r}, which cannot be loaded by its name; go on "
            "with it from Python: skal.resume(folder, data=...)"
        ) from error


def _loop(
    config: RunConfig,
    data: ImageDataset,
    strategy: Strategy,
    oracle: Oracle,
    record: Record,
    trackers: Sequence[Tracker],
) -> Run:
    """Run all rounds that `record` does not have yet."""
    started = time.perf_counter() - record.seconds
    pool = Pool(data.X, len(data.classes))
    for indices, labels in record.labels:
        pool.label(indices, labels)
    classifier: ImageClassifier | None = None
    with _log_file(record), _watching(trackers, config, record) as watch:
        for number in range(len(record.rounds), config.n_rounds + 1):
            seconds: dict[str, float] = {}
            if number == len(record.labels):
                if not len(pool.unlabeled):
                    _log.warning("the pool is empty: the run ends after round %d", number - 1)
                    break
                if classifier is None and number and strategy.needs_model:
                    classifier = _train(config, data, pool, number - 1)  # resumed: it is lost
                watch.on_phase(number, "querying")
                picks = _query(config, strategy, classifier, pool, number, seconds)
                _label(pool, picks, oracle, data, record, seconds)
            watch.on_phase(number, "training")
            with _timed(seconds, "fit_seconds"):
                classifier = _train(config, data, pool, number)
            watch.on_phase(number, "evaluating")
            row = {
                "round": number,
                "n_labeled": len(pool.labeled),
                **evaluate(data.y_test, _predict(classifier, data.X_test)),
                **_NO_TIME,
                **record.query_seconds,
                **seconds,
            }
            record.add_round(row, time.perf_counter() - started)
            watch.on_round(row)
        if classifier is None:
            classifier = _train(config, data, pool, len(record.rounds) - 1)
        return _finish(config, data, record, classifier, watch)


_NO_TIME = {"fit_seconds": 0.0, "score_seconds": 0.0, "query_seconds": 0.0}


def _query(
    config: RunConfig,
    strategy: Strategy,
    classifier: ImageClassifier | None,
    pool: Pool,
    number: int,
    seconds: dict[str, float],
) -> NDArray[np.int64]:
    """Choose the images that are new in a round."""
    n_classes = pool.n_classes
    if number == 0:
        with _timed(seconds, "query_seconds"):
            n_init = resolve_count("n_init", config.n_init, len(pool))
            return initial_set(pool, n_init, config.seed)
    n = resolve_count("n_query", config.n_query, len(pool))
    seed = derive_seed(config.seed, "strategy", number)
    scores: Scores | None = None
    if strategy.needs_model and n < len(pool.unlabeled):
        assert classifier is not None
        with _timed(seconds, "score_seconds"):
            scores = score_pool(
                classifier,
                pool.X,
                embeddings=strategy.needs_embeddings,
                n_samples=strategy.n_samples,
                random_state=seed,
            )
    with _timed(seconds, "query_seconds"):
        return select(strategy, pool.y, n, scores=scores, n_classes=n_classes, seed=seed)


def initial_set(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """Draw the images that are labelled before any network is trained.

    Parameters
    ----------
    pool : Pool
        Where from.
    n : int
        How many; all that there are, with a notice, when that is less.
    seed : int
        The run's seed; the strategy plays no part.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    strategy = resolve_strategy("random")
    seed = derive_seed(seed, "init")
    return select(strategy, pool.y, n, n_classes=pool.n_classes, seed=seed)


def _label(
    pool: Pool,
    picks: NDArray[np.int64],
    oracle: Oracle,
    data: ImageDataset,
    record: Record,
    seconds: Mapping[str, float],
) -> None:
    """Ask the oracle, and keep its answers before anything else happens."""
    labels = np.atleast_1d(oracle.label(picks))
    pool.label(picks, labels)
    paths = [data.paths[index] for index in picks] if data.paths else [""] * len(picks)
    names = [data.classes[label] for label in labels]
    record.add_labels(picks.tolist(), labels.tolist(), paths, names, seconds)


def _train(config: RunConfig, data: ImageDataset, pool: Pool, number: int) -> ImageClassifier:
    """Train a new network on what is labelled; its seed is that of the round."""
    classifier = ImageClassifier(
        str(config.model),
        classes=np.arange(len(data.classes)),
        steps=config.steps,
        epochs=config.epochs,
        train_batch_size=config.train_batch_size,
        optimizer=config.optimizer,
        lr=config.lr,
        augmentation=data.augmentation,
        pretrained=config.pretrained,
        weights=config.weights,
        device=config.device,
        precision=config.precision,
        random_state=derive_seed(config.seed, "training", number),
    )
    return classifier.fit(pool.X, pool.y)


def _predict(classifier: ImageClassifier, X: Images) -> NDArray[np.float32]:
    proba: NDArray[np.float32] = score_pool(classifier, X, embeddings=False).proba
    if not np.isfinite(proba).all():
        raise SkalError(
            "the network answers with no numbers (NaN): its training diverged; a lower learning "
            "rate (lr) may help"
        )
    return proba


def _finish(
    config: RunConfig,
    data: ImageDataset,
    record: Record,
    classifier: ImageClassifier,
    watch: Tracker,
) -> Run:
    """Write what is made of the whole run; last the summary, which says that it is done."""
    last = record.rounds[-1]
    summary = {
        "dataset": data.name,
        "strategy": config.strategy,
        "model": config.model,
        "seed": config.seed,
        "n_labeled": last["n_labeled"],
        "accuracy": last["accuracy"],
        "aulc": area_under_curve(record.rounds),
        "seconds": round(record.seconds, 3),
        "n_skipped_images": len(data.skipped),
    }
    result = Run(config, summary, record.rounds, record.queries, classifier, record.folder)
    if record.folder is not None:
        title = f"{data.name}: {config.strategy}, {config.model}, seed {config.seed}"
        for form, picture in learning_curve(record.rounds, title).items():
            record.write(f"learning_curve.{form}", picture)
        facts = {"class_names": data.classes, "dataset": data.name}
        save_classifier(classifier, record.folder, **facts)
        _log.info("\n%s", result.table(), extra={"result": True})
        record.write_summary(summary)
    watch.on_end(summary)
    return result


class ActiveLearner:
    """Active learning in steps: `query`, label as you like, `teach`.

    Parameters
    ----------
    data : ImageDataset
        The pool is its `X`, or `X_unlabeled` if `X` is empty; labels that it has are not used.
    classifier : ImageClassifier
        Trained at every `teach`.
    strategy : str, class or instance, default="random"
        As for `run`.
    strategy_params : mapping, optional
        Arguments of the strategy.
    seed : int, default=0
        Decides the draws of the strategy.
    """

    def __init__(
        self,
        data: ImageDataset,
        classifier: ImageClassifier,
        strategy: str | type | SingleAnnotatorPoolQueryStrategy = "random",
        *,
        strategy_params: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.data = data
        self.classifier = classifier
        self.seed = seed
        self.pool = Pool(data.X if len(data.X) else data.X_unlabeled, len(data.classes))
        self._strategy = resolve_strategy(strategy, strategy_params)
        self._round = 0

    @property
    def y(self) -> Labels:
        """Labels taught so far, -1 where there is none; read-only."""
        return self.pool.y

    def query(self, n: int = 1) -> NDArray[np.int64]:
        """Return the indices of the images to label next.

        Parameters
        ----------
        n : int, default=1
            How many. Before the first `teach` they are drawn at random.

        Returns
        -------
        ndarray of int64, shape (n,)
            Of the pool; the same when asked again before the next `teach`.
        """
        n = resolve_count("n", n, len(self.pool))
        if self._round == 0:
            return initial_set(self.pool, n, self.seed)
        scores = None
        seed = derive_seed(self.seed, "strategy", self._round)
        if self._strategy.needs_model:
            scores = score_pool(
                self.classifier,
                self.pool.X,
                embeddings=self._strategy.needs_embeddings,
                n_samples=self._strategy.n_samples,
                random_state=seed,
            )
        return select(
            self._strategy, self.y, n, scores=scores, n_classes=self.pool.n_classes, seed=seed
        )

    def teach(self, indices: ArrayLike, labels: ArrayLike) -> ActiveLearner:
        """Add labels and train anew.

        Parameters
        ----------
        indices : array-like of int, shape (b,)
            Images of the pool, not labelled before.
        labels : array-like of int or str, shape (b,)
            Class ids, or names of classes. Without any, nothing happens.

        Returns
        -------
        self : ActiveLearner

        Raises
        ------
        DataError, UnknownNameError
            If an index or a label is not valid; nothing is changed then.
        """
        if not np.size(indices) and not np.size(labels):
            return self
        self.pool.label(indices, self._class_ids(labels))
        self.classifier.fit(self.pool.X, self.pool.y)
        self._round += 1
        return self

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on the test set, by the names of ``rounds.csv``.

        Raises
        ------
        DataError
            If the dataset has no test images.
        NotFittedError
            If nothing was taught yet.
        """
        if not len(self.data.X_test):
            raise DataError(f"{self.data.name} has no test image to evaluate on")
        return evaluate(self.data.y_test, _predict(self.classifier, self.data.X_test))

    def _class_ids(self, labels: ArrayLike) -> Labels:
        given = np.atleast_1d(labels)
        if given.dtype.kind == "O":
            given = np.array(given.tolist())  # as pandas hands over both names and numbers
        if given.dtype.kind != "U":
            return given
        ids = {name: number for number, name in enumerate(self.data.classes)}
        for name in given:
            if name not in ids:
                raise UnknownNameError("class", str(name), ids)
        return np.array([ids[name] for name in given], dtype=np.int64)


def check_settings(config: RunConfig) -> None:
    """Check what can be checked before the data are loaded.

    Raises
    ------
    UsageError
        If a name or a value is not valid.
    """
    if config.model is not None:
        MODELS.entry(config.model)
    if config.pretrained and config.weights:
        raise ParameterError("give pretrained or weights, not both")
    if config.weights is not None and not Path(config.weights).is_file():
        raise ParameterError(f"weights: there is no file {config.weights!r}")
    resolve_device(config.device)


def check_usable(data: ImageDataset) -> None:
    """Check that a network can be trained and tested on the data.

    Raises
    ------
    DataError
        If there are fewer than two classes, no pool or no test set.
    """
    if len(data.classes) < 2:
        found = f"the class {data.classes[0]!r}" if data.classes else "no class"
        raise DataError(
            f"{data.name} has {found} alone; a classifier needs two or more, one folder each"
        )
    if not len(data.X):
        raise DataError(f"{data.name} has no labelled image to simulate labelling with")
    if not len(data.X_test):
        raise DataError(f"{data.name} has no test image; a class needs two images or more")


def resolve_settings(config: RunConfig, data: ImageDataset) -> RunConfig:
    """Fill in what the data decide, so that the configuration repeats the run anywhere."""
    model = config.model or default_model(data.image_size)
    return config.replace(
        dataset=config.dataset if data.root is None else _dataset_of(config, data),
        model=model,
        n_init=resolve_count("n_init", config.n_init, len(data.X)),
        n_query=resolve_count("n_query", config.n_query, len(data.X)),
        image_size=data.image_size,
        lr=config.lr or default_lr(model, config.optimizer),
        data_dir=str(data_folder(config.data_dir).resolve()),
        weights=None if config.weights is None else str(Path(config.weights).resolve()),
    )


def _dataset_of(config: RunConfig, data: ImageDataset) -> str:
    """Return the name of a known dataset, or the whole path of a folder."""
    from .datasets import DATASETS

    return config.dataset if config.dataset in DATASETS else str(data.root)


def default_folder(config: RunConfig, data: ImageDataset) -> Path:
    """Return ``runs/<dataset>-<strategy>-<model>-s<seed>``, with a number where that is taken."""
    name = f"{data.name}-{config.strategy}-{config.model}-s{config.seed}"
    return free_name(Path("runs") / name.replace(":", ".").replace("/", "."))


def _plain(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that a TOML file can hold, and the names of the others."""
    plain, others = {}, []
    for name, value in params.items():
        try:
            if value is not None:
                plain[name] = _plain_value(value)
        except TypeError:
            others.append(name)
    return plain, others


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, str | int | float):
        return value
    raise TypeError


def fingerprint(data: ImageDataset) -> dict[str, Any]:
    """Return what data must agree in for a run on them to be gone on with.

    Of the pixels only a sample counts, since a pool may be larger than memory. The labels of the
    pool are left to the oracle.
    """
    pixels = 0
    for images in (data.X, data.X_test):
        for index in np.unique(np.linspace(0, len(images) - 1, 64).astype(int)):
            pixels = zlib.crc32(images[index].tobytes(), pixels)
    return {
        "number of images": [len(data.X), len(data.X_test)],
        "image shape": list(data.X.shape[1:]),
        "classes": list(data.classes),
        "paths": zlib.crc32("\0".join(data.paths).encode(errors="surrogateescape")),
        "pixels": pixels,
        "test labels": zlib.crc32(data.y_test.astype("<i8").tobytes()),
    }


MAY_CHANGE = frozenset(("dataset", "data_dir", "device", "weights", "n_rounds"))
"""Settings that may be edited before a run is gone on with: data can move, rounds be added."""


def _facts_to_keep(
    config: RunConfig, data: ImageDataset, oracle: Oracle, strategy: Strategy
) -> dict[str, Any]:
    """Say what `_check_resumable` will compare."""
    not_kept = _plain(strategy.given)[1]
    if not_kept:
        _log.warning(
            "config.toml cannot hold the strategy's %s: it will not repeat the run, nor can the "
            "run be gone on with if it stops",
            ", ".join(not_kept),
        )
    return {
        "config": config.as_dict(),
        "data": fingerprint(data),
        "oracle": type(oracle).__name__,
        "params_not_kept": not_kept,
    }


def _check_resumable(
    record: Record, config: RunConfig, data: ImageDataset, oracle: Oracle | None
) -> None:
    """Check that going on ends as if the run had never been stopped."""
    facts = record.facts
    if not facts:
        raise RunFolderError(f"{record.folder}: the journal has no start; begin the run anew")
    kept, current = facts["config"], config.as_dict()
    for name in sorted((kept.keys() | current.keys()) - MAY_CHANGE):
        if kept.get(name) != current.get(name):
            raise ParameterError(
                f"{name} in config.toml was {kept.get(name)!r} when the run was started and is "
                f"{current.get(name)!r} now; set it back, or begin a new run"
            )
    now = fingerprint(data)
    changed = [name for name, value in facts["data"].items() if now[name] != value]
    if oracle is None and facts["oracle"] == TrueLabels.__name__:
        known = [(i, label) for batch in record.labels for i, label in zip(*batch, strict=True)]
        if not changed and any(data.y[index] != label for index, label in known):
            changed.append("labels")
    if changed:
        raise DataError(
            f"the data are not those that the run was started on: other {', '.join(changed)}"
        )
    if oracle is None and facts["oracle"] != TrueLabels.__name__:
        raise ParameterError(
            f"the run was labelled by {facts['oracle']}, not by the dataset; go on with it from "
            "Python: skal.resume(folder, oracle=...)"
        )
    if facts["params_not_kept"]:
        raise ParameterError(
            f"the run cannot be gone on with: the strategy's {', '.join(facts['params_not_kept'])} "
            "could not be kept in config.toml"
        )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 6)


class _LogFile(logging.FileHandler):
    """Raises, where logging's own would print a traceback and go on: say, of a full disk."""

    def emit(self, record: logging.LogRecord) -> None:
        with naming(Path(self.baseFilename)):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        raise


@contextmanager
def _log_file(record: Record) -> Iterator[None]:
    """Keep in ``log.txt`` what the run says."""
    if record.folder is None:
        yield
        return
    handler = _LogFile(record.folder / "log.txt", encoding="utf-8", errors="surrogateescape")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        _log.setLevel(level)
        _log.removeHandler(handler)
        handler.close()


class _Watchers(Tracker):
    """Passes every hook on, and says a line a round."""

    def __init__(self, trackers: Sequence[Tracker], config: RunConfig) -> None:
        self.trackers, self.n_rounds = trackers, config.n_rounds

    def on_phase(self, round_number: int, phase: str) -> None:
        for tracker in self.trackers:
            tracker.on_phase(round_number, phase)

    def on_round(self, row: Mapping[str, Any]) -> None:
        _log.info(
            "round %d/%d: %d labels, accuracy %.4f  (fit %.1f s, score %.1f s, query %.1f s)",
            row["round"],
            self.n_rounds,
            row["n_labeled"],
            row["accuracy"],
            *(row[name] for name in _NO_TIME),
        )
        for tracker in self.trackers:
            tracker.on_round(row)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.on_end(summary)


@contextmanager
def _watching(
    trackers: Sequence[Tracker], config: RunConfig, record: Record
) -> Iterator[_Watchers]:
    with ExitStack() as stack:
        for tracker in trackers:
            tracker.on_start(config, record.folder)
            stack.callback(tracker.on_close)
        yield _Watchers(trackers, config)
