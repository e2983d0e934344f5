"""`run` and `resume`: the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from .config import Count, RunConfig, resolve_count
from .datasets import ImageDataset, load_dataset
from .datasets.base import Images
from .errors import DataError, SkalError, UnknownNameError
from .files import locked
from .learner import ImageClassifier
from .metrics import area_under_curve, evaluate
from .oracles import Oracle, make_oracle
from .plots import learning_curve
from .pool import Pool
from .preflight import (
    check_network,
    check_settings,
    check_usable,
    default_folder,
    plain_params,
    resolve_settings,
)
from .records import (
    JOURNAL,
    SECONDS,
    SUMMARY,
    Record,
    check_free,
    check_run_folder,
    environment,
    log_file,
)
from .resuming import check_resumable, facts_to_keep
from .saving import load_classifier, save_classifier
from .scoring import Scores, score_pool
from .seeding import derive_seed
from .strategies.selection import Strategy, check_strategy_works, resolve_strategy, select
from .trackers import Tracker, make_trackers, watching

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
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None = None,
    out: str | Path | bool | None = None,
    trackers: Sequence[Tracker | str] = (),
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
    oracle : Oracle, callable or str, optional
        Who labels: an oracle, a function of indices, or a name of `ORACLES`; by default the
        labels of `data`, which nothing else in the run sees.
    out : str, Path or bool, optional
        The folder to write to, which must not exist; True for a name under ``runs/`` made of the
        settings; by default nothing is written.
    trackers : sequence of Tracker or str, default=()
        Who watches; names are those of `TRACKERS`.

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
    given = dict(strategy_params or {})
    chosen = resolve_strategy(strategy, {**given, **plain_params(given)[0]})
    config = RunConfig(
        dataset=str(data) if isinstance(data, str | Path) else data.name,
        strategy=chosen.name,
        strategy_params=plain_params(chosen.given)[0],
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
        data = load_dataset(data, image_size, data_dir, config.seed)
    return _start(config, data, chosen, oracle, out, trackers)


def _start(
    config: RunConfig,
    data: ImageDataset,
    strategy: Strategy,
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None,
    out: str | Path | bool | None,
    trackers: Sequence[Tracker | str],
) -> Run:
    """Find what is wrong before anything is written or trained; then run."""
    check_usable(data)
    config = resolve_settings(config, data)
    check_network(config, data)
    check_strategy_works(strategy, len(data.classes))
    watchers = make_trackers(trackers)
    labels = make_oracle(oracle, data, derive_seed(config.seed, "oracle"))
    folder = default_folder(config, data) if out is True else Path(out) if out else None
    facts = {} if folder is None else facts_to_keep(config, data, labels, strategy)
    record = Record.create(folder, config, environment(config), facts)
    with _alone(record.folder):
        return _loop(config, data, strategy, labels, record, watchers)


def resume(
    folder: str | Path,
    *,
    data: ImageDataset | None = None,
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None = None,
    trackers: Sequence[Tracker | str] = (),
) -> Run:
    """Go on with a run that was stopped, at its last whole round.

    Parameters
    ----------
    folder : str or Path
        The run folder. Nothing is done to one whose run is finished.
    data : ImageDataset, optional
        What was run on, if it was made of arrays and cannot be loaded by its name.
    oracle : Oracle, callable or str, optional
        Who labels, if the run was started with one.
    trackers : sequence of Tracker or str, default=()
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
    if (folder / SUMMARY).is_file():
        return _finished(folder)
    with _alone(folder):
        record, config = Record.open(folder)
        data = _load_again(config) if data is None else data
        check_usable(data)
        check_resumable(record, config, data, oracle is not None)
        record.rewrite_tables()
        chosen = resolve_strategy(config.strategy, config.strategy_params)
        labels = make_oracle(oracle, data, derive_seed(config.seed, "oracle"))
        return _loop(config, data, chosen, labels, record, make_trackers(trackers))


def _finished(folder: Path) -> Run:
    """Return a run that is done, from its folder alone."""
    record, config = Record.open(folder)
    _log.info("the run in %s is finished: nothing is left to do", folder)
    summary, classifier = record.read_summary(), load_classifier(folder)
    return Run(config, summary, record.rounds, record.queries, classifier, folder)


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
    with log_file(record.folder), watching(trackers, config, record.folder) as watch:
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
                **evaluate(data.y_test, predict_test(classifier, data.X_test)),
                **dict.fromkeys(SECONDS, 0.0),
                **record.query_seconds,
                **seconds,
            }
            record.add_round(row, time.perf_counter() - started)
            watch.on_round(row)
        if classifier is None:
            classifier = _train(config, data, pool, len(record.rounds) - 1)
        return _finish(config, data, record, classifier, watch)


def _query(
    config: RunConfig,
    strategy: Strategy,
    classifier: ImageClassifier | None,
    pool: Pool,
    number: int,
    seconds: dict[str, float],
) -> NDArray[np.int64]:
    """Choose the images that are new in a round."""
    if number == 0:
        with _timed(seconds, "query_seconds"):
            n_init = resolve_count("n_init", config.n_init, len(pool))
            return initial_set(pool, n_init, config.seed, config.init_strategy)
    n = resolve_count("n_query", config.n_query, len(pool))
    seed = derive_seed(config.seed, "strategy", number)
    with _timed(seconds, "score_seconds"):
        scores = score_for(strategy, classifier, pool, n, seed)
    with _timed(seconds, "query_seconds"):
        return select(strategy, pool.y, n, scores=scores, n_classes=pool.n_classes, seed=seed)


def score_for(
    strategy: Strategy, classifier: ImageClassifier | None, pool: Pool, n: int, seed: int
) -> Scores | None:
    """Score the pool as far as a strategy needs it to pick `n` images.

    Parameters
    ----------
    strategy : Strategy
        Who will pick.
    classifier : ImageClassifier or None
        A fitted one; None if the strategy needs none.
    pool : Pool
        All of it is scored.
    n : int
        How many images are wanted; when no more are left, there is nothing to choose.
    seed : int
        Seeds dropout masks.

    Returns
    -------
    Scores or None
        None if the strategy needs none.
    """
    if not strategy.needs_model or n >= len(pool.unlabeled):
        return None
    assert classifier is not None
    return score_pool(
        classifier,
        pool.X,
        embeddings=strategy.needs_embeddings,
        n_samples=strategy.n_samples,
        random_state=seed,
    )


def initial_set(pool: Pool, n: int, seed: int, init_strategy: str = "random") -> NDArray[np.int64]:
    """Draw the images that are labelled before any network is trained.

    Parameters
    ----------
    pool : Pool
        Where from.
    n : int
        How many; all that there are, with a notice, when that is less.
    seed : int
        The run's seed; the run's strategy plays no part.
    init_strategy : str, default="random"
        A strategy that needs no network.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    strategy = resolve_strategy(init_strategy)
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


def predict_test(classifier: ImageClassifier, X: Images) -> NDArray[np.float32]:
    """Return class probabilities of test images.

    Raises
    ------
    SkalError
        If they are not numbers.
    """
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


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 6)
