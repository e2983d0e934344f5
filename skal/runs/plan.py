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

from ..core.errors import DataError, ParameterError, UnknownNameError
from ..core.seeding import derive_seed
from ..core.values import resolve_count
from ..datasets import DATASETS, MISSING_LABEL, ImageDataset, data_folder, is_folder, load_dataset
from ..datasets.noise import add_noise
from ..datasets.oracles import AnyOracle, Oracle, make_oracle
from ..models import MODELS, default_model
from ..models.classifier import ImageClassifier
from ..models.devices import resolve_bf16, resolve_device, torch_seed
from ..models.module import ImageModule
from ..models.training import default_lr
from ..models.trial import try_network
from ..strategies.cold_start import resolve_init_strategy
from ..strategies.resolve import Strategy, resolve_strategy
from ..strategies.trial import check_strategy_works
from .acquisition import Acquisition, PoolAcquisition
from .config import SETTINGS, RunConfig
from .pretraining import check_pretraining
from .record import free_name
from .streaming import StreamAcquisition, stream_strategy_name

DROPOUT = 0.25

QueryStrategy: TypeAlias = str | type | SingleAnnotatorPoolQueryStrategy

TRAINING = tuple(name for name in inspect.signature(ImageClassifier).parameters if name in SETTINGS)
"""The settings that are parameters of `ImageClassifier`, too."""

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Chooser:
    """Which strategy was asked for: its name, its arguments, and if it is no stream, itself.

    Parameters
    ----------
    name : str
        As the settings have it.
    given : mapping
        The arguments that were chosen, those that no settings file can hold included.
    strategy : Strategy or None
        None of a stream.
    """

    name: str
    given: Mapping[str, Any]
    strategy: Strategy | None

    @classmethod
    def of(cls, strategy: QueryStrategy, params: Mapping[str, Any] | None, stream: bool) -> Chooser:
        """Find the strategy that is meant.

        Raises
        ------
        UsageError
            If there is none of that name, or it takes no such argument.
        """
        # plain from the start, so that a run that is resumed is given the very same
        given = dict(params or {})
        given.update(plain_params(given)[0])
        if stream:
            return cls(stream_strategy_name(strategy), given, None)
        found = resolve_strategy(strategy, given)
        return cls(found.name, dict(found.given), found)

    def acquisition(self, config: RunConfig, n_classes: int) -> Acquisition:
        """Return what chooses by it, having tried it."""
        if self.strategy is None:
            return StreamAcquisition(config, self.given, n_classes)
        check_strategy_works(self.strategy, n_classes)
        return PoolAcquisition(config, self.strategy)


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Parameters
    ----------
    config : RunConfig
        With all settings resolved.
    data : ImageDataset
        The images, with the noise that was asked for.
    chooser : Chooser
        The strategy.
    template : ImageClassifier
        Not fitted; the networks of all rounds are like it, but for the seed.
    acquisition : Acquisition
        What chooses the images of the rounds; it is at their start.
    own : mapping
        Parameters of a classifier of one's own that are no settings.
    """

    config: RunConfig
    data: ImageDataset
    chooser: Chooser
    template: ImageClassifier
    acquisition: Acquisition
    own: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        config: RunConfig,
        data: ImageDataset,
        chooser: Chooser,
        classifier: ImageClassifier | None = None,
    ) -> Plan:
        """Resolve the settings, and find what is wrong before anything is trained or written.

        Parameters
        ----------
        classifier : ImageClassifier, optional
            One's own; by default it is made of the settings.

        Raises
        ------
        SkalError
            If the images, the network or the strategy do not work, or not together.
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
        config = resolve_settings(config, data)
        check_network(config, data)
        template = make_classifier(config, data)
        own: dict[str, Any] = {}
        if classifier is not None:
            _check_fits(classifier, data)
            own = _differing(classifier, template)
            template = classifier
        acquisition = chooser.acquisition(config, len(data.classes))
        return cls(config, data, chooser, template, acquisition, own)

    def noisy(self) -> Plan:
        """Return the plan with the noise on the images that the settings ask for."""
        return with_changes(self, data=with_noise(self.config, self.data))

    def with_kept(self, facts: Mapping[str, Any]) -> Plan:
        """Return the plan with the classifier's parameters that a record has kept.

        Raises
        ------
        ParameterError
            If the classifier must be given again, or the one that was given is another.
        """
        kept, not_kept = facts.get("classifier", {}), facts.get("classifier_not_kept", [])
        if not self.own and not not_kept:
            return with_changes(self, template=variant(self.template, **kept))
        if plain_params(self.own) != (kept, not_kept):
            raise ParameterError(
                "the record was made with a classifier that has "
                f"{', '.join([*kept, *not_kept]) or 'nothing'} beyond the settings; give that "
                "one: skal.ActiveLearner.open(folder, classifier=...)"
            )
        return self

    def oracle(self, oracle: AnyOracle | None = None) -> Oracle:
        """Return the oracle that is meant, by default that of the settings, with their label noise.

        Raises
        ------
        SkalError
            See `make_oracle`.
        """
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
    """Make settings of what was given, and check what can be checked without the data.

    Raises
    ------
    UsageError
        If a name or a value is not valid.
    """
    settings = dict(settings)
    params = settings.pop("strategy_params", None)
    config = RunConfig(
        **settings, dataset=data.name if isinstance(data, ImageDataset) else str(data)
    )
    chooser = Chooser.of(strategy, params, config.stream != "off")
    config = config.replace(strategy=chooser.name, strategy_params=plain_params(chooser.given)[0])
    check_settings(config)
    return config, chooser


def settings_of(classifier: ImageClassifier) -> dict[str, Any]:
    """Return the settings that a classifier's parameters say, where they are not the defaults."""
    params, defaults = classifier.get_params(deep=False), inspect.signature(ImageClassifier)
    return {
        name: params[name]
        for name in TRAINING
        if isinstance(params[name], str | int | float | Path)
        and params[name] != defaults.parameters[name].default
    } | {"model": classifier.model}


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


def variant(template: ImageClassifier, **changes: Any) -> ImageClassifier:
    """Return a classifier like another, not fitted, with other parameters."""
    # not scikit-learn's clone: callbacks of one's own are to hear all trainings
    return type(template)(**{**template.get_params(deep=False), **changes})


def check_settings(config: RunConfig) -> None:
    """Check what can be checked before the data are loaded.

    Raises
    ------
    UsageError
        If a name or a value is not valid.
    """
    if config.model is not None:
        MODELS.resolve(config.model)
    resolve_init_strategy(config.init_strategy)
    if config.weights is not None and not Path(config.weights).is_file():
        raise ParameterError(f"weights: there is no file {config.weights!r}")
    resolve_device(config.device)
    check_pretraining(config)
    kept = next((name for name in ("freeze", "finetune") if getattr(config, name)), None)
    if kept and not (config.pretrained or config.weights or config.pretrain != "none"):
        _log.warning(
            "%s: the backbone starts from random weights; give it some by --pretrained, --weights "
            "FILE or --pretrain",
            kept,
        )


def load_images(config: RunConfig, data: str | Path) -> ImageDataset:
    """Load the dataset of a run; see `load_dataset`, and `image_size_for`."""
    return load_dataset(data, image_size_for(config, data), config.data_dir, config.seed)


def load_again(config: RunConfig) -> ImageDataset:
    """Load the dataset of a run that is resumed.

    Raises
    ------
    DataError
        If it was made of arrays.
    """
    try:
        return load_images(config, config.dataset)
    except UnknownNameError as error:
        raise DataError(
            f"the run was made on {config.dataset!r}, which cannot be loaded by its name; resume "
            "it from Python: skal.resume(folder, data=...)"
        ) from error


def with_noise(config: RunConfig, data: ImageDataset) -> ImageDataset:
    """Return the data with the noise on their images that the settings, resolved, ask for.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    rate = float(config.noise_rate)
    if not rate:
        return data
    seed, folder = derive_seed(config.seed, "noise"), Path(str(config.data_dir)) / "cache"
    return add_noise(data, config.image_noise, rate, seed=seed, folder=folder)


def image_size_for(config: RunConfig, data: str | Path) -> int | None:
    """Return the size that images are to have; None for the dataset's own.

    A folder's is, where the settings name none, what the weights are made for that the model
    starts from.
    """
    named = not is_folder(data)
    if config.image_size or named or not config.model or not (config.pretrained or config.weights):
        return config.image_size
    size: int | None = MODELS.resolve(config.model).facts.get("image_size")
    return size


def check_usable(data: ImageDataset) -> None:
    """Check that labelling can be simulated on the data, and a network trained and tested.

    Raises
    ------
    DataError
        If there are fewer than two classes, no pool or no test set.
    """
    if not data.classes:
        raise DataError(
            f"{data.name} has no class; the images of each class belong into a folder of their "
            "own, named as the class is"
        )
    if len(data.classes) == 1:
        raise DataError(
            f"{data.name} has the class {data.classes[0]!r} alone; a classifier needs two or more"
        )
    if not len(data.X):
        raise DataError(f"{data.name} has no labelled image to simulate labelling with")
    if not len(data.X_test):
        raise DataError(f"{data.name} has no test image; a class needs two images or more")


def resolve_settings(config: RunConfig, data: ImageDataset) -> RunConfig:
    """Fill in what the data decide, so that the configuration repeats the run anywhere.

    Raises
    ------
    ParameterError
        If no image would be left to train on.
    """
    n_valid = resolve_count("n_valid", config.n_valid, len(data.X), lowest=0)
    if n_valid >= len(data.X):
        raise ParameterError(
            f"n_valid: got {config.n_valid!r}, but the pool has {len(data.X)} images, and one at "
            "least must be left to train on"
        )
    model = config.model or default_model(data.image_size)
    device = resolve_device(config.device)
    if data.split_seed not in (None, config.seed):
        _log.warning(
            "the test set was drawn by seed %d, not the run's %d: config.toml will not repeat it",
            data.split_seed,
            config.seed,
        )
    return config.replace(
        dataset=data.source.get("dataset") or _name_of_arrays(data),
        model=model,
        n_init=resolve_count("n_init", config.n_init, len(data.X)),
        n_query=resolve_count("n_query", config.n_query, len(data.X)),
        n_valid=n_valid,
        image_size=data.image_size if SETTINGS["image_size"].contains(data.image_size) else None,
        lr=config.lr or default_lr(model, config.optimizer, config.freeze),
        data_dir=data.source.get("data_dir") or str(data_folder(config.data_dir).resolve()),
        device=device,
        precision="bf16" if resolve_bf16(config.precision, device) else "fp32",
        weights=None if config.weights is None else str(Path(config.weights).resolve()),
    )


def _name_of_arrays(data: ImageDataset) -> str:
    """Return a name that is nobody else's: arrays cannot be loaded by it."""
    return f"arrays:{data.name}" if data.name in DATASETS else data.name


def check_network(config: RunConfig, data: ImageDataset) -> None:
    """Build the network and run it once, so that what does not fit is found before all else.

    Raises
    ------
    SkalError
        If it cannot be built, or takes no images of this size.
    """
    with torch_seed(0):
        module = ImageModule(
            str(config.model),
            (),
            False,
            n_classes=len(data.classes),
            in_channels=data.X.shape[1],
            image_size=data.image_size,
            dropout=DROPOUT,
            pretrained=config.pretrained,
            weights=config.weights,
        )
    try_network(str(config.model), module, data.X.shape[1:], len(data.classes))


def default_folder(config: RunConfig, data: ImageDataset) -> Path:
    """Return ``runs/<dataset>-<strategy>-<model>-s<seed>``, with a number where that is taken."""
    name = f"{data.name}-{config.strategy}-{config.model}-s{config.seed}"
    return free_name(Path("runs") / name_of_folder(name))


def name_of_folder(text: str) -> str:
    """Return a text without what a folder's name cannot have."""
    return "".join("." if character in ':/\\?*"<>|' else character for character in text)


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
