"""`run` and `resume`: the loop with an oracle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.signatures import shows_settings
from ..datasets import ImageDataset
from ..datasets.oracles import AnyOracle, Oracle, ask, oracle_spec
from .active_learner import ActiveLearner
from .config import RunConfig
from .finished import Run
from .plan import Chooser, Plan, QueryStrategy, settle
from .preparation import check_settings, check_usable, default_folder, load_images
from .record import check_free, check_run_folder, is_finished
from .resuming import check_oracle
from .trackers import Tracker, check_trackers

_log = logging.getLogger("skal")


@shows_settings(RunConfig, omit=("dataset",))
def run(
    data: ImageDataset | str | Path,
    strategy: QueryStrategy = "auto",
    *,
    oracle: AnyOracle = "true",
    out: str | Path | bool | None = None,
    trackers: Sequence[Tracker | str] = (),
    **settings: Any,
) -> Run:
    """Run active learning: train, score the pool, query, label, and again.

    Parameters
    ----------
    data : ImageDataset, str or Path
        Images with labels and a test set, or what `load_dataset` takes.
    strategy : str, class or instance, default="auto"
        A name of ``skal list strategies`` (for a stream of ``skal list stream-strategies``),
        ``module:Class``, either with ``?key=value``; or a scikit-activeml query strategy.
    oracle : Oracle, callable or str, default="true"
        What labels: a name of ``skal list oracles``, ``module:Name``, either with ``?key=value``;
        an oracle, or a function of indices. By default the labels of `data`, which nothing else in
        the run sees.
    out : str, Path or bool, optional
        The folder to write to, which must not exist; True for a name under ``runs/`` made of the
        settings; by default nothing is written.
    trackers : sequence of Tracker or str, default=()
        Names are those of ``skal list trackers``.
    strategy_params : mapping, optional
        Arguments of the strategy.
    **settings

    Returns
    -------
    Run
        A row of its `rounds` has the metrics of the network trained on `n_labeled` images, and the
        seconds of training it and of choosing the images that were new.

    Raises
    ------
    SkalError
        See `skal.core.errors`; usage errors come before anything is trained or written.

    Examples
    --------
    >>> import skal
    >>> run = skal.run("digits", "margin", n_init=20, n_query=10, n_rounds=1, steps=5)
    >>> [row["n_labeled"] for row in run.rounds]
    [20, 30]
    """
    config, chooser = settle(data, strategy, {**settings, "oracle": oracle_spec(oracle)})
    if isinstance(out, str | Path):
        check_free(Path(out))
    images = data if isinstance(data, ImageDataset) else load_images(config, data)
    check_usable(images)
    plan = Plan.make(config, images, chooser)
    labels = plan.oracle(oracle)
    folder = default_folder(plan.config, images) if out is True else Path(out) if out else None
    watchers = check_trackers(trackers, folder)
    return _label_all(ActiveLearner.start(plan, folder, labels), labels, watchers)


def resume(
    folder: str | Path,
    *,
    data: ImageDataset | None = None,
    oracle: AnyOracle | None = None,
    trackers: Sequence[Tracker | str] = (),
    trust: bool = False,
) -> Run:
    """Resume a run that was stopped, at its last whole round; a finished one is left as it is.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    data : ImageDataset, optional
        What was run on, if it was made of arrays and cannot be loaded by its name.
    oracle : Oracle, callable or str, optional
        What labels, if that was an object; what was named is made again.
    trackers : sequence of Tracker or str, default=()
        See `run`.
    trust : bool, default=False
        Whether what the folder names as ``module:Name`` (strategy, network, oracle) is imported.

    Returns
    -------
    Run
        With the same labels and figures as if it had never been stopped.

    Raises
    ------
    RunFolderError, DataError, ParameterError
        If the run is missing, damaged or in use, its data or weights differ, its oracle or strategy
        must be, or cannot be, given again, or it names code that is not to be trusted.

    Examples
    --------
    >>> import tempfile
    >>> import skal
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     first = skal.run("digits", "random", n_rounds=1, steps=5, out=f"{scratch}/first")
    ...     again = skal.resume(f"{scratch}/first")
    >>> again.summary["accuracy"] == first.summary["accuracy"]
    True
    """
    folder = Path(folder)
    check_run_folder(folder)
    if is_finished(folder):
        _log.info("the run in %s is finished: nothing is left to do", folder)
        return Run.read(folder, trust)
    learner = ActiveLearner.open(folder, data=data, trust=trust)
    check_usable(learner.data)
    labels = check_oracle(learner.record, learner.plan, oracle)
    return _label_all(learner, labels, check_trackers(trackers, folder))


def _label_all(learner: ActiveLearner, oracle: Oracle, trackers: Sequence[Tracker]) -> Run:
    """Go through all rounds: this is the loop."""
    with learner.recorded(trackers):
        learner.hold_out(oracle)
        while not learner.is_done:
            if learner.is_evaluated:
                picks = learner.query(oracle=oracle)
                learner.teach(picks, ask(oracle, picks, learner.data.classes))
            learner.fit()
            learner.evaluate()
        return learner.finish()


def check_run(config: RunConfig, data: ImageDataset) -> None:
    """Raise what `run` would before anything is trained or written."""
    check_settings(config)
    check_usable(data)
    chooser = Chooser.of(config.strategy, config.strategy_params, config.stream != "off")
    Plan.make(config, data, chooser).oracle()
