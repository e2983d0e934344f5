"""Resolve a strategy by name, class or instance, and check its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from ..core.errors import ParameterError, UnknownNameError, blaming
from ..core.registry import Entry, Registry, parameters
from ..datasets.base import MISSING_LABEL
from .base import BatchStrategy
from .catalogue import NEEDS, SCIKIT_ACTIVEML, STRATEGIES
from .clustering import ManyMeans
from .scores import ScoreRequest

_SET_BY_SKAL = frozenset(("missing_label", "random_state", "classes"))
_NEEDS_BY_KEYWORD = {"clf": "scores", "estimator": "scores", "ensemble": "samples"}


@dataclass(frozen=True)
class Strategy:
    """A resolved and checked query strategy, from which each round makes an instance.

    `name` may be an import path; `params` are the constructor arguments without `missing_label` and
    `random_state`; `given` are those that the user set; `facts` are as in `STRATEGIES`. Raises
    ParameterError if the need is unknown, `n_samples` is below 2, or a `BatchStrategy` does not
    accept the arguments.
    """

    name: str
    cls: type
    params: Mapping[str, Any]
    given: Mapping[str, Any]
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.facts["needs"] not in NEEDS:
            raise ParameterError(
                f"{self.title} needs {self.facts['needs']!r}; expected one of {', '.join(NEEDS)}"
            )
        n_samples = self.n_samples
        if self.needs in ("samples", "committee") and (
            not isinstance(n_samples, Integral) or n_samples < 2
        ):
            raise ParameterError(
                f"n_samples={n_samples!r} of the strategy {self.name}; expected a whole number, "
                "2 or more"
            )

    @cached_property
    def is_foreign(self) -> bool:
        """Whether the class is neither skal's nor scikit-activeml's."""
        return not self.cls.__module__.startswith(("skal.", "skactiveml."))

    @cached_property
    def title(self) -> str:
        path = f"{self.cls.__module__}:{self.cls.__qualname__}"
        return f"the strategy {self.name}" + (
            f" ({path})" if self.is_foreign and path != self.name else ""
        )

    def make(self, seed: int, **arguments: Any) -> Any:
        """Make an instance, and set `missing_label` and `random_state` even if not arguments.

        Some of scikit-activeml's strategies do not seed their clustering, so a seed is passed. The
        clustering is `ManyMeans`, which equals their k-means unless there are many images.
        """
        ours = {"missing_label": MISSING_LABEL, "random_state": seed}
        takes = parameters(self.cls)
        taken = {name: value for name, value in ours.items() if takes is None or name in takes}
        params = {**self.params, **arguments}
        if "cluster_algo_dict" in inspect.signature(self.cls).parameters:
            params.setdefault("cluster_algo", ManyMeans)
            clustering = params.get("cluster_algo_dict") or {}
            params["cluster_algo_dict"] = {"random_state": seed, **clustering}
        instance = self.cls(**params, **taken)
        for name in ours.keys() - taken.keys():
            setattr(instance, name, ours[name])
        return instance

    @cached_property
    def needs(self) -> str:
        """The fact `needs`, or for a `BatchStrategy` what follows from `reads`."""
        needs = str(self.facts["needs"])
        if self.reads is None:
            return needs
        if not self.reads:
            return "nothing"
        if "mc_proba" in self.reads:
            return "committee" if needs == "committee" else "samples"
        return "embeddings" if set(self.reads) <= {"embeddings", "labeled"} else "scores"

    @cached_property
    def needs_model(self) -> bool:
        return self.needs != "nothing"

    @cached_property
    def reads(self) -> tuple[str, ...] | None:
        """Fields of `Scores` that it reads; None if it is not a `BatchStrategy`."""
        if not issubclass(self.cls, BatchStrategy):
            return None
        with blaming(f"{self.title} does not work with these parameters", ParameterError):
            return tuple(self.make(0).reads)

    @cached_property
    def request(self) -> ScoreRequest:
        """What to compute for the images that it sees."""
        embeddings = bool(self.facts.get("embeddings", self.needs_model))
        if self.reads is not None:
            embeddings = bool({"embeddings", "labeled"} & set(self.reads))
        lengths = "gradient_length" in (self.reads or ())
        return ScoreRequest(embeddings, self.n_samples, lengths)

    @cached_property
    def needs_labeled(self) -> bool:
        """Whether labelled images must be scored, too; True if unknown."""
        return self.reads is None or "labeled" in self.reads

    @cached_property
    def n_samples(self) -> int:
        """Number of dropout samples or committee members it needs; 0 if it reads none."""
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

    def memory(self, *, scored: bool) -> dict[str, float]:
        """Return the bytes needed for a query and its scores, in the form of the fact `memory`."""
        terms = dict(self.facts.get("memory", {}))
        parts = {"nC": True, "nD": self.request.embeddings, "nTC": self.n_samples > 0}
        for letters in (letters for letters, needed in parts.items() if needed):
            terms[letters] = terms.get(letters, 0) + (4 if scored else 8)
        if self.needs == "committee" and not scored:
            terms["nTC"] += 4  # the members' outputs before concatenation
        return terms


def resolve_strategy(
    strategy: str | type | SingleAnnotatorPoolQueryStrategy,
    params: Mapping[str, Any] | None = None,
    registry: Registry[type] = STRATEGIES,
) -> Strategy:
    """Resolve a strategy and check its arguments before anything is trained.

    Parameters
    ----------
    strategy : str, class or instance
        A name such as ``badge``, ``k-means?pick=farthest`` or ``skactiveml.pool:Falcun``, a class,
        or an instance whose parameters are used.
    params : mapping, optional
        Constructor arguments.
    registry : Registry, default=STRATEGIES
        Registry that resolves names.

    Returns
    -------
    Strategy

    Raises
    ------
    UnknownNameError
        If there is no strategy, or no parameter, of that name.
    ParameterError
        If it is not a query strategy for classification, an argument is not valid, or `n_samples`
        is below 2.
    """
    given = dict(params or {})
    if isinstance(strategy, SingleAnnotatorPoolQueryStrategy):
        given, strategy = {**_changed_params(strategy), **given}, type(strategy)
    entry = _entry(strategy, given, registry)
    name, cls, given = entry.name, entry.load(), dict(entry.params)
    if not (inspect.isclass(cls) and issubclass(cls, SingleAnnotatorPoolQueryStrategy)):
        raise ParameterError(
            f"{name!r} is not a query strategy; expected a subclass of "
            "skactiveml.base.SingleAnnotatorPoolQueryStrategy"
        )
    facts = entry.facts or _known_facts(cls)
    if "needs" not in facts:
        facts = {**_derived_facts(cls), **facts}
    aliases = facts.get("aliases", {})
    if given:
        _check_params(name, cls, given, facts)
    takes = inspect.signature(cls).parameters
    is_none = {param for param in takes if takes[param].default is None}
    # None where that is the default counts as not given
    given = {p: value for p, value in given.items() if value is not None or p not in is_none}
    # first aliases of whole arguments, then those of entries in dict arguments
    plain = {alias: name for alias, name in aliases.items() if "." not in name}
    given = {plain.get(param, param): value for param, value in given.items()}
    params = {**facts.get("params", {}), **given}
    for param in params.keys() & aliases.keys():
        table, _, entry_name = aliases[param].partition(".")
        inner = params.get(table)
        inner = inner if isinstance(inner, Mapping) else {}
        params[table] = {**inner, entry_name: params.pop(param)}
    return Strategy(name, cls, params, given, facts)


def _entry(strategy: str | type, given: Mapping[str, Any], registry: Registry[type]) -> Entry[type]:
    if not isinstance(strategy, str):
        path = f"{strategy.__module__}:{strategy.__name__}" if inspect.isclass(strategy) else ""
        return Entry(path or repr(strategy), strategy, {}, given)
    entry = registry.resolve(strategy, given)
    if "stands_for" in entry.facts:
        return STRATEGIES.resolve(str(entry.facts["stands_for"]), entry.params)
    return entry


def _changed_params(strategy: SingleAnnotatorPoolQueryStrategy) -> dict[str, Any]:
    defaults = inspect.signature(type(strategy)).parameters
    return {
        name: value
        for name, value in strategy.get_params(deep=False).items()
        if name not in _SET_BY_SKAL and value is not defaults[name].default
    }


def _known_facts(cls: type) -> Mapping[str, Any]:
    for entry in STRATEGIES:
        if entry.target in (cls, f"{cls.__module__}:{cls.__name__}"):
            return entry.facts
    if cls.__module__.startswith("skactiveml."):
        return SCIKIT_ACTIVEML.get(cls.__name__, {})
    return {}


def _derived_facts(cls: type) -> dict[str, Any]:
    """Derive a class's needs from the signature of its `query`."""
    keywords = inspect.signature(cls.query).parameters  # type: ignore[attr-defined]
    if {"reg", "query_kwargs", "X_eval"} & keywords.keys():
        raise ParameterError(
            f"{cls.__name__} cannot be used here, since its `query` needs "
            f"{', '.join(list(keywords)[3:])}; expected a strategy for classification"
        )
    for keyword, needs in _NEEDS_BY_KEYWORD.items():
        if keyword in keywords:
            return {"needs": needs, "model": keyword}
    return {"needs": "embeddings", "model": None}


def _check_params(
    name: str, cls: type, params: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    takes, aliases = parameters(cls), facts.get("aliases", {})
    for param, value in params.items():
        if param in _SET_BY_SKAL or (takes is not None and param not in {*takes, *aliases}):
            known = {*(takes or ()), *aliases} - _SET_BY_SKAL
            raise UnknownNameError(f"parameter of {name}", param, known)
        default = takes[param].default if takes and param in takes else None
        default = facts.get("params", {}).get(param, default)
        # True is an int, so many classes' own checks accept it
        if isinstance(value, bool) and type(default) in (int, float):
            raise ParameterError(f"{param}={value} of the strategy {name}; expected a number")
