"""From the name of a strategy, and scores, to checked indices."""

from __future__ import annotations

import inspect
import logging
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
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

from ..core.errors import ParameterError, SkalError, UnknownNameError
from ..core.memory import available_memory, bytes_needed, gib
from ..core.registry import import_object
from ..datasets.base import MISSING_LABEL, Labels
from .base import BatchStrategy
from .catalogue import SCIKIT_ACTIVEML, STRATEGIES, stands_for
from .scores import HeadClassifier, ScoredClassifier, Scores, example_scores

USABLE = 0.8  # of the free memory
UNASKED = 2**26  # bytes that are taken without asking whether they are free
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
        If `n_samples` among the arguments is not a number of samples, or a class of skal's kind
        cannot be made with these arguments.
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
        """What the strategy must be handed: what it reads decides, of a class that says so."""
        needs = str(self.facts["needs"])
        if self.reads is None:
            return needs
        if not self.reads:
            return "nothing"
        if "mc_proba" in self.reads:
            return "committee" if needs == "committee" else "samples"
        return "embeddings" if set(self.reads) <= {"embeddings", "labeled"} else "scores"

    @property
    def needs_model(self) -> bool:
        """Whether a trained network is needed at all."""
        return self.needs != "nothing"

    @cached_property
    def reads(self) -> tuple[str, ...] | None:
        """Which fields of the scores it reads, if it is a class that says so."""
        if not issubclass(self.cls, BatchStrategy):
            return None
        try:
            return tuple(self.cls(**self.params).reads)
        except (TypeError, ValueError) as error:
            raise _not_with_these(self.name, error) from error

    @property
    def needs_embeddings(self) -> bool:
        """Whether the scores must have embeddings."""
        if self.reads is not None:
            return bool({"embeddings", "labeled"} & set(self.reads))
        return bool(self.facts.get("embeddings", self.needs_model))

    @property
    def needs_labeled(self) -> bool:
        """Whether labelled images must be scored too, for all that is known."""
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
        fallback = getattr(self.cls, "n_samples", BatchStrategy.n_samples)
        fallback = fallback if default is None else default.default
        inner = self.params.get("sample_predictions_dict")
        if isinstance(inner, Mapping):
            fallback = inner.get("n_samples", fallback)
        n_samples: int = self.params.get("n_samples", fallback)
        return n_samples

    @property
    def n_members(self) -> int:
        """Networks that must be trained for the scores' samples; 0 for none."""
        return self.n_samples if self.needs == "committee" else 0

    def memory(self, *, scored: bool) -> dict[str, float]:
        """Return the bytes that a choice takes, by product of sizes; see `STRATEGIES`.

        Parameters
        ----------
        scored : bool
            Whether the scores are in memory already. Of what it reads a strategy has a copy.
        """
        terms = dict(self.facts.get("memory", {}))
        parts = {"nC": True, "nD": self.needs_embeddings, "nTC": self.n_samples > 0}
        for letters in (letters for letters, needed in parts.items() if needed):
            terms[letters] = terms.get(letters, 0) + (4 if scored else 8)
        if self.n_members and not scored:
            terms["nTC"] += 4  # the members' answers, before they are put together
        return terms


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
        entry = STRATEGIES.entry(stands_for(strategy))
        name, cls, facts = entry.name, entry.load(), entry.facts
    else:
        cls = import_object(strategy) if isinstance(strategy, str) else strategy
        if not (inspect.isclass(cls) and issubclass(cls, SingleAnnotatorPoolQueryStrategy)):
            raise ParameterError(
                f"{strategy!r} is not a query strategy; expected a subclass of "
                "skactiveml.base.SingleAnnotatorPoolQueryStrategy"
            )
        name = strategy if isinstance(strategy, str) else f"{cls.__module__}:{cls.__name__}"
        facts = _known_facts(cls)
    if "needs" not in facts:
        facts = {**_derived_facts(cls), **facts}
    aliases = facts.get("aliases", {})
    _check_params(name, cls, given, facts)
    given = {p: value for p, value in given.items() if value is not None or not _is_none(cls, p)}
    # an argument of its own first, then the entries of arguments that are tables
    given = {_plain_name(param, aliases): value for param, value in given.items()}
    params = {**facts.get("params", {}), **given}
    for param in params.keys() & aliases.keys():
        table, _, entry_name = aliases[param].partition(".")
        inner = params.get(table)
        inner = inner if isinstance(inner, Mapping) else {}
        params[table] = {**inner, entry_name: params.pop(param)}
    return Strategy(name, cls, params, given, facts)


def _is_none(cls: type, param: str) -> bool:
    """Tell whether an argument is None by default, so that to give None is to give nothing."""
    takes = inspect.signature(cls).parameters
    return param in takes and takes[param].default is None


def _plain_name(param: str, aliases: Mapping[str, str]) -> str:
    """Return the argument that a name stands for; an entry of a table keeps its short name."""
    target = aliases.get(param, param)
    return param if "." in target else target


def _changed_params(strategy: SingleAnnotatorPoolQueryStrategy) -> dict[str, Any]:
    """Return the parameters of an instance that are not its class's defaults."""
    defaults = inspect.signature(type(strategy)).parameters
    return {
        name: value
        for name, value in strategy.get_params(deep=False).items()
        if name not in _SET_BY_SKAL and value is not defaults[name].default
    }


def _known_facts(cls: type) -> Mapping[str, Any]:
    """Return what the tables say about a class."""
    for entry in STRATEGIES:
        if entry.target in (cls, f"{cls.__module__}:{cls.__name__}"):
            return entry.facts
    if cls.__module__.startswith("skactiveml."):
        return SCIKIT_ACTIVEML.get(cls.__name__, {})
    return {}


def _derived_facts(cls: type) -> dict[str, Any]:
    """Tell from the signature of its `query` what a class needs."""
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
    name: str, cls: type, params: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    takes = inspect.signature(cls).parameters
    known = set(takes) - _SET_BY_SKAL | set(facts.get("aliases", {}))
    for param, value in params.items():
        if param not in known:
            raise UnknownNameError(f"parameter of {name}", param, known)
        default = takes[param].default if param in takes else None
        default = facts.get("params", {}).get(param, default)
        # to Python, and so to many a class's own check, True is the number 1
        if isinstance(value, bool) and type(default) in (int, float):
            raise ParameterError(f"{param}={value} of the strategy {name}; expected a number")


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
    rows = None
    if scores is not None:
        n_candidates = affordable(
            strategy,
            len(left),
            len(y) - len(left),
            n,
            n_classes=n_classes,
            n_features=0 if scores.embeddings is None else scores.embeddings.shape[1],
            device=scores.device,
            scored=True,
        )
        if n_candidates < len(left):
            rows = draw_rows(y, n_candidates, seed, labeled=strategy.needs_labeled)
            y, scores = y[rows], scores.take(rows)
    try:
        picks = _ask(strategy, y, n, scores, n_classes, seed)
    except (TypeError, ValueError) as error:
        if isinstance(error, SkalError):
            raise
        raise SkalError(f"the strategy {strategy.name} failed: {error}") from error
    picks = _checked(strategy, picks, y, n)
    return picks if rows is None else rows[picks]


def draw_rows(
    y: Labels, n_candidates: int, seed: int, *, labeled: bool = True
) -> NDArray[np.int64]:
    """Draw candidates, and add all that is labelled.

    Parameters
    ----------
    y : ndarray of int64, shape (n_pool,)
        Labels of the pool, -1 where there is none.
    n_candidates : int
        How many unlabelled images; all that there are when that is less.
    seed : int
        Seeds the draw.
    labeled : bool, default=True
        Whether to add what is labelled.

    Returns
    -------
    ndarray of int64
        Sorted indices.
    """
    left = np.flatnonzero(y == MISSING_LABEL)
    if n_candidates < len(left):
        left = np.random.default_rng(seed).choice(left, n_candidates, replace=False)
    known = np.flatnonzero(y != MISSING_LABEL)
    return np.sort(np.concatenate([known, left]) if labeled else left)


def affordable(
    strategy: Strategy,
    n_candidates: int,
    n_labeled: int,
    n: int,
    *,
    n_classes: int,
    n_features: int,
    device: str = "cpu",
    scored: bool = False,
) -> int:
    """Tell among how many images a strategy can choose in the memory that is free.

    Parameters
    ----------
    strategy : Strategy
        From `resolve_strategy`.
    n_candidates : int
        How many there are without a label.
    n_labeled : int
        And with one, which takes memory if the strategy reads it.
    n : int
        How many are to be picked, at most all candidates.
    n_classes, n_features : int
        Of the scores.
    device : str, default="cpu"
        Where skal's own strategies compute.
    scored : bool, default=False
        Whether the scores are in memory already.

    Returns
    -------
    int
        All candidates; or, with a notice, fewer.

    Raises
    ------
    SkalError
        If there is not even memory for n.
    """
    if not strategy.needs_model:
        return n_candidates
    terms = strategy.memory(scored=scored)
    sizes = {"b": n, "C": n_classes, "D": n_features, "T": strategy.n_samples}
    known = n_labeled if strategy.needs_labeled else 0
    free = available_memory(device=device if strategy.reads is not None else "cpu")
    usable = max(USABLE * free, UNASKED)

    def needed(n_rows: int) -> float:
        return bytes_needed(terms, {"n": n_rows, **sizes})

    if needed(known + n_candidates) <= usable:
        return n_candidates
    # the largest that fits, to two digits, so that the same is likely to be taken again
    most = bisect_right(range(known + n_candidates), usable, key=needed) - 1 - known
    fitting = most - most % 10 ** max(len(str(max(most, 1))) - 2, 0)
    if fitting < n:
        raise SkalError(
            f"{strategy.name} needs {gib(needed(known + n))} of memory for the smallest choice, "
            f"{n} of {n}, and {gib(free)} are free; take another strategy or a smaller n_query"
        )
    _log.warning(
        "%s needs about %s of memory to choose among %d images, and %s are free: choosing among "
        "%d of them, drawn at random (max_candidates=%d fixes that number)",
        strategy.name,
        gib(needed(known + n_candidates)),
        n_candidates,
        gib(free),
        fitting,
        fitting,
    )
    return int(fitting)


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
    scores = made_up_scores(strategy, n_images=TRIAL_IMAGES, n_classes=n_classes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of made-up scores, which mean nothing to the user
            _ask(strategy, y, TRIAL_PICKS, scores, n_classes, seed=0)
    except (TypeError, ValueError) as error:
        raise _not_with_these(strategy.name, error) from error


def _not_with_these(name: str, error: Exception) -> ParameterError:
    return ParameterError(f"the strategy {name} does not work with these parameters: {error}")


def made_up_scores(strategy: Strategy, ties: bool = False, **sizes: int) -> Scores:
    """Make scores of no real images that hold what `skal.run` would hand over, and no more.

    Parameters
    ----------
    strategy : Strategy
        Whose needs count.
    ties, **sizes
        Of `skal.strategies.scores.example_scores`.

    Returns
    -------
    Scores
    """
    scores = example_scores(ties, n_samples=strategy.n_samples, **sizes)
    return replace(
        scores,
        embeddings=scores.embeddings if strategy.needs_embeddings else None,
        gradient_length=scores.gradient_length if strategy.needs_gradient_length else None,
    )


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
    embeddings = _wanted(strategy, scores).embeddings
    assert embeddings is not None
    X = embeddings.astype(strategy.facts.get("dtype", np.float32), copy=False)
    return _Given(X, _model(strategy, model, fit=True))


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
