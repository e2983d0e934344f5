"""Stream strategies, which decide image by image within a budget. Does not import torch."""

from __future__ import annotations

import copy
import inspect
import math
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import DIVERGED, ParameterError, SkalError, UnknownNameError, blaming
from ..core.registry import Entry, Registry, import_object

if TYPE_CHECKING:
    from .scores import Scores

StreamNeed = Literal["nothing", "scores", "embeddings"]

STREAM_STRATEGIES: Registry[type] = Registry("stream strategy", plural="stream strategies")
"""Query strategies with scikit-activeml's interface for streams.

`update` may remember the number of images, which were taken, and their utilities, but not the
images themselves, since a resumed run cannot pass these again.

Facts of an entry:

needs : what is passed to the strategy for each image
    "nothing"     a row number
    "scores"      a row number and a classifier that answers from the scores
    "embeddings"  the embedding, the network's head as a classifier, labelled embeddings
params : constructor arguments that differ from their defaults
manager : class of its budget manager, whose arguments can be set like the strategy's own
max_classes : the largest number of classes for which it is fast enough
summary, paper, cost : text for users; cost per image with m labelled ones, C classes, D features
"""

_MANAGERS = "skactiveml.stream.budgetmanager"

STREAM_STRATEGIES.add(
    "random",
    "skactiveml.stream:StreamRandomSampling",
    needs="nothing",
    params={"allow_exceeding_budget": False},
    summary="each image with a probability equal to the budget; the baseline",
    cost="O(1)",
)
STREAM_STRATEGIES.add(
    "periodic",
    "skactiveml.stream:PeriodicSampling",
    needs="nothing",
    summary="every k-th image: whenever the budget allows another one",
    cost="O(1)",
)
_BY_UNCERTAINTY = {
    "FixedUncertainty": "images whose most probable class is below a fixed probability",
    "VariableUncertainty": "fixed-uncertainty with a threshold that falls with each image taken "
    "and rises with the others",
    "RandomVariableUncertainty": "variable-uncertainty with a noisy threshold, so that certain "
    "images may be taken, too",
    "Split": "a tenth of the images at random, the others by variable-uncertainty",
}
for _class, _summary in _BY_UNCERTAINTY.items():
    STREAM_STRATEGIES.add(
        re.sub("(?<=.)(?=[A-Z])", "-", _class).lower(),
        f"skactiveml.stream:{_class}",
        needs="scores",
        manager=f"{_MANAGERS}:{_class}BudgetManager",
        summary=_summary,
        paper="Zliobaite et al., TNNLS 2014",
        cost="O(C)",
    )
STREAM_STRATEGIES.add(
    "probabilistic",
    "skactiveml.stream:StreamProbabilisticAL",
    needs="embeddings",
    params={"metric": "rbf"},
    manager=f"{_MANAGERS}:BalancedIncrementalQuantileFilter",
    max_classes=30,
    summary="expected gain of a label, from class probabilities and the density of labelled images",
    paper="Kottke et al., IDA 2015",
    cost="O(m D + C^4)",
)

WINDOW = 100
"""Images whose share of the budget may be spent in advance."""

TRIAL_IMAGES = 3
_SET_BY_SKAL = frozenset(("budget", "budget_manager", "classes", "missing_label", "random_state"))


def _make(strategy: Entry[type], ours: Mapping[str, Any]) -> Any:
    """Make an instance, with a budget manager if `params` has arguments of that."""
    cls = strategy.load()
    own, managed = inspect.signature(cls).parameters, _manager_parameters(strategy.facts)
    params = copy.deepcopy(dict(strategy.params))
    init = {**strategy.facts.get("params", {}), **_among(own, params), **_among(own, ours)}
    for_manager = _among(managed.keys() - own.keys(), params)
    if for_manager:
        manager = import_object(strategy.facts["manager"])
        init["budget_manager"] = manager(**for_manager, **_among(managed, ours))
    return cls(**init)


def _manager_parameters(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    path = facts.get("manager")
    return inspect.signature(import_object(path)).parameters if path else {}


def _among(names: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


_Chunk = tuple[NDArray[Any], Mapping[str, Any]]
"""Candidates, one per row, and further arguments of `query`."""


class StreamSampler:
    """Decide which images of a stream to label, one by one, within a budget.

    At most ``budget * (n + 100) + 1`` of the first n images are chosen, whatever the strategy and
    the scores; by default, "random" and "periodic" choose at most ``budget * n``. If the length of
    the stream is known, see `expect`, at most ``budget * length``, rounded up, are chosen in all.
    Images refused by these limits are not passed to the strategy's `update`, as if they were not
    in the stream.

    Parameters
    ----------
    strategy : str
        A name in `STREAM_STRATEGIES`, such as ``split?v=0.2``, or ``skactiveml.stream:Split``.
    params : mapping
        Arguments of its constructor or of its budget manager, such as `theta`, `s` and `w`.
    budget : float
        The share of the images that may be chosen, above 0 and at most 1.
    n_classes : int
        Number of classes.
    seed : int
        Seeds the strategy.

    Raises
    ------
    UnknownNameError
        If there is no strategy, or no parameter, of that name.
    ParameterError
        If the budget or a parameter is not valid, as tried on a few made-up images, or the class
        is not a stream strategy, or cannot be rebuilt from a journal.

    Notes
    -----
    scikit-activeml's decisions on a chunk depend on the chunk's boundaries, so `query` and `update`
    are called for each image separately.
    """

    def __init__(
        self,
        strategy: str,
        params: Mapping[str, Any],
        *,
        budget: float,
        n_classes: int,
        seed: int,
    ) -> None:
        if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget <= 1:
            raise ParameterError(
                f"budget={budget!r}; expected a share of the images, above 0 and at most 1, such "
                "as 0.1"
            )
        self._strategy = _resolve(strategy, params, n_classes)
        self._needs: StreamNeed = self._strategy.facts["needs"]
        self._budget = float(budget)
        self._n_seen = self._n_chosen = 0
        self._most = math.inf
        ours = {"budget": self._budget, "random_state": seed, "classes": np.arange(n_classes)}
        what = f"the stream strategy {self._strategy.name} does not work with the parameters"
        with blaming(f"{what} {dict(self._strategy.params)}", ParameterError, always=True):
            self._try(_make(self._strategy, ours), n_classes)
            self._query = _make(self._strategy, ours)

    @property
    def needs_model(self) -> bool:
        """Whether a trained network is needed."""
        return self._needs != "nothing"

    @property
    def needs_embeddings(self) -> bool:
        """Whether scores need embeddings, and labelled images must be scored, too."""
        return self._needs == "embeddings"

    def expect(self, length: int) -> None:
        """Set the length of the stream, which limits the total number of chosen images.

        Parameters
        ----------
        length : int
            Number of images from the first decision to the last.
        """
        # 1e-9 keeps rounding errors from rounding up whole numbers
        self._most = math.ceil(self._budget * length - 1e-9)

    def decide(
        self,
        n: int,
        scores: Scores | None = None,
        labeled: Scores | None = None,
        y: ArrayLike | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Decide on the next images of the stream, each without using those after it.

        Parameters
        ----------
        n : int
            Number of images.
        scores : Scores, optional
            Scores of these images; required if `needs_model`.
        labeled : Scores, optional
            Scores of all labelled images by the same network; required if `needs_embeddings`.
        y : array-like of int, shape (n_labeled,), optional
            Labels of the labelled images.

        Returns
        -------
        chosen : ndarray of int64, shape (n_chosen,)
            Positions among the n images, in order.
        utilities : ndarray of float64, shape (n,)
            The strategy's finite utility of each image, for `replay`.

        Raises
        ------
        ParameterError
            If scores are missing, or their number is wrong.
        SkalError
            If scores are not finite, or the strategy fails or returns an invalid answer.
        """
        utilities = np.zeros(n)
        taken = np.zeros(n, dtype=bool)
        if n:
            chunk = self._chunk(n, scores, labeled, y)
            for position in range(n):
                with blaming(f"the stream strategy {self._strategy.name} failed"):
                    wanted, utilities[position] = self._ask(self._query, chunk, position)
                taken[position] = wanted and self._affordable()
                self._learn(taken[position], utilities[position])
        return np.flatnonzero(taken).astype(np.int64), utilities

    def replay(self, n: int, chosen: ArrayLike, utilities: ArrayLike) -> None:
        """Apply recorded decisions on the next images, as if `decide` had made them.

        Parameters
        ----------
        n, chosen, utilities
            Argument and results of `decide`; utilities must be exact to the last bit.

        Raises
        ------
        SkalError
            If these cannot be results of `decide`.
        """
        picks, values = np.asarray(chosen), np.asarray(utilities, dtype=np.float64)
        taken = np.isin(np.arange(n), picks)
        if not np.array_equal(np.flatnonzero(taken), picks):
            raise SkalError(
                f"cannot replay the choice {picks.tolist()}; expected ascending positions among "
                f"{n} images"
            )
        if values.shape != (n,) or not np.isfinite(values).all():
            raise SkalError(
                f"cannot replay utilities of shape {values.shape}; expected {n} finite numbers"
            )
        for wanted, value in zip(taken, values, strict=True):
            self._learn(wanted, value)

    def _affordable(self) -> bool:
        so_far = self._budget * (self._n_seen + 1 + WINDOW)
        return self._n_chosen < min(so_far, self._most)

    def _learn(self, taken: bool, utility: float) -> None:
        """Count the next image, and update the strategy unless the budget refused the image."""
        if taken or self._affordable():
            with blaming(f"the stream strategy {self._strategy.name} failed"):
                self._update(self._query, taken, utility)
        self._n_seen += 1
        self._n_chosen += int(taken)

    def _update(self, query: Any, taken: bool, utility: float) -> None:
        keywords: dict[str, Any] = {}
        if "budget_manager_param_dict" in inspect.signature(query.update).parameters:
            keywords["budget_manager_param_dict"] = {"utilities": np.array([utility])}
        # zeros instead of the embedding, which a replay does not have
        query.update(np.zeros((1, 1)), np.flatnonzero([taken]), **keywords)

    def _ask(self, query: Any, chunk: _Chunk, position: int) -> tuple[bool, float]:
        """Return whether the strategy wants an image, and its utility, 0 for NaN.

        "probabilistic" computes 0 times infinity for uncertain images near hundreds of labelled
        ones, where a further label has almost no effect.
        """
        candidate = chunk[0][position : position + 1]
        with np.errstate(all="ignore"):
            picks, utilities = query.query(candidate, return_utilities=True, **chunk[1])
        picks, utilities = np.asarray(picks), np.asarray(utilities, dtype=np.float64)
        problem = None
        if picks.dtype == bool or picks.tolist() not in ([], [0]):
            problem = f"picked {picks.tolist()} of one image; expected [0] to take it, or []"
        elif utilities.shape != (1,) or np.isinf(utilities).any():
            problem = f"returned the utilities {utilities.tolist()}; expected one finite number"
        if problem:
            raise SkalError(f"the stream strategy {self._strategy.name} {problem}")
        return bool(len(picks)), float(np.nan_to_num(utilities[0]))

    def _chunk(
        self, n: int, scores: Scores | None, labeled: Scores | None, y: ArrayLike | None
    ) -> _Chunk:
        rows = np.arange(n)[:, None]
        if self._needs == "nothing":
            return rows, {}
        from .scores import HeadClassifier, ScoredClassifier

        scores = self._checked(scores, n, "the images")
        if self._needs == "scores":
            return rows, {"clf": ScoredClassifier(scores), "fit_clf": False}
        labels = np.asarray([] if y is None else y)
        labeled = self._checked(labeled, len(labels), "the labelled images")
        if not len(labels):
            raise ParameterError(f"the stream strategy {self._strategy.name} needs labelled images")
        assert scores.embeddings is not None
        known = {"X": labeled.embeddings, "y": labels}
        return scores.embeddings, {"clf": HeadClassifier(scores), "fit_clf": False, **known}

    def _checked(self, scores: Scores | None, n: int, what: str) -> Scores:
        if scores is None or (self.needs_embeddings and scores.embeddings is None):
            parts = "scores with embeddings" if self.needs_embeddings else "scores"
            raise ParameterError(
                f"the stream strategy {self._strategy.name} needs {parts} of {what}"
            )
        if len(scores) != n:
            raise ParameterError(f"got {len(scores)} scores of {what}; expected {n}")
        read = [scores.proba]
        if self.needs_embeddings and scores.embeddings is not None:
            read.append(scores.embeddings)
        if not all(np.isfinite(part).all() for part in read):
            raise SkalError(f"the scores of {what} are NaN or infinite: {DIVERGED}")
        return scores

    def _try(self, query: Any, n_classes: int) -> None:
        scores = None
        if self.needs_model:
            from .scores import example_scores

            scores = example_scores(n_images=TRIAL_IMAGES, n_classes=max(n_classes, 2), n_samples=0)
        chunk = self._chunk(TRIAL_IMAGES, scores, scores, np.arange(TRIAL_IMAGES) % 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # made-up scores mean nothing to the user
            for position in range(TRIAL_IMAGES):
                self._update(query, *self._ask(query, chunk, position))


def _resolve(name: str, params: Mapping[str, Any], n_classes: int) -> Entry[type]:
    entry = STREAM_STRATEGIES.resolve(name, params)
    name, cls, facts = entry.name, entry.load(), dict(entry.facts)
    _check_class(name, cls)
    if "needs" not in facts:
        facts = {**_facts(cls), **facts}
    known = {*inspect.signature(cls).parameters, *_manager_parameters(facts)} - _SET_BY_SKAL
    for param in entry.params:
        if param not in known:
            raise UnknownNameError(f"parameter of {name}", param, known)
    most = facts.get("max_classes", n_classes)
    if n_classes > most:
        raise ParameterError(
            f"the stream strategy {name} is too slow for {n_classes} classes; expected at most "
            f"{most}"
        )
    return replace(entry, facts=facts)


def _check_class(name: str, cls: Any) -> None:
    from skactiveml.base import SingleAnnotatorStreamQueryStrategy
    from skactiveml.stream import CognitiveDualQueryStrategy, StreamDensityBasedAL

    if not (inspect.isclass(cls) and issubclass(cls, SingleAnnotatorStreamQueryStrategy)):
        raise ParameterError(
            f"{name!r} is not a stream strategy: got {cls!r}; expected a subclass of "
            "skactiveml.base.SingleAnnotatorStreamQueryStrategy"
        )
    if issubclass(cls, (CognitiveDualQueryStrategy, StreamDensityBasedAL)):
        raise ParameterError(
            f"the stream strategy {name} remembers images, which a run's journal does not store; "
            f"expected one of {', '.join(STREAM_STRATEGIES.names())}, or another that does not"
        )


def _facts(cls: type) -> dict[str, Any]:
    for entry in STREAM_STRATEGIES:
        if "needs" in entry.facts and entry.load() is cls:
            return dict(entry.facts)
    takes = inspect.signature(cls.query).parameters  # type: ignore[attr-defined]
    return {"needs": "scores" if "clf" in takes else "nothing"}
