"""`ActiveLearner`: the active learning loop, step by step."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.durable import locked
from ..core.errors import ParameterError
from ..core.kinds import Count, resolve_count
from ..core.lazy import require_drawing
from ..core.seeding import derive_seed
from ..core.signatures import shows_settings
from ..core.text import plural
from ..datasets import ImageDataset
from ..datasets.base import MISSING_LABEL, Labels
from ..datasets.oracles import Oracle, ask
from ..datasets.pool import Pool, draw_held_out
from ..models.classifier import ImageClassifier
from ..models.inference import NotFittedError
from ..strategies.cold_start import ColdStart
from .acquisition import Round, timed
from .config import RunConfig
from .environment import environment
from .evaluation import Inputs, measure, network_inputs, round_row
from .finished import Run, summarise, table_of, title_of
from .metrics import describe_errors
from .networks import Networks
from .plan import Plan, QueryStrategy, settle, with_classifier_settings
from .preparation import no_test_image, with_noise
from .pretraining import weights_from_pool
from .record import EVALUATION, JOURNAL, ROUND_LINE, SECONDS, Answers, Record, class_ids, log_file
from .resuming import facts_to_keep, reopened
from .stopping import StopMonitor
from .trackers import Tracker, Watchers, watching

_log = logging.getLogger("skal")


@shows_settings(RunConfig, omit=("dataset",))
class ActiveLearner:
    """Active learning step by step: `query`, label, `teach`, `fit`, `evaluate`, repeat.

    `skal.run` drives it with an oracle, `skal label` with people. The same labels, settings and
    seed give the same picks.

    Parameters
    ----------
    data : ImageDataset
        The pool is its `X`, or `X_unlabeled` if `X` is empty. Its training labels are not used.
    classifier : ImageClassifier, optional
        Template of the network of every round, which only differ in their seeds. Its parameters
        replace the network and training settings. With ``freeze=True`` features are computed once.
    strategy : str, class or instance, default="auto"
        See `run`.
    out : str or Path, optional
        New run folder to record to, from which `open` resumes. By default nothing is written.
    strategy_params : mapping, optional
        Arguments of the strategy.
    **settings

    Attributes
    ----------
    config : RunConfig
        All settings, resolved.
    data : ImageDataset
        The dataset, with the image noise that the settings ask for.
    choice : Round or None
        Details of the last `query`, including the scores that it was based on.

    Raises
    ------
    UsageError
        If an argument is invalid, the classifier's `classes` are not the dataset's class ids, or
        `out` exists.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
    >>> learner = skal.ActiveLearner(data, clf, strategy="margin")
    >>> for _ in range(2):
    ...     indices = learner.query(10)
    ...     learner = learner.teach(indices, data.y[indices])
    >>> int((learner.y >= 0).sum())
    20
    >>> 0 <= learner.evaluate()["accuracy"] <= 1
    True
    """

    config: Any
    data: ImageDataset
    choice: Round | None

    def __init__(
        self,
        data: ImageDataset,
        classifier: ImageClassifier | None = None,
        strategy: QueryStrategy = "auto",
        *,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        if classifier is not None:
            settings = with_classifier_settings(classifier, settings)
        config, chooser = settle(data, strategy, settings)
        plan = Plan.make(config, data, chooser, classifier)
        self._begin(plan, None if out is None else Path(out), None)

    @classmethod
    def start(cls, plan: Plan, folder: Path | None, oracle: Oracle | None) -> ActiveLearner:
        """Start a planned run; the record notes the type of `oracle`, None for manual labels."""
        learner = cls.__new__(cls)
        learner._begin(plan, folder, oracle)
        return learner

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        data: ImageDataset | None = None,
        classifier: ImageClassifier | None = None,
        trust: bool = False,
    ) -> ActiveLearner:
        """Resume from a run folder, as if there had been no interruption.

        Parameters
        ----------
        folder : str or Path
            The earlier `out`, or the folder of a `run`.
        data : ImageDataset, optional
            The dataset, if it cannot be loaded by name.
        classifier : ImageClassifier, optional
            The classifier given at the start, if the record cannot hold all its parameters.
        trust : bool, default=False
            Whether to import code that the record names as ``module:Name``. Not needed for code
            of skal or scikit-activeml, or registered by an installed package.

        Raises
        ------
        RunFolderError, DataError, ParameterError
            If the record is missing or damaged; if data or weights have changed; if the classifier
            must be given again or the strategy cannot be restored; or if it names untrusted code.
        """
        plan, record = reopened(Path(folder), data, classifier, trust)
        require_drawing()
        learner = cls.__new__(cls)
        learner._set_up(plan, record)
        record.keep_config(plan.config)
        record.repair()
        return learner

    def _begin(self, plan: Plan, folder: Path | None, oracle: Oracle | None) -> None:
        plan, record = replace(plan, data=with_noise(plan.config, plan.data)), Record()
        if folder is not None:
            require_drawing()  # only used at the end, but better to fail before hours of training
            facts = facts_to_keep(plan, oracle)
            record = Record.create(folder, plan.config, environment(plan.config), facts)
        self._set_up(plan, record)

    def _set_up(self, plan: Plan, record: Record) -> None:
        self.config, self.data, self.choice = plan.config, plan.data, None
        self.plan, self.record = plan, record
        record.write_skipped(plan.data.skipped)
        self._acquisition = plan.acquisition
        self._watch = Watchers()
        self._started = time.perf_counter() - record.seconds
        self._round = len(record.labels)
        self._asked: tuple[Any, NDArray[np.int64]] | None = None
        self._network: ImageClassifier | None = None
        self._trained_in = -1
        self._metrics: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def __repr__(self) -> str:
        n = sum(len(indices) for indices, _ in self.record.labels)
        of = f"{n:,} of {len(self.data.X):,} {plural(len(self.data.X), 'image')} labelled"
        table = f"\n{table_of(self.record.rounds)}" if self.record.rounds else ""
        return f"{title_of(self.data.name, self.config)}; {of}{table}"

    @cached_property
    def template(self) -> ImageClassifier:
        """Unfitted classifier that the network of each round copies, except for the seed."""
        if self.config.pretrain == "none":
            return self.plan.template
        weights = weights_from_pool(self.config, self.data, self.record.folder)
        return self.plan.template.variant(pretrained=False, weights=weights)

    @cached_property
    def _networks(self) -> Networks:
        return Networks(self.config, self.template, self.record)

    @cached_property
    def _inputs(self) -> Inputs:
        X, X_test = self.data.X, self.data.X_test
        return network_inputs(self.config, self.template, X, X_test, self.plan.backbone)

    @cached_property
    def pool(self) -> Pool:
        """Images or their features, with the labels taught so far."""
        pool, record = Pool(self._inputs.X, len(self.data.classes)), self.record
        if record.valid:
            pool.hold_out(record.valid["indices"], record.valid["labels"])
        for number, (indices, labels) in enumerate(record.labels):
            pool.label(indices, labels)
            self._acquisition.replay(number, indices, pool, record.details[number])
        return pool

    @cached_property
    def _monitor(self) -> StopMonitor | None:
        if self.config.stop == "off":
            return None
        agreements = [row.get("agreement") for row in self.record.rounds]
        return StopMonitor(self.pool, self.config.seed, agreements, self.record.predicted)

    @property
    def y(self) -> Labels:
        """Labels taught so far, -1 for unlabelled images; read-only."""
        return self.pool.y

    @property
    def folder(self) -> Path | None:
        return self.record.folder

    @property
    def classifier(self) -> ImageClassifier:
        """Network trained on all labels so far; training happens on first access."""
        self.fit()
        assert self._network is not None
        return self._network

    @property
    def is_evaluated(self) -> bool:
        """Whether the newest labels were trained on and evaluated; True before any are taught."""
        rounds = self.record.rounds
        return not self._round or bool(rounds and rounds[-1]["round"] == self._round - 1)

    @property
    def is_done(self) -> bool:
        """Whether the settings end the run here."""
        if not self.is_evaluated:
            return False
        if self._round > self.config.n_rounds or not len(self.pool.unlabeled):
            return True
        monitor = self._monitor if self.config.stop == "end" else None
        return monitor is not None and monitor.stop_round is not None

    def query(
        self, n: Count | None = None, *, oracle: Oracle | None = None, embeddings: bool = False
    ) -> NDArray[np.int64]:
        """Return the images to label next, chosen by `init_strategy` until the first `teach`.

        Parameters
        ----------
        n : int or str, optional
            Number of images, or share of the pool as "P%". By default the setting `n_init`, later
            `n_query`. After the initial set of a stream leave it out: the strategy decides.
        oracle : Oracle, optional
            Source of the labels for a stratified initial set.
        embeddings : bool, default=False
            Whether the scores in `choice` have embeddings even if the strategy needs none.

        Returns
        -------
        ndarray of int64, shape (n,)
            Pool indices. Repeated calls before the next `teach` return the same.
        """
        if self.config.n_valid and not self.record.valid:
            raise ParameterError(
                f"n_valid={self.config.n_valid}: call hold_out(oracle) before query()"
            )
        if self._asked is not None and self._asked[0] == n:
            return self._asked[1]
        if self._round == 0:
            picks = self.cold_start(n, oracle=oracle)
        else:
            needed = self._acquisition.needs_model and len(self.pool.unlabeled)
            network = self.classifier if needed else None
            self._watch.tell("on_phase", self._round, "querying")
            self.choice = Round(self._round, {}, {}, embeddings=embeddings)
            picks = self._acquisition.choose(self.choice, network, self.pool, n)
        self._asked = (n, picks)
        return picks

    def cold_start(
        self, n: Count | None = None, *, oracle: Oracle | None = None
    ) -> NDArray[np.int64]:
        """Choose images by `init_strategy`, without a trained network; see `query`."""
        config, number, n_pool = self.config, self._round, len(self.pool)
        self._watch.tell("on_phase", number, "querying")
        self.choice = Round(number, {}, {})
        seed = derive_seed(config.seed, "init", number) if number else config.seed
        start = ColdStart(config.init_strategy, seed, self.template, oracle)
        n = resolve_count("n_init", config.n_init if n is None else n, n_pool)
        with timed(self.choice.seconds, "query_seconds"):
            return start.choose(self.pool, n)

    def teach(self, indices: ArrayLike, labels: ArrayLike) -> ActiveLearner:
        """Add labels, and write them to the record before returning.

        Parameters
        ----------
        indices : array-like of int, shape (b,)
            Pool indices of unlabelled images.
        labels : array-like of int or str, shape (b,)
            Class ids or class names. Empty arrays change nothing, unless `query` returned none.

        Raises
        ------
        DataError, UnknownNameError
            If an index or a label is invalid; nothing is added then.
        """
        picks, ids = np.atleast_1d(indices), class_ids(labels, self.data.classes)
        asked = None if self._asked is None else self._asked[1]
        if not picks.size and not ids.size and (asked is None or len(asked)):
            return self
        self.pool.check(picks, ids)
        is_answer = asked is not None and np.array_equal(asked, picks)
        if self._round and self.config.stream != "off" and not is_answer:
            raise ParameterError("in a stream, teach exactly the images that `query` returned")
        choice = self.choice if is_answer and self.choice else Round(self._round, {}, {})
        self.record.add_labels(Answers.of(self.data, picks, ids), choice.seconds, choice.details)
        if self._round == 0:
            self._acquisition.replay(0, picks.tolist(), self.pool, {})
        self.pool.label(picks, ids)
        self._round += 1
        self._asked, self._seconds = None, {}
        return self

    def hold_out(self, oracle: Oracle) -> None:
        """Hold out `n_valid` random images for validation, labelled by an oracle, only once."""
        n_valid = int(self.config.n_valid)
        if not n_valid or self.record.valid:
            return
        picks = draw_held_out(len(self.pool), n_valid, self.config.seed)
        labels = ask(oracle, picks, self.data.classes)
        self.pool.check(picks, labels)
        self.record.add_valid(Answers.of(self.data, picks, labels))
        self.pool.hold_out(picks, labels)

    def fit(self) -> ActiveLearner:
        """Train a network on all labels so far, unless that is done already.

        Raises
        ------
        NotFittedError
            If no labels were taught yet.
        """
        number = self._round - 1
        if number < 0:
            raise NotFittedError("no labels yet: call query(), then teach(indices, labels)")
        if self._trained_in == number:
            return self
        networks, pool = self._networks, self.pool
        if self.is_evaluated:  # resumed: trackers have logged this training already
            kept = networks.kept(number, pool)
            self._network = kept or networks.train(number, pool, None, Watchers())
        else:
            self._watch.tell("on_phase", number, "training")
            with timed(self._seconds, "fit_seconds"):
                last = self._network or networks.kept(number - 1, pool)
                self._network = networks.train(number, pool, last, self._watch)
            networks.keep(number, self._network)
        self._trained_in = number
        return self

    def evaluate(self) -> dict[str, float]:
        """Complete the round: return the metrics on the test set, named as in ``rounds.csv``.

        Raises
        ------
        DataError, NotFittedError
            If the dataset has no test images, or no labels were taught yet.
        """
        data, number = self.data, self._round - 1
        if not len(data.X_test):
            raise no_test_image(data)
        network, was_evaluated = self.classifier, self.is_evaluated
        if was_evaluated and self._metrics:
            return self._metrics
        self._watch.tell("on_phase", number, "evaluating")
        calibrated = self.config.calibrate != "none"
        self._metrics, proba = measure(network, self._inputs.X_test, data.y_test, calibrated)
        if not was_evaluated:
            errors = describe_errors(data.y_test, proba, data.classes)
            # overwritten in each round: only the last evaluation is kept
            self.record.write_kept(EVALUATION, f"{json.dumps(errors)}\n".encode())
            self._end_round(network)
        return self._metrics

    def finish(self) -> Run:
        """End the run: write learning curve, network and summary, and return the results."""
        record, network = self.record, self.classifier
        if self._inputs.backbone is not None:
            network.take_backbone(self._inputs.backbone)
        if self._round <= self.config.n_rounds and not len(self.pool.unlabeled):
            _log.warning("the pool is empty: the run ends after round %d", self._round - 1)
        stop_round = self._monitor.stop_round if self._monitor else None
        summary = summarise(self.config, self.data, record, stop_round)
        run = Run(self.config, summary, record.rounds, record.queries, network, record.folder)
        if record.folder is not None:
            run.write(record, self.data)
            self._networks.forget()
        self._watch.tell("on_end", summary)
        return run

    def restore(self, y: Labels, round_number: int) -> None:
        """Replace all labels (-1: none) after `round_number` batches; only without a record."""
        labeled = np.flatnonzero(y != MISSING_LABEL)
        if len(labeled):
            round_number = max(round_number, 1)
        pool = Pool(self._inputs.X, len(self.data.classes))
        pool.label(labeled, y[labeled])
        self.__dict__["pool"] = pool
        self._round, self._trained_in, self._asked = round_number, -1, None
        self._network = self.choice = None  # made from the replaced labels

    @contextmanager
    def recorded(self, trackers: Sequence[Tracker] = ()) -> Iterator[None]:
        """Lock the record, else raise `RunFolderError`; write the log and notify trackers."""
        folder = self.record.folder
        lock = nullcontext() if folder is None else locked(folder / JOURNAL)
        with lock:
            self.template  # noqa: B018 (pretrain before trackers open their connections)
            with log_file(folder), watching(trackers, self.config, folder) as self._watch:
                yield

    def _end_round(self, network: ImageClassifier) -> None:
        number, monitor, record = self._round - 1, self._monitor, self.record
        seconds = {**dict.fromkeys(SECONDS, 0.0), **record.query_seconds, **self._seconds}
        row = round_row(number, self._metrics, network, self.pool, seconds)
        if monitor:
            row["agreement"] = monitor.observe(network)
        took = time.perf_counter() - self._started
        record.add_round(row, took, monitor.predicted if monitor else None)
        self._networks.forget(number - 1)
        _log.info(ROUND_LINE, {**row, "of": self.config.n_rounds})
        self._watch.tell("on_round", row)
