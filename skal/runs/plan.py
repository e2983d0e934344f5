"""What a run will do: settings resolved, images, network and strategy, all checked beforehand."""

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
from .start import describe, tell_pass
from .streaming import StreamAcquisition, stream_strategy_name

AUTO = "auto"
_log = logging.getLogger("skal")

QueryStrategy: TypeAlias = str | type | SingleAnnotatorPoolQueryStrategy

TRAINING = tuple(name for name in inspect.signature(ImageClassifier).parameters if name in SETTINGS)
"""The settings that are parameters of `ImageClassifier`, too."""


@dataclass(frozen=True)
class Chooser:
    """Which strategy was asked for: its name in the settings, its arguments, those of them that a
    settings file can hold, and itself; None of a stream. `is_auto` if skal is to decide.
    """

    name: str
    given: Mapping[str, Any]
    plain: Mapping[str, Any]
    strategy: Strategy | None
    is_auto: bool = False

    @classmethod
    def of(cls, strategy: QueryStrategy, params: Mapping[str, Any] | None, stream: bool) -> Chooser:
        """Find the strategy; a `UsageError` is raised if there is none with such arguments."""
        # plain from the start, so that a run that is resumed is given the very same
        given = dict(params or {})
        plain = plain_params(given)[0]
        if stream:
            return cls(stream_strategy_name(strategy), given | plain, plain, None)
        found = resolve_strategy(strategy, given | plain)
        is_auto = isinstance(strategy, str) and parse_spec(strategy)[0] == AUTO
        return cls(found.name, found.given, plain_params(found.given)[0], found, is_auto)

    def decided(self, frozen: bool) -> Chooser:
        """Return the strategy itself where "auto" was asked for, and the network is known."""
        if not self.is_auto:
            return self
        return Chooser.of(stands_for(AUTO, frozen), self.given, False)

    def acquisition(self, config: RunConfig, n_classes: int) -> Acquisition:
        """Return what chooses by it, having tried it."""
        if self.strategy is None:
            return StreamAcquisition(config, self.given, n_classes)
        check_strategy_works(self.strategy, n_classes)
        return PoolAcquisition(config, self.strategy)


@dataclass(frozen=True)
class Plan:
    """A run before it starts: resolved `config`, `data` without the noise that they will have, the
    `template` of all networks, not fitted, the `acquisition` at its start, `own`, parameters of a
    given classifier that are no settings, and the `backbone` of a frozen network.
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
        """Resolve the settings, and find what is wrong before anything is trained or written: a
        `SkalError` is raised if images, network or strategy do not work, or not together.
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
            tell_pass(config, data)
        template = make_classifier(config, data)
        own: dict[str, Any] = {}
        if classifier is not None:
            _check_fits(classifier, data)
            own = _differing(classifier, template)
            template = classifier
        backbone = check_network(template, data, config.cache)
        if config.pretrain != "none":  # its weights are still to be made
            backbone = None
        chooser = chooser.decided(template.freeze)
        config = config.replace(strategy=chooser.name)
        acquisition = chooser.acquisition(config, len(data.classes))
        return cls(config, data, chooser, template, acquisition, own, backbone)

    def with_kept(self, facts: Mapping[str, Any]) -> Plan:
        """Return the plan with the classifier's parameters that a record has kept; a
        `ParameterError` is raised if the classifier must be given again, or another one was given.
        """
        kept, not_kept = facts.get("classifier", {}), facts.get("classifier_not_kept", [])
        if not self.own and not not_kept:
            return with_changes(self, template=self.template.variant(**kept))
        if plain_params(self.own) != (kept, not_kept):
            raise ParameterError(
                "the record was made with a classifier that has "
                f"{', '.join([*kept, *not_kept]) or 'nothing'} beyond the settings; give that "
                "one: skal.ActiveLearner.open(folder, classifier=...)"
            )
        return self

    def oracle(self, oracle: AnyOracle | None = None) -> Oracle:
        """Return the oracle, by default that of the settings; see `make_oracle`."""
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
    """Make settings, and check what can be checked without the data; a `UsageError` is raised."""
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
    """Return a classifier that is not fitted, of settings that are resolved."""
    return ImageClassifier(
        **{name: getattr(config, name) for name in TRAINING},
        classes=np.arange(len(data.classes)),
        augmentation=data.augmentation,
    )


def _check_fits(classifier: ImageClassifier, data: ImageDataset) -> None:
    """Check that classifier and dataset mean the same by a label."""
    expected = list(range(len(data.classes)))
    got = None if classifier.classes is None else np.asarray(classifier.classes).tolist()
    if got != expected:
        raise ParameterError(
            f"the classifier has the classes {got}; expected range({len(expected)}), ids of "
            f"{', '.join(data.classes[:5])}{' ...' if len(expected) > 5 else ''}"
        )
    if classifier.missing_label != MISSING_LABEL:
        raise ParameterError(
            f"the classifier has missing_label={classifier.missing_label}; expected {MISSING_LABEL}"
        )


def _differing(classifier: ImageClassifier, template: ImageClassifier) -> dict[str, Any]:
    """Return what the settings do not say of a classifier; the seed is each round's own."""
    ours, theirs = classifier.get_params(deep=False), template.get_params(deep=False)
    unsaid = {
        name: ours[name]
        for name in ours.keys() - {*TRAINING, "classes", "random_state"}
        if repr(ours[name]) != repr(theirs[name])
    }
    if isinstance(classifier.weights, Mapping):
        unsaid["weights"] = classifier.weights
    return dict(sorted(unsaid.items()))


def with_those_of(classifier: ImageClassifier, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add a classifier's parameters to settings; `ParameterError` if one is given twice."""
    if not isinstance(classifier, ImageClassifier):
        raise ParameterError(
            f"classifier: got {type(classifier).__name__}; expected a skal.ImageClassifier; the "
            "name of a network is `model`"
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
            raise ParameterError(f"{name}: the classifier says it already; leave it out")
    return {**theirs, **settings}


def plain_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that a TOML file can hold, and the names of the others."""
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
