"""`Plan`: resolved settings, data, network and strategy of a run, checked before it starts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

from ..core.errors import ParameterError
from ..core.registry import parse_spec
from ..core.seeding import derive_seed
from ..datasets import MISSING_LABEL, ImageDataset
from ..datasets.oracles import AnyOracle, Oracle, make_oracle
from ..models.backbone import Backbone
from ..models.classifier import ImageClassifier
from ..strategies.catalogue import stands_for
from ..strategies.resolve import Strategy, resolve_strategy
from ..strategies.trial import check_strategy_works
from .acquisition import Acquisition, PoolAcquisition
from .config import SETTINGS, RunConfig
from .preparation import check_network, check_settings, resolve_settings, without_duplicates
from .start import describe, log_pass
from .streaming import StreamAcquisition, stream_strategy_name

AUTO = "auto"
_log = logging.getLogger("skal")

QueryStrategy: TypeAlias = str | type | SingleAnnotatorPoolQueryStrategy

TRAINING = tuple(name for name in inspect.signature(ImageClassifier).parameters if name in SETTINGS)
"""Settings that are also parameters of `ImageClassifier`."""


@dataclass(frozen=True)
class Chooser:
    """The requested strategy: `name` in the settings, all arguments as `given`, the `plain` ones
    that a settings file can hold, and the `strategy` itself, None in a stream. `is_auto` leaves the
    decision to skal.
    """

    name: str
    given: Mapping[str, Any]
    plain: Mapping[str, Any]
    strategy: Strategy | None
    is_auto: bool = False

    @classmethod
    def of(cls, strategy: QueryStrategy, params: Mapping[str, Any] | None, stream: bool) -> Chooser:
        """Find a strategy; raise a `UsageError` if it is unknown or does not take the arguments."""
        # plain values from the start, so that a resumed run passes exactly the same
        given = dict(params or {})
        plain = plain_params(given)[0]
        if stream:
            return cls(stream_strategy_name(strategy), given | plain, plain, None)
        found = resolve_strategy(strategy, given | plain)
        is_auto = isinstance(strategy, str) and parse_spec(strategy)[0] == AUTO
        return cls(found.name, found.given, plain_params(found.given)[0], found, is_auto)

    def decided(self, frozen: bool) -> Chooser:
        """Return the strategy that "auto" stands for, which depends on a frozen network or not."""
        if not self.is_auto:
            return self
        return Chooser.of(stands_for(AUTO, frozen), self.given, False)

    def acquisition(self, config: RunConfig, n_classes: int) -> Acquisition:
        """Return the strategy's acquisition, after a trial query."""
        if self.strategy is None:
            return StreamAcquisition(config, self.given, n_classes)
        check_strategy_works(self.strategy, n_classes)
        return PoolAcquisition(config, self.strategy)


@dataclass(frozen=True)
class Plan:
    """A run before it starts: the resolved `config`, `data` before image noise is added, the
    unfitted `template` of all networks, the initial `acquisition`, the parameters `own` of a given
    classifier that are not settings, and the `backbone` of a frozen network.
    """

    config: RunConfig
    data: ImageDataset
    chooser: Chooser
    template: ImageClassifier
    acquisition: Acquisition
    own: Mapping[str, Any] = field(default_factory=dict)
    backbone: Backbone | None = None

    @classmethod
    def make(
        cls,
        config: RunConfig,
        data: ImageDataset,
        chooser: Chooser,
        classifier: ImageClassifier | None = None,
    ) -> Plan:
        """Resolve the settings, and raise a `SkalError` if images, network or strategy do not work
        alone or together, before anything is trained or written.
        """
        if not len(data.X):
            data = with_changes(
                data,
                X=data.X_unlabeled,
                y=np.full(len(data.X_unlabeled), MISSING_LABEL, dtype=np.int64),
                paths=data.paths_unlabeled,
                X_unlabeled=data.X,
                paths_unlabeled=(),
            )
        data = without_duplicates(config, data)
        named = config.model is not None
        config = resolve_settings(config, data)
        if not named:
            _log.info(describe(config))
            log_pass(config, data)
        template = make_classifier(config, data)
        own: dict[str, Any] = {}
        if classifier is not None:
            _check_fits(classifier, data)
            own = _differing(classifier, template)
            template = classifier
        backbone = check_network(template, data, config.cache)
        if config.pretrain != "none":  # its weights do not exist yet
            backbone = None
        chooser = chooser.decided(template.freeze)
        config = config.replace(strategy=chooser.name)
        acquisition = chooser.acquisition(config, len(data.classes))
        return cls(config, data, chooser, template, acquisition, own, backbone)

    def with_kept(self, facts: Mapping[str, Any]) -> Plan:
        """Return the plan with the classifier parameters kept in a record. Raise a `ParameterError`
        if the classifier must be given again, or a different one was given.
        """
        kept, not_kept = facts.get("classifier", {}), facts.get("classifier_not_kept", [])
        if not self.own and not not_kept:
            return with_changes(self, template=self.template.variant(**kept))
        if plain_params(self.own) != (kept, not_kept):
            raise ParameterError(
                "the record was made with a classifier that sets "
                f"{', '.join([*kept, *not_kept]) or 'nothing'} besides the settings; pass it "
                "again: skal.ActiveLearner.open(folder, classifier=...)"
            )
        return self

    def oracle(self, oracle: AnyOracle | None = None) -> Oracle:
        """Return an oracle, by default the one of the settings; see `make_oracle`."""
        return make_oracle(
            self.config.oracle if oracle is None else oracle,
            self.data,
            derive_seed(self.config.seed, "oracle"),
            label_noise=float(self.config.label_noise),
            label_noise_kind=self.config.label_noise_kind,
        )


def settle(
    data: ImageDataset | str | Path, strategy: QueryStrategy, settings: Mapping[str, Any]
) -> tuple[RunConfig, Chooser]:
    """Make the settings; raise a `UsageError` for mistakes that show without loading the data."""
    settings = dict(settings)
    params = settings.pop("strategy_params", None)
    stream = SETTINGS["stream"].check(settings.get("stream", SETTINGS["stream"].default))
    chooser = Chooser.of(strategy, params, stream != "off")
    config = RunConfig(
        **settings,
        dataset=data.name if isinstance(data, ImageDataset) else str(data),
        strategy=chooser.name,
        strategy_params=chooser.plain,
    )
    check_settings(config)
    return config, chooser


def make_classifier(config: RunConfig, data: ImageDataset) -> ImageClassifier:
    """Return an unfitted classifier from resolved settings."""
    return ImageClassifier(
        **{name: getattr(config, name) for name in TRAINING},
        classes=np.arange(len(data.classes)),
        augmentation=data.augmentation,
    )


def _check_fits(classifier: ImageClassifier, data: ImageDataset) -> None:
    """Raise a `ParameterError` unless classifier and dataset use the same class ids."""
    expected = list(range(len(data.classes)))
    got = None if classifier.classes is None else np.asarray(classifier.classes).tolist()
    if got != expected:
        raise ParameterError(
            f"the classifier has classes={got}; expected range({len(expected)}), the ids of "
            f"{', '.join(data.classes[:5])}{' ...' if len(expected) > 5 else ''}"
        )
    if classifier.missing_label != MISSING_LABEL:
        raise ParameterError(
            f"the classifier has missing_label={classifier.missing_label}; expected {MISSING_LABEL}"
        )


def _differing(classifier: ImageClassifier, template: ImageClassifier) -> dict[str, Any]:
    """Return the classifier's parameters that the settings do not hold, except its seed."""
    ours, theirs = classifier.get_params(deep=False), template.get_params(deep=False)
    unsaid = {
        name: ours[name]
        for name in ours.keys() - {*TRAINING, "classes", "random_state"}
        if repr(ours[name]) != repr(theirs[name])
    }
    if isinstance(classifier.weights, Mapping):
        unsaid["weights"] = classifier.weights
    return dict(sorted(unsaid.items()))


def with_classifier_settings(
    classifier: ImageClassifier, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Add a classifier's parameters to the settings; raise a `ParameterError` if both have one."""
    if not isinstance(classifier, ImageClassifier):
        raise ParameterError(
            f"classifier: got {type(classifier).__name__}; expected a skal.ImageClassifier; pass "
            "the name of a network as model="
        )
    params, defaults = classifier.get_params(deep=False), inspect.signature(ImageClassifier)
    theirs = {
        name: params[name]
        for name in TRAINING
        if isinstance(params[name], str | int | float | Path)
        and params[name] != defaults.parameters[name].default
    } | {"model": classifier.model}
    for name in theirs:
        if name in settings:
            raise ParameterError(f"{name}: set by the classifier already; leave it out")
    return {**theirs, **settings}


def plain_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that a TOML file can hold, and the names of all others."""
    plain, others = {}, []
    for name, value in params.items():
        try:
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
