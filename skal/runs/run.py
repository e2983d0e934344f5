"""`run` and `resume`: the active learning loop, labelled by an oracle."""

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
    """Run active learning: train, score the pool, query, label, repeat.

    Parameters
    ----------
    data : ImageDataset, str or Path
        A labelled dataset with a test set, or a name or folder for `load_dataset`.
    strategy : str, class or instance, default="auto"
        A name from ``skal list strategies`` (with `stream`, from ``skal list stream-strategies``)
        or ``module:Class``, both optionally with ``?key=value``; or a scikit-activeml strategy.
    oracle : Oracle, callable or str, default="true"
        Source of the labels: a name from ``skal list oracles`` or ``module:Name``, both optionally
        with ``?key=value``; an oracle; or a function of indices. By default the labels of `data`,
        which only the oracle sees.
    out : str, Path or bool, optional
        Run folder to create; it must not exist. True makes a name under ``runs/`` from the
        settings. By default nothing is written.
    trackers : sequence of Tracker or str, default=()
        Trackers, or names from ``skal list trackers``.
    strategy_params : mapping, optional
        Arguments of the strategy.
    **settings

    Returns
    -------
    Run
        Each row of its `rounds` has the metrics of the network trained on `n_labeled` images, the
        seconds of its training, and the seconds of choosing the round's new images.

    Raises
    ------
    SkalError
        See `skal.core.errors`. Usage errors are raised before anything is trained or written.

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
    """Resume an interrupted run from its last complete round. A finished run is left unchanged.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    data : ImageDataset, optional
        The dataset of the run, if it was made from arrays and cannot be loaded by name.
    oracle : Oracle, callable or str, optional
        The oracle of the run, if it was an object; one given by name is created again.
    trackers : sequence of Tracker or str, default=()
        See `run`.
    trust : bool, default=False
        Whether to import code that the folder names as ``module:Name`` (strategy, network, oracle).

    Returns
    -------
    Run
        The run, with the labels and metrics that it would have without the interruption.

    Raises
    ------
    RunFolderError, DataError, ParameterError
        If the run is missing, damaged or in use; if its data or weights have changed; if its oracle
        must be given again or its strategy cannot be restored; or if it names untrusted code.

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
        _log.info("the run in %s is already finished", folder)
        return Run.read(folder, trust)
    learner = ActiveLearner.open(folder, data=data, trust=trust)
    check_usable(learner.data)
    labels = check_oracle(learner.record, learner.plan, oracle)
    return _label_all(learner, labels, check_trackers(trackers, folder))


def _label_all(learner: ActiveLearner, oracle: Oracle, trackers: Sequence[Tracker]) -> Run:
    """Run all remaining rounds: this is the active learning loop."""
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
    """Raise the errors that `run` raises before anything is trained or written."""
    check_settings(config)
    check_usable(data)
    chooser = Chooser.of(config.strategy, config.strategy_params, config.stream != "off")
    Plan.make(config, data, chooser).oracle()
