"""`run` and `resume`: the loop."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from ..core.durable import locked
from ..core.errors import DataError, SkalError, UnknownNameError
from ..core.seeding import derive_seed
from ..core.settings import Count, RunConfig, Share, resolve_count
from ..datasets import ImageDataset
from ..datasets.base import Images
from ..datasets.oracles import Oracle
from ..datasets.pool import Pool, rows_apart
from ..models.backbone import Backbone
from ..models.calibration import calibrate as calibrate_network
from ..models.calibration import uncalibrated
from ..models.classifier import ImageClassifier
from ..models.features import features_of
from ..models.persistence import load_classifier, load_weights, save_classifier, weights_of
from ..models.self_supervision import Weights
from ..strategies.scores import score_pool
from ..strategies.selection import Strategy, check_strategy_works, resolve_strategy
from .checks import (
    check_network,
    check_settings,
    check_usable,
    default_folder,
    load_images,
    plain_params,
    resolve_settings,
    who_labels,
    with_noise,
)
from .metrics import area_under_curve, describe_errors, evaluate
from .plots import learning_curve
from .pretraining import weights_from_pool
from .querying import PoolQueries, Queries, timed
from .record import (
    EVALUATION,
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
from .stopping import StopMonitor
from .streaming import StreamQueries, stream_strategy_name
from .trackers import Tracker, Watchers, check_trackers, watching

CHECKPOINT = "checkpoint-{}.safetensors"
"""The last whole round's network, where training again might not make the same."""

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
    strategy: str | type | SingleAnnotatorPoolQueryStrategy = "auto",
    *,
    strategy_params: Mapping[str, Any] | None = None,
    model: str | None = None,
    n_init: Count = 20,
    n_query: Count = 20,
    n_rounds: int = 5,
    init_strategy: str = "random",
    explore: Share = "0%",
    max_candidates: int | None = None,
    calibrate: str = "none",
    stop: str = "notice",
    stream: str = "off",
    budget: Share = "10%",
    image_noise: str = "gaussian",
    noise_rate: Share = "0%",
    label_noise: Share = "0%",
    label_noise_kind: str = "uniform",
    n_valid: Count = 0,
    seed: int = 0,
    image_size: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    train_batch_size: int = 64,
    optimizer: str = "adamw",
    lr: float | None = None,
    warm_start: str = "off",
    label_smoothing: float = 0.0,
    average: str = "none",
    clip_norm: float | None = None,
    balanced: bool = False,
    mixup: float = 0.0,
    patience: int | None = None,
    pretrain: str = "none",
    pretrain_steps: int = 1000,
    pretrained: bool = False,
    weights: str | Path | None = None,
    freeze: bool = False,
    finetune: bool = False,
    head: str = "linear",
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
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
    strategy : str, class or instance, default="auto"
        A name of ``skal list strategies``, an import path ``module:Class``, or a query strategy
        of scikit-activeml or one's own; of a stream, a name of ``skal list stream-strategies`` or
        an import path.
    strategy_params : mapping, optional
        Arguments of the strategy.
    model : str, optional
        A name of ``skal list models``; by default small-cnn below 64 px, else resnet18.
    n_init, n_query : int or str, default=20
        Images labelled at the start, and in each round; "10%" is a share of the pool.
    n_rounds : int, default=5
        Rounds after the initial one; the network is trained ``n_rounds + 1`` times.
    init_strategy : {"random", "stratified", "k-means", "typiclust", "probcover"}
        How the initial images are chosen; the same for every strategy with the same seed. See
        `skal.strategies.first_sets.initial_set`.
    explore : float or str, default="0%"
        Share of each batch that is drawn at random, such as "10%" or 0.1.
    max_candidates : int, optional
        The strategy sees a fresh random subset of so many unlabelled images each round, and the
        others are not scored.
    calibrate : {"none", "temperature"}, default="none"
        Whether each network's confidence is scaled by what cross-validation on the labelled
        images says; see `skal.models.calibration.calibrate`. It holds for scoring and evaluation;
        ``rounds.csv`` then has `temperature`, and NLL and ECE without it.
    stop : {"notice", "end", "off"}, default="notice"
        What is done when the predictions have stabilised, see `skal.runs.stopping.StopMonitor`: say
        so, or end the run, or do not look. ``rounds.csv`` has the `agreement` of two rounds, and
        ``summary.json`` the `stop_round`.
    stream : {"off", "in-order", "shuffled"}, default="off"
        Whether the pool passes by once, in `n_rounds` chunks, and a stream strategy decides on
        each image at once.
    budget : float or str, default="10%"
        Share of a stream's images that may be labelled.
    image_noise : {"gaussian", "salt-and-pepper"}, default="gaussian"
        The noise that `noise_rate` adds to the training images, see
        `skal.datasets.noise.add_noise`; the test images stay clean.
    noise_rate : float or str, default="0%"
        The standard deviation of gaussian noise as a share of 255, or the share of pixels that
        become black or white.
    label_noise : float or str, default="0%"
        Share of the pool's images that are given a wrong label, see `NoisyLabels`; the test
        labels stay right.
    label_noise_kind : str, default="uniform"
        "uniform", "pairs" or "class=A:B": which wrong label is given.
    n_valid : int or str, default=0
        Images that are drawn at random, labelled, and set apart: nothing is trained on them, and
        no strategy sees them. They count as labels spent. ``rounds.csv`` then has
        `valid_accuracy` and `valid_nll`, by the labels that the oracle gave, and ``valid.csv``
        says which they are.
    seed : int, default=0
        Decides split, initial set, training, noise and draws, each independently.
    image_size, data_dir
        See `load_dataset`; used if `data` is a name or a folder.
    steps, epochs, train_batch_size, optimizer, lr, pretrained, weights, device, precision
        See `ImageClassifier`.
    label_smoothing, average, clip_norm, balanced, mixup, patience, compile
        See `ImageClassifier`.
    warm_start : {"off", "on", "shrink"}, default="off"
        Whether each round's network starts from the last one's, see `ImageClassifier`. Committees
        and the trainings of `calibrate` start anew. The folder of a run that is not finished then
        has the last network in ``checkpoint-<round>.safetensors``, as it has of any run on a GPU.
    pretrain : {"none", "simclr"}, default="none"
        Whether the backbone that each round's network starts from is trained before the first
        round, on the images of the pool and on those that nobody labelled, without labels; see
        `skal.models.self_supervision.pretrain`. Its weights are kept under `data_dir`, and its
        loss curve in ``pretrain.csv``, ``pretrain.png`` and ``pretrain.svg``.
    pretrain_steps : int, default=1000
        Optimiser steps of that, of 256 images each.
    freeze, finetune, head
        See `ImageClassifier`. With `freeze` the backbone is run over pool and test set once, by
        `skal.embed`, and its features, kept under `data_dir`, take the place of the pixels.
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
        See `skal.core.errors`; usage errors come before anything is trained or written.

    Notes
    -----
    A row of ``rounds.csv`` has the metrics of the network trained on `n_labeled` images, and what
    it took to get there: the seconds of its training, and those of scoring the pool and querying
    for the images that were new in this round.
    """
    # plain from the start, so that a run that is gone on with is given the very same
    given = dict(strategy_params or {})
    given.update(plain_params(given)[0])
    chosen = resolve_strategy(strategy, given) if stream == "off" else None
    given = dict(chosen.given) if chosen else given
    config = RunConfig(
        dataset=str(data) if isinstance(data, str | Path) else data.name,
        strategy=chosen.name if chosen else stream_strategy_name(strategy),
        strategy_params=plain_params(given)[0],
        model=model,
        n_init=n_init,
        n_query=n_query,
        n_rounds=n_rounds,
        init_strategy=init_strategy,
        explore=explore,
        max_candidates=max_candidates,
        calibrate=calibrate,
        stop=stop,
        stream=stream,
        budget=budget,
        image_noise=image_noise,
        noise_rate=noise_rate,
        label_noise=label_noise,
        label_noise_kind=label_noise_kind,
        n_valid=n_valid,
        seed=seed,
        image_size=image_size,
        steps=steps,
        epochs=epochs,
        train_batch_size=train_batch_size,
        optimizer=optimizer,
        lr=lr,
        warm_start=warm_start,
        label_smoothing=label_smoothing,
        average=average,
        clip_norm=clip_norm,
        balanced=balanced,
        mixup=mixup,
        patience=patience,
        pretrain=pretrain,
        pretrain_steps=pretrain_steps,
        pretrained=pretrained,
        weights=None if weights is None else str(weights),
        freeze=freeze,
        finetune=finetune,
        head=head,
        device=device,
        precision=precision,
        compile=compile,
        data_dir=None if data_dir is None else str(data_dir),
    )
    check_settings(config)
    if isinstance(out, str | Path):
        check_free(Path(out))
    if not isinstance(data, ImageDataset):
        data = load_images(config, data)
    return _start(config, data, chosen, given, oracle, out, trackers)


def _start(
    config: RunConfig,
    data: ImageDataset,
    strategy: Strategy | None,
    given: Mapping[str, Any],
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None,
    out: str | Path | bool | None,
    trackers: Sequence[Tracker | str],
) -> Run:
    """Find what is wrong before anything is written or trained; then run."""
    config, queries = _prepared(config, data, strategy, given)
    labels = who_labels(config, data, oracle)
    folder = default_folder(config, data) if out is True else Path(out) if out else None
    watchers = check_trackers(trackers, folder)
    data = with_noise(config, data)
    facts = {} if folder is None else facts_to_keep(config, data, labels, given)
    record = Record.create(folder, config, environment(config), facts)
    with _alone(record.folder):
        weights = weights_from_pool(config, data, record.folder)
        if weights is not None:
            queries = _make_queries(config, data, strategy, given, weights)
        return _loop(config, data, queries, labels, record, watchers, weights)


def check_run(config: RunConfig, data: ImageDataset) -> None:
    """Find what is wrong with a run before it is started.

    Parameters
    ----------
    config : RunConfig
        Its settings.
    data : ImageDataset
        What it will be on.

    Raises
    ------
    SkalError
        As `run` does before anything is trained or written.
    """
    check_settings(config)
    _prepared(config, data)
    who_labels(config, data)


def _prepared(
    config: RunConfig,
    data: ImageDataset,
    strategy: Strategy | None = None,
    given: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, Queries]:
    """Return the settings with all resolved, and who chooses, having looked at both."""
    check_usable(data)
    config = resolve_settings(config, data)
    check_network(config, data)
    return config, _make_queries(config, data, strategy, given)


def _make_queries(
    config: RunConfig,
    data: ImageDataset,
    strategy: Strategy | None = None,
    given: Mapping[str, Any] | None = None,
    weights: Weights | None = None,
) -> Queries:
    """Say who chooses, by what was given if the settings cannot hold it; check that it works."""
    classifier = make_classifier(config, data, 0, weights)
    if config.stream != "off":
        return StreamQueries(config, classifier, config.strategy_params if given is None else given)
    strategy = strategy or resolve_strategy(config.strategy, config.strategy_params)
    check_strategy_works(strategy, len(data.classes))
    return PoolQueries(config, classifier, strategy)


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
        If the data or the weights are not those that the run was started on.
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
        data = with_noise(config, data)
        check_resumable(record, config, data, oracle is not None)
        record.rewrite_tables()
        labels = who_labels(config, data, oracle)
        watchers = check_trackers(trackers, folder)
        weights = weights_from_pool(config, data, folder)
        queries = _make_queries(config, data, weights=weights)
        return _loop(config, data, queries, labels, record, watchers, weights)


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
        return load_images(config, config.dataset)
    except UnknownNameError as error:
        raise DataError(
            f"the run was made on {config.dataset!r}, which cannot be loaded by its name; go on "
            "with it from Python: skal.resume(folder, data=...)"
        ) from error


def _loop(
    config: RunConfig,
    data: ImageDataset,
    queries: Queries,
    oracle: Oracle,
    record: Record,
    trackers: Sequence[Tracker],
    weights: Weights | None,
) -> Run:
    """Run all rounds that `record` does not have yet."""
    started = time.perf_counter() - record.seconds
    with log_file(record.folder), watching(trackers, config, record.folder) as watch:
        first = make_classifier(config, data, 0, weights)
        inputs = network_inputs(config, first, data.X, data.X_test)
        pool = Pool(inputs.X, len(data.classes))
        classifier = _kept(config, data, inputs.X, record, weights)
        _set_apart(config, data, pool, oracle, record)
        for number, (indices, labels) in enumerate(record.labels):
            pool.label(indices, labels)
            queries.replay(number, indices, pool, record.details[number])
        monitor = _monitor(config, pool, record)
        for number in range(len(record.rounds), config.n_rounds + 1):
            seconds: dict[str, float] = {}
            if monitor and config.stop == "end" and monitor.stop_round is not None:
                break
            if number == len(record.labels):
                if not len(pool.unlabeled):
                    _log.warning("the pool is empty: the run ends after round %d", number - 1)
                    break
                if classifier is None and number and queries.needs_model:
                    # resumed: it is lost
                    classifier = _train(config, data, pool, number - 1, weights)
                watch.on_phase(number, "querying")
                picks, details = queries.next(number, classifier, pool, oracle, seconds)
                _label(pool, picks, oracle, data, record, seconds, details)
            watch.on_phase(number, "training")
            with timed(seconds, "fit_seconds"):
                classifier = _train(config, data, pool, number, weights, classifier, watch)
            if _keeps_networks(config):
                record.write(CHECKPOINT.format(number), weights_of(classifier))
            watch.on_phase(number, "evaluating")
            row: dict[str, Any] = {
                "round": number,
                "n_labeled": pool.n_labeled,
                **_evaluate(config, data, inputs.X_test, classifier, record),
                **_validate(classifier, pool),
                **dict.fromkeys(SECONDS, 0.0),
                **record.query_seconds,
                **seconds,
            }
            if monitor:
                row["agreement"] = monitor.observe(classifier)
            record.add_round(
                row, time.perf_counter() - started, monitor.predicted if monitor else None
            )
            record.remove(CHECKPOINT.format(number - 1))
            watch.on_round(row)
        if classifier is None:
            classifier = _train(config, data, pool, len(record.rounds) - 1, weights)
        if inputs.backbone is not None:
            classifier.take_backbone(inputs.backbone)
        return _finish(config, data, record, classifier, watch, monitor)


class Inputs(NamedTuple):
    """What networks are given: images, or the features of a frozen backbone."""

    X: NDArray[Any]
    X_test: NDArray[Any]
    backbone: Backbone | None = None


def network_inputs(
    config: RunConfig, classifier: ImageClassifier, X: Images, X_test: Images | None = None
) -> Inputs:
    """Return images as they are; or run a frozen backbone over them, once for all rounds and runs.

    Parameters
    ----------
    config : RunConfig
        With all settings resolved.
    classifier : ImageClassifier
        One like those of the run, not fitted.
    X, X_test : ndarray of uint8, shape (n, channels, height, width)
        Pool and test set.

    Returns
    -------
    Inputs
    """
    X_test = X[:0] if X_test is None else X_test
    if not config.freeze:
        return Inputs(X, X_test)
    cache = Path(str(config.data_dir)) / "cache"
    backbone = classifier.backbone(X.shape[1:])
    features, features_test = (features_of(backbone, images, cache) for images in (X, X_test))
    return Inputs(features, features_test, backbone)


def _evaluate(
    config: RunConfig,
    data: ImageDataset,
    X_test: NDArray[Any],
    classifier: ImageClassifier,
    record: Record,
) -> dict[str, float]:
    """Compute the metrics of a round; of a calibrated network, what it would be without, too."""
    proba = predict_test(classifier, X_test)
    # each round's takes the place of the last one's
    record.write(EVALUATION, json.dumps(describe_errors(data.y_test, proba, data.classes)) + "\n")
    metrics = evaluate(data.y_test, proba)
    if config.calibrate != "none":
        before = evaluate(data.y_test, uncalibrated(proba, classifier.temperature))
        metrics["temperature"] = classifier.temperature
        metrics.update({f"{name}_uncalibrated": before[name] for name in ("nll", "ece")})
    return metrics


def _validate(classifier: ImageClassifier, pool: Pool) -> dict[str, float]:
    """Compute the metrics of a round on the images set apart, if there are any."""
    if not len(pool.valid):
        return {}
    proba = score_pool(classifier, pool.X, embeddings=False, rows=pool.valid).proba
    metrics = evaluate(pool.y_valid, proba)
    return {f"valid_{name}": metrics[name] for name in ("accuracy", "nll")}


def _monitor(config: RunConfig, pool: Pool, record: Record) -> StopMonitor | None:
    if config.stop == "off":
        return None
    agreements = [row.get("agreement") for row in record.rounds]
    return StopMonitor(pool, config.seed, agreements, record.predicted)


def _set_apart(
    config: RunConfig, data: ImageDataset, pool: Pool, oracle: Oracle, record: Record
) -> None:
    """Set the images apart that are validated on; label them first, unless that was done."""
    n_valid = resolve_count("n_valid", config.n_valid, len(pool), lowest=0)
    if not n_valid:
        return
    if not record.valid:
        picks = rows_apart(len(pool), n_valid, config.seed)
        labels = np.atleast_1d(oracle.label(picks))
        pool.copy().set_apart(picks, labels)  # answers that are no labels are not kept
        record.add_valid(picks.tolist(), labels.tolist(), *_in_words(data, picks, labels))
    pool.set_apart(record.valid["indices"], record.valid["labels"])


def _in_words(
    data: ImageDataset, picks: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[list[str], list[str]]:
    """Return the paths of images, and the names of their labels."""
    paths = [data.paths[index] for index in picks] if data.paths else [""] * len(picks)
    return paths, [data.classes[label] for label in labels]


def _label(
    pool: Pool,
    picks: NDArray[np.int64],
    oracle: Oracle,
    data: ImageDataset,
    record: Record,
    seconds: Mapping[str, float],
    details: Mapping[str, Any],
) -> None:
    """Ask the oracle, and keep its answers before anything else happens."""
    labels = np.atleast_1d(oracle.label(picks))
    pool.label(picks, labels)
    words = _in_words(data, picks, labels)
    record.add_labels(picks.tolist(), labels.tolist(), *words, seconds, details)


def _kept(
    config: RunConfig,
    data: ImageDataset,
    X: NDArray[Any],
    record: Record,
    weights: Weights | None,
) -> ImageClassifier | None:
    """Return the network of the last whole round, if it was kept."""
    if record.folder is None or not record.rounds:
        return None
    number = len(record.rounds) - 1
    path = record.folder / CHECKPOINT.format(number)
    if config.warm_start == "off" and not path.is_file():
        return None
    return load_weights(make_classifier(config, data, number, weights), path, X)


def _keeps_networks(config: RunConfig) -> bool:
    """Tell whether training again might not make a round's network again, to the bit."""
    return config.warm_start != "off" or config.device != "cpu"


def make_classifier(
    config: RunConfig, data: ImageDataset, number: int, weights: Weights | None = None
) -> ImageClassifier:
    """Return the classifier of a round, not fitted; its seed is that of the round.

    Parameters
    ----------
    config : RunConfig
        With all settings resolved.
    data : ImageDataset
        What it is for.
    number : int
        The round.
    weights : mapping of str to Tensor, optional
        What `weights_from_pool` made, to start from.

    Returns
    -------
    ImageClassifier
    """
    return ImageClassifier(
        str(config.model),
        classes=np.arange(len(data.classes)),
        steps=config.steps,
        epochs=config.epochs,
        train_batch_size=config.train_batch_size,
        optimizer=config.optimizer,
        lr=config.lr,
        warm_start=config.warm_start,
        label_smoothing=config.label_smoothing,
        average=config.average,
        clip_norm=config.clip_norm,
        balanced=config.balanced,
        mixup=config.mixup,
        patience=config.patience,
        augmentation=data.augmentation,
        pretrained=config.pretrained and weights is None,
        weights=config.weights if weights is None else weights,
        freeze=config.freeze,
        finetune=config.finetune,
        head=config.head,
        device=config.device,
        precision=config.precision,
        compile=config.compile,
        random_state=derive_seed(config.seed, "training", number),
    )


def _train(
    config: RunConfig,
    data: ImageDataset,
    pool: Pool,
    number: int,
    weights: Weights | None,
    last: ImageClassifier | None = None,
    watch: Watchers | None = None,
) -> ImageClassifier:
    """Train a network on what is labelled, and calibrate it if that is asked for.

    It is a new one, or the last one if that is what to start from.
    """
    classifier = make_classifier(config, data, number, weights)
    if last is not None and config.warm_start != "off":
        classifier = last.set_params(random_state=classifier.random_state)
    with watch.training(classifier, number) if watch else nullcontext():
        classifier.fit(pool.X, pool.y, rows=pool.rows)
    if config.calibrate == "temperature":
        seed = derive_seed(config.seed, "calibration", number)
        calibrate_network(classifier, pool.X, pool.y, seed=seed, rows=pool.rows)
    return classifier


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
    monitor: StopMonitor | None,
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
        "stop_round": monitor.stop_round if monitor else None,
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
        for path in record.folder.glob(CHECKPOINT.format("*")):  # several after a crash
            record.remove(path.name)
    watch.on_end(summary)
    return result
