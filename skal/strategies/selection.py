"""From the name of a strategy, and scores, to checked indices."""

from __future__ import annotations

import inspect
import logging
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.classifier import ParzenWindowClassifier, SklearnClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from ..datasets.base import MISSING_LABEL, Labels
from ..errors import ParameterError, SkalError, UnknownNameError
from ..memory import available_memory, bytes_needed, gib
from ..registry import import_object
from ..scoring import HeadClassifier, ScoredClassifier, Scores, example_scores
from .base import BatchStrategy
from .catalogue import SCIKIT_ACTIVEML, STRATEGIES

DEFAULT_SAMPLES = 20
USABLE = 0.8  # of the free memory
TRIAL_IMAGES, TRIAL_LABELS, TRIAL_PICKS = 40, 10, 2
TOO_SLOW_TO_TRY = ("Quire", "CostEmbeddingAL")
_SET_BY_SKAL = frozenset(("missing_label", "random_state", "classes"))

_NEEDS_BY_KEYWORD = {"clf": "scores", "estimator": "scores", "ensemble": "samples"}

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Strategy:
    """A query strategy, resolved and checked, that is ready to be asked in every round.

    Parameters
    ----------
    name : str
        Its registered name, or its import path.
    cls : type
        The class; a subclass of scikit-activeml's `SingleAnnotatorPoolQueryStrategy`.
    params : mapping
        Arguments of its constructor, without `missing_label` and `random_state`.
    given : mapping
        Those of them that the user chose.
    facts : mapping
        See `skal.strategies.STRATEGIES`.

    Raises
    ------
    ParameterError
        If `n_samples` among the arguments is not a number of samples.
    """

    name: str
    cls: type
    params: Mapping[str, Any]
    given: Mapping[str, Any]
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        n_samples = self.n_samples
        if self.needs in ("samples", "committee") and (
            not isinstance(n_samples, Integral) or n_samples < 2
        ):
            raise ParameterError(
                f"n_samples={n_samples!r} of the strategy {self.name}; expected a whole number, "
                "2 or more"
            )

    @property
    def needs(self) -> str:
        """What the strategy must be handed."""
        return str(self.facts["needs"])

    @property
    def needs_model(self) -> bool:
        """Whether a trained network is needed at all."""
        return self.needs != "nothing"

    @property
    def reads(self) -> tuple[str, ...] | None:
        """Which fields of the scores it reads, if it is a class that says so."""
        if not issubclass(self.cls, BatchStrategy):
            return None
        return self.cls(**self.params).reads

    @property
    def needs_embeddings(self) -> bool:
        """Whether the scores must have embeddings."""
        if self.reads is not None:
            return bool({"embeddings", "labeled"} & set(self.reads))
        return bool(self.facts.get("embeddings", self.needs_model))

    @property
    def needs_labeled(self) -> bool:
        """Whether labelled images must be scored too."""
        return self.reads is None or "labeled" in self.reads

    @property
    def needs_gradient_length(self) -> bool:
        """Whether the scores must have gradient lengths."""
        return "gradient_length" in (self.reads or ())

    @property
    def n_samples(self) -> int:
        """Monte-Carlo samples, or members of a committee, that the scores must have; 0 for none."""
        if self.needs not in ("samples", "committee"):
            return 0
        default = inspect.signature(self.cls).parameters.get("n_samples")
        fallback = default.default if default is not None else DEFAULT_SAMPLES
        inner = self.params.get("sample_predictions_dict")
        if isinstance(inner, Mapping):
            fallback = inner.get("n_samples", fallback)
        n_samples: int = self.params.get("n_samples", fallback)
        return n_samples

    @property
    def n_members(self) -> int:
        """Networks that must be trained for the scores' samples; 0 for none."""
        return self.n_samples if self.needs == "committee" else 0


def resolve_strategy(
    strategy: str | type | SingleAnnotatorPoolQueryStrategy,
    params: Mapping[str, Any] | None = None,
) -> Strategy:
    """Find a strategy and check its arguments, before anything is trained.

    Parameters
    ----------
    strategy : str, class or instance
        A registered name, an import path such as ``skactiveml.pool:Falcun``, a class, or an
        instance whose parameters are taken over.
    params : mapping, optional
        Arguments of the constructor.

    Returns
    -------
    Strategy

    Raises
    ------
    UnknownNameError
        If there is no strategy of that name.
    ParameterError
        If it is no strategy for classification, takes no such argument, or `n_samples` is not
        two or more.
    """
    given = dict(params or {})
    if isinstance(strategy, SingleAnnotatorPoolQueryStrategy):
        given, strategy = {**_changed_params(strategy), **given}, type(strategy)
    if isinstance(strategy, str) and ":" not in strategy:
        entry = STRATEGIES.entry(strategy)
        name, cls, facts = strategy, entry.load(), dict(entry.facts)
    else:
        cls = import_object(strategy) if isinstance(strategy, str) else strategy
        if not (inspect.isclass(cls) and issubclass(cls, SingleAnnotatorPoolQueryStrategy)):
            raise ParameterError(
                f"{strategy!r} is not a query strategy; expected a subclass of "
                "skactiveml.base.SingleAnnotatorPoolQueryStrategy"
            )
        name, facts = f"{cls.__module__}:{cls.__name__}", _facts(cls)
        name = strategy if isinstance(strategy, str) else name
    if facts.get("needs") is None:
        facts = {**_facts(cls), **facts}
    aliases = facts.get("aliases", {})
    given = {aliases.get(param, param): value for param, value in given.items()}
    _check_params(name, cls, given, aliases)
    defaults = facts.get("params", {})
    return Strategy(name, cls, {**defaults, **given}, given, facts)


def _changed_params(strategy: SingleAnnotatorPoolQueryStrategy) -> dict[str, Any]:
    """Return the parameters of an instance that are not its class's defaults."""
    defaults = inspect.signature(type(strategy)).parameters
    return {
        name: value
        for name, value in strategy.get_params(deep=False).items()
        if name not in _SET_BY_SKAL and value is not defaults[name].default
    }


def _facts(cls: type) -> dict[str, Any]:
    """Tell what a class needs: from the tables, else from the signature of its `query`."""
    for entry in STRATEGIES:
        if entry.target in (cls, f"{cls.__module__}:{cls.__name__}"):
            return dict(entry.facts)
    if cls.__module__.startswith("skactiveml.") and cls.__name__ in SCIKIT_ACTIVEML:
        return dict(SCIKIT_ACTIVEML[cls.__name__])
    keywords = inspect.signature(cls.query).parameters  # type: ignore[attr-defined]
    if {"reg", "query_kwargs", "X_eval"} & keywords.keys():
        raise ParameterError(
            f"{cls.__name__} cannot be used in this loop: its query takes "
            f"{', '.join(list(keywords)[3:])}"
        )
    for keyword, needs in _NEEDS_BY_KEYWORD.items():
        if keyword in keywords:
            return {"needs": needs, "model": keyword}
    return {"needs": "embeddings", "model": None}


def _check_params(
    name: str, cls: type, params: Mapping[str, Any], aliases: Mapping[str, str]
) -> None:
    known = set(inspect.signature(cls).parameters) - _SET_BY_SKAL | set(aliases)
    for param in params:
        if param not in known:
            raise UnknownNameError(f"parameter of {name}", param, known)


def select(
    strategy: Strategy,
    y: Labels,
    n: int,
    *,
    scores: Scores | None = None,
    n_classes: int,
    seed: int,
) -> NDArray[np.int64]:
    """Ask a strategy which images to label next.

    Parameters
    ----------
    strategy : Strategy
        From `resolve_strategy`.
    y : ndarray of int64, shape (n_pool,)
        Labels of the pool, -1 where there is none.
    n : int
        How many; all that is left when that is less.
    scores : Scores, optional
        Of the whole pool; needed unless the strategy needs nothing.
    n_classes : int
        Number of classes.
    seed : int
        A new one in every round, for the same gives the same draws.

    Returns
    -------
    ndarray of int64, shape (n,)
        Unlabelled, no index twice, in the order of the strategy's preference; or, if that is all
        that is left, in the order of the indices.

    Raises
    ------
    SkalError
        If the strategy fails, or breaks its promise: repeats an index, or picks a labelled image.
    """
    left = np.flatnonzero(y == MISSING_LABEL)
    if n >= len(left):
        if n > len(left):
            _log.warning("asked for %d images, but only %d are left: taking them", n, len(left))
        return left
    rows = _fitting_memory(strategy, y, n, scores, n_classes, seed)
    if rows is not None:
        y, scores = y[rows], None if scores is None else scores.take(rows)
    try:
        picks = _ask(strategy, y, n, scores, n_classes, seed)
    except (TypeError, ValueError) as error:
        if isinstance(error, SkalError):
            raise
        raise SkalError(f"the strategy {strategy.name} failed: {error}") from error
    picks = _checked(strategy, picks, y, n)
    return picks if rows is None else rows[picks]


def draw_rows(y: Labels, n_candidates: int, seed: int) -> NDArray[np.int64]:
    """Draw candidates, and add all that is labelled.

    Parameters
    ----------
    y : ndarray of int64, shape (n_pool,)
        Labels of the pool, -1 where there is none.
    n_candidates : int
        How many unlabelled images; all that there are when that is less.
    seed : int
        Seeds the draw.

    Returns
    -------
    ndarray of int64
        Sorted indices.
    """
    left = np.flatnonzero(y == MISSING_LABEL)
    if n_candidates < len(left):
        left = np.random.default_rng(seed).choice(left, n_candidates, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(y != MISSING_LABEL), left]))


def _fitting_memory(
    strategy: Strategy, y: Labels, n: int, scores: Scores | None, n_classes: int, seed: int
) -> NDArray[np.int64] | None:
    """Return rows that a strategy has the memory for; None for all."""
    terms = strategy.facts.get("memory", {})
    if not terms or scores is None:
        return None
    n_features = 0 if scores.embeddings is None else scores.embeddings.shape[1]
    sizes = {"b": n, "C": n_classes, "D": n_features, "T": strategy.n_samples}
    free = available_memory()

    def needed(n_rows: int) -> float:
        return bytes_needed(terms, {"n": n_rows, **sizes})

    if needed(len(y)) <= USABLE * free:
        return None
    known = int((y != MISSING_LABEL).sum())
    # the largest that fits, to two digits, so that the same is likely to be taken again
    most = bisect_right(range(len(y)), USABLE * free, key=needed) - 1 - known
    n_candidates = most - most % 10 ** max(len(str(max(most, 1))) - 2, 0)
    if n_candidates < n:
        raise SkalError(
            f"{strategy.name} needs {gib(needed(known + n))} of memory for the smallest choice, "
            f"{n} of {n}, and {gib(free)} are free; take another strategy or a smaller n_query"
        )
    _log.warning(
        "%s needs about %s of memory to choose among all %d images, and %s are free: choosing "
        "among %d of them, drawn at random (max_candidates=%d fixes that number)",
        strategy.name,
        gib(needed(len(y))),
        len(y) - known,
        gib(free),
        n_candidates,
        n_candidates,
    )
    return draw_rows(y, n_candidates, seed)


def check_strategy_works(strategy: Strategy, n_classes: int) -> None:
    """Ask a strategy once for a small batch of made-up scores, before anything is trained.

    Nothing is done if no parameter was chosen, which alone can be wrong, nor for strategies that
    bring their own model, or are slow.

    Parameters
    ----------
    strategy : Strategy
        From `resolve_strategy`.
    n_classes : int
        Number of classes; parameters such as a cost matrix go by it.

    Raises
    ------
    ParameterError
        If it raises a TypeError or a ValueError.
    """
    untried = strategy.needs == "own model" or strategy.cls.__name__ in TOO_SLOW_TO_TRY
    if untried or not strategy.given:
        return
    n_classes = max(n_classes, 2)
    y = np.full(TRIAL_IMAGES, MISSING_LABEL, dtype=np.int64)
    y[:TRIAL_LABELS] = np.arange(TRIAL_LABELS) % n_classes
    y.flags.writeable = False
    scores = example_scores(
        n_images=TRIAL_IMAGES, n_classes=n_classes, n_samples=strategy.n_samples
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of made-up scores, which mean nothing to the user
            _ask(strategy, y, TRIAL_PICKS, scores, n_classes, seed=0)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"the strategy {strategy.name} does not work with these parameters: {error}"
        ) from error


def _ask(
    strategy: Strategy, y: Labels, n: int, scores: Scores | None, n_classes: int, seed: int
) -> ArrayLike:
    """Make the strategy and return what it answers, unchecked."""
    given = _INPUTS[strategy.needs](strategy, scores, n_classes)
    X = np.arange(len(y))[:, None] if given.X is None else given.X
    query = strategy.cls(
        **_seeded(strategy, seed), **given.init, missing_label=MISSING_LABEL, random_state=seed
    )
    order = np.arange(len(y))
    if strategy.facts.get("shuffled"):
        order = np.random.default_rng(seed).permutation(order)
        X, y = X[order], y[order]
    with warnings.catch_warnings():
        # where embeddings coincide, clusters stay empty: that is no news to the user
        warnings.simplefilter("ignore", ConvergenceWarning)
        # while nothing is labelled, there is nothing to tell the pool apart from
        warnings.filterwarnings("ignore", "(?s).*could not be fitted", module="skactiveml")
        batch = _BATCHES[strategy.facts.get("batch", "whole")]
        picks = np.asarray(batch(partial(query.query, **given.query), X, y, int(n), seed))
    return order[picks] if strategy.facts.get("shuffled") else picks


Query = Callable[..., Any]


def _whole(query: Query, X: NDArray[Any], y: Labels, n: int, seed: int) -> ArrayLike:
    picks: ArrayLike = query(X, y, batch_size=n)
    return picks


def _ranked(query: Query, X: NDArray[Any], y: Labels, n: int, seed: int) -> ArrayLike:
    """Take the highest of the utilities of one query; ties fall at random."""
    _, utilities = query(X, y, batch_size=1, return_utilities=True)
    ties = np.random.default_rng(seed).random(len(y))
    # numpy sorts nan, which labelled images have, last
    return np.lexsort((ties, -utilities[0]))[:n]


def _traced(query: Query, X: NDArray[Any], y: Labels, n: int, seed: int) -> ArrayLike:
    """Read the picks from the utilities, where those of a pick become nan.

    BatchBALD answers with the highest utility of each row, which on ties is not the image that it
    went on with, and may be one that it has picked.
    """
    last, utilities = query(X, y, batch_size=n, return_utilities=True)
    is_gone = np.isnan(utilities)
    picks = [np.flatnonzero(new)[0] for new in is_gone[1:] & ~is_gone[:-1]]
    return np.array([*picks, last[-1]])


_BATCHES: Mapping[str, Callable[[Query, NDArray[Any], Labels, int, int], ArrayLike]] = {
    "whole": _whole,
    "ranked": _ranked,
    "traced": _traced,
}


def _seeded(strategy: Strategy, seed: int) -> dict[str, Any]:
    """Return the arguments, with a seed for the clustering that some strategies do inside.

    scikit-activeml passes its own `random_state` on to none of them, so that they would draw from
    numpy's global generator.
    """
    params = dict(strategy.params)
    if "cluster_algo_dict" in inspect.signature(strategy.cls).parameters:
        params["cluster_algo_dict"] = {
            "random_state": seed,
            **(params.get("cluster_algo_dict") or {}),
        }
    return params


def _checked(strategy: Strategy, picks: ArrayLike, y: Labels, n: int) -> NDArray[np.int64]:
    indices = np.asarray(picks)
    problem = None
    if indices.shape != (n,) or not np.issubdtype(indices.dtype, np.integer):
        problem = f"returned {indices.dtype} of shape {indices.shape}; expected {n} integers"
    elif indices.min() < 0 or indices.max() >= len(y):
        problem = f"picked an index that is not in 0 to {len(y) - 1}"
    elif len(np.unique(indices)) != n:
        problem = f"picked {n - len(np.unique(indices))} of {n} images more than once"
    elif (y[indices] != MISSING_LABEL).any():
        problem = "picked an image that is labelled already"
    if problem:
        raise SkalError(f"the strategy {strategy.name} {problem}")
    return indices.astype(np.int64)


@dataclass(frozen=True)
class _Given:
    """What a strategy is handed: X (None for an index column), and keywords."""

    X: NDArray[Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    init: Mapping[str, Any] = field(default_factory=dict)


def _model(strategy: Strategy, model: Any, fit: bool) -> dict[str, Any]:
    keyword = strategy.facts.get("model", "clf")
    if keyword is None:
        return {}
    takes = inspect.signature(strategy.cls.query).parameters  # type: ignore[attr-defined]
    switch = {f"fit_{keyword}": fit} if f"fit_{keyword}" in takes else {}
    return {keyword: model, **switch}


def _scored(strategy: Strategy, scores: Scores | None, n_classes: int) -> _Given:
    return _Given(query=_model(strategy, ScoredClassifier(_wanted(strategy, scores)), fit=False))


def _embedded(strategy: Strategy, scores: Scores | None, n_classes: int) -> _Given:
    if strategy.reads is not None:  # skal's own ask a classifier for them
        return _scored(strategy, scores, n_classes)
    takes = inspect.signature(strategy.cls).parameters
    known = {"classes": np.arange(n_classes), "n_classes": max(n_classes, 2)}
    init = {k: v for k, v in known.items() if k in takes and k not in strategy.params}
    embeddings = _wanted(strategy, scores).embeddings
    if strategy.facts.get("unit_length"):
        embeddings = normalize(embeddings)
    return _Given(embeddings, init=init)


def _headed(strategy: Strategy, scores: Scores | None, n_classes: int) -> _Given:
    wanted = _wanted(strategy, scores)
    return _Given(wanted.embeddings, _model(strategy, HeadClassifier(wanted), fit=False))


def _own_model(strategy: Strategy, scores: Scores | None, n_classes: int) -> _Given:
    learner = strategy.facts.get("learner")
    cls = import_object(learner) if learner else ParzenWindowClassifier
    model = cls(classes=np.arange(n_classes), missing_label=MISSING_LABEL, random_state=0)
    return _Given(_wanted(strategy, scores).embeddings, _model(strategy, model, fit=True))


def linear_discriminator(**options: Any) -> SklearnClassifier:
    """Return logistic regression on standardised features, as a classifier of scikit-activeml."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return SklearnClassifier(model, **options)


def _wanted(strategy: Strategy, scores: Scores | None) -> Scores:
    if scores is None:
        raise ParameterError(f"the strategy {strategy.name} needs scores of the pool")
    return scores


_INPUTS: Mapping[str, Callable[[Strategy, Scores | None, int], _Given]] = {
    "nothing": lambda strategy, scores, n_classes: _Given(),
    "scores": _scored,
    "samples": _scored,
    "committee": _scored,
    "embeddings": _embedded,
    "head": _headed,
    "own model": _own_model,
}
