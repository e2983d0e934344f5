"""`ImageClassifier`: a network for images that scikit-activeml takes as one of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeGuard, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SkactivemlClassifier
from skactiveml.classifier import SkorchClassifier
from skactiveml.utils import is_labeled
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils import check_random_state
from skorch.callbacks import GradientNormClipping
from skorch.dataset import Dataset
from torch import Tensor, nn

from ..core.errors import DataError, ParameterError, SkalError, UnknownNameError
from ..core.memory import take_mapped
from ..core.seeding import derive_seed, torch_seed
from ..core.settings import SWA_AND_PATIENCE
from ..datasets.base import MISSING_LABEL, Images
from . import AUGMENTATIONS
from .backbone import Backbone, Features, load_backbone
from .gradients import expected_gradient_length
from .heads import HEADS
from .iterators import SliceBatches, TrainBatches, run_batches, say_smaller
from .module import DropoutSampler, ImageModule
from .training import (
    AVERAGES,
    DEVICES,
    OPTIMIZERS,
    PERTURB,
    PRECISIONS,
    SHRINK,
    SWA_SHARE,
    WARM_STARTS,
    Averaging,
    OneCycle,
    UntilFlat,
    computing_on,
    default_lr,
    resolve_bf16,
    resolve_device,
    scoring_batch_size,
)

BACKBONE_SHARE = 0.1
"""Of the learning rate, that a backbone is fine-tuned at."""
SAMPLE = 1000
"""Images that a frozen backbone's features are measured on."""


_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "dropout": ("0 <= dropout < 1", lambda value: 0 <= value < 1),
    "lr": ("more than 0", lambda value: value > 0),
    "label_smoothing": ("0 <= label_smoothing < 1", lambda value: 0 <= value < 1),
    "clip_norm": ("more than 0", lambda value: value > 0),
    "mixup": ("0 or more", lambda value: 0 <= value < math.inf),
}
T = TypeVar("T")


class NotFittedError(SkalError, SklearnNotFittedError):
    """A prediction was asked of a classifier that was never trained."""


class Outputs(NamedTuple):
    """What the network says of one batch."""

    proba: Tensor
    logits: Tensor
    embeddings: Tensor
    mc_proba: Tensor | None


class ImageClassifier(SkorchClassifier):
    """A convolutional network as a scikit-activeml classifier.

    Parameters
    ----------
    model : str, default="small-cnn"
        One of ``skal list models``.
    classes : array-like of shape (n_classes,)
        All class labels, whether or not one of each is labelled yet. Required.
    steps : int, optional
        Optimiser steps of a fit. By default 200, or 20 epochs if those are more.
    epochs : int, optional
        Passes over the labelled images instead; at most one of the two may be given.
    train_batch_size : int, default=64
        Images per optimiser step.
    optimizer : {"adamw", "sgd"}, default="adamw"
        With weight decay 0.01, or with Nesterov momentum and weight decay 5e-4. The learning rate
        follows one cycle (Smith and Topin, 2019); the momentum (AdamW's beta1) goes the other way,
        from 0.95 to 0.85 and back.
    lr : float, optional
        Highest learning rate; by default the model's own, 0.05 for SGD.
    dropout : float, default=0.25
        Before the last layer.
    warm_start : {"off", "on", "shrink"}, default="off"
        Whether a fit after another starts from the weights of that one, as they are, or shrunk
        and perturbed [1]_: 0.6 of them plus 0.1 of new ones. Clones have no fit before.
    label_smoothing : float, default=0
        Share of each label that is spread over all classes.
    average : {"none", "ema", "swa"}, default="none"
        Whether a fit ends with an average of its weights, see `skal.models.training.Averaging`.
    clip_norm : float, optional
        Longer gradients are shortened to this.
    balanced : bool, default=False
        Whether all classes take turns in the batches, however many images each has.
    mixup : float, default=0
        Images and labels are mixed in pairs, to shares from Beta(mixup, mixup); 0 is not at all.
        See `skal.models.iterators.TrainBatches`.
    patience : int, optional
        A fit ends earlier when the training loss has not fallen for so many epochs (of 10 steps
        at least); the learning rate stays high until then. See `skal.models.training.UntilFlat`.
    augmentation : tuple of str, default=()
        What is done to each training image: names of `skal.models.AUGMENTATIONS`.
    pretrained : bool, default=False
        Start from the model's pretrained weights.
    weights : str, Path or mapping, optional
        Start from the weights in this file: a state dict of the model, or the
        ``model.safetensors`` of a run; or from a state dict itself.
    freeze : bool, default=False
        Keep the backbone as it starts, and train a head on its output alone. `X` may then be the
        features that `skal.embed` returns, and the backbone is not run at all.
    finetune : bool, default=False
        Train the backbone at a tenth of the learning rate.
    head : {"linear", "mlp"}, default="linear"
        On a frozen backbone: one layer, or a hidden one of 256 units before it.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        "auto" takes CUDA, else MPS, else the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        "auto" takes bfloat16 where the device computes in it.
    compile : bool, default=False
        Whether torch compiles the backbone, which takes a minute or more and pays on GPUs.
    callbacks : sequence, default=()
        skorch callbacks to add.
    missing_label : int, default=-1
        Marks unlabelled images in `y`.
    cost_matrix : array-like of shape (n_classes, n_classes), optional
        See scikit-activeml.
    random_state : int, RandomState or None, default=None
        Seeds initialisation, batches, augmentation and dropout; torch's global state is left as
        it was.

    References
    ----------
    .. [1] J. T. Ash, R. P. Adams. On Warm-Starting Neural Network Training. NeurIPS 2020.

    Notes
    -----
    `X` is uint8 of shape (n, channels, height, width), square; `predict_proba(X)` is float32 of
    shape (n, n_classes), its columns in the order of `classes_`. Outputs to ask for by
    `extra_outputs` are "logits" (n, n_classes), already divided by `temperature`, and "emb", the
    input of the last layer, (n, n_features).

    A frozen backbone's features are brought to mean 0 and standard deviation 1, as measured on a
    thousand images of `X`, with or without a label. The same images and labels train the same head
    as pixels and as features, up to rounding.

    Every fit starts from new weights, unless `warm_start` says otherwise. A fit without any label
    leaves the network untrained.
    """

    # what SkorchClassifier takes as parameters and this class has decided
    module = None
    criterion = nn.CrossEntropyLoss
    forward_outputs: ClassVar = {
        "proba": (0, nn.Softmax(dim=-1)),
        "logits": (0, None),
        "emb": (1, None),
    }
    criterion_output_keys = "logits"
    neural_net_param_dict = None
    sample_dtype = None
    include_unlabeled_samples = False

    def __init__(
        self,
        model: str = "small-cnn",
        *,
        classes: ArrayLike | None = None,
        steps: int | None = None,
        epochs: int | None = None,
        train_batch_size: int = 64,
        optimizer: str = "adamw",
        lr: float | None = None,
        dropout: float = 0.25,
        warm_start: str = "off",
        label_smoothing: float = 0.0,
        average: str = "none",
        clip_norm: float | None = None,
        balanced: bool = False,
        mixup: float = 0.0,
        patience: int | None = None,
        augmentation: tuple[str, ...] = (),
        pretrained: bool = False,
        weights: str | Path | Mapping[str, Tensor] | None = None,
        freeze: bool = False,
        finetune: bool = False,
        head: str = "linear",
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
        callbacks: Sequence[Any] = (),
        missing_label: int = MISSING_LABEL,
        cost_matrix: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        SkactivemlClassifier.__init__(
            self,
            classes=classes,
            missing_label=missing_label,
            cost_matrix=cost_matrix,
            random_state=random_state,
        )
        self.model = model
        self.steps = steps
        self.epochs = epochs
        self.train_batch_size = train_batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.dropout = dropout
        self.warm_start = warm_start
        self.label_smoothing = label_smoothing
        self.average = average
        self.clip_norm = clip_norm
        self.balanced = balanced
        self.mixup = mixup
        self.patience = patience
        self.augmentation = augmentation
        self.pretrained = pretrained
        self.weights = weights
        self.freeze = freeze
        self.finetune = finetune
        self.head = head
        self.device = device
        self.precision = precision
        self.compile = compile
        self.callbacks = callbacks

    def fit(
        self,
        X: Images,
        y: ArrayLike,
        *,
        rows: NDArray[np.int64] | None = None,
        **fit_params: Any,
    ) -> ImageClassifier:
        """Train a new network on the labelled images.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Labelled and unlabelled images; the latter are not read, unless `freeze` is on, which
            takes a measure of some. With `freeze` also features, float16 or float32 of shape
            (n, n_features).
        y : array-like of int, shape (n,)
            Labels; `missing_label` where there is none.
        rows : ndarray of int64, optional
            The images that may be measured with `freeze`, such as those that are not validated
            on; by default all.

        Returns
        -------
        self : ImageClassifier

        Raises
        ------
        ParameterError, DataError
            If a parameter is not valid, `X` is not as above, or a label is not in `classes`.
        """
        self._fit_seeded("fit", X, y, rows, **fit_params)
        return self

    def partial_fit(self, X: Images, y: ArrayLike, **fit_params: Any) -> ImageClassifier:
        """Train on, from the weights as they are; otherwise as `fit`.

        Each call draws other batches than the one before, with an integer `random_state` too. A
        temperature is of the weights before: training sets it back to 1.
        """
        self._fit_seeded("partial_fit", X, y, **fit_params)
        return self

    @property
    def temperature(self) -> float:
        """What the logits are divided by: 1 unless `calibrate` set another."""
        if not hasattr(self, "neural_net_"):
            return 1.0
        return float(self.neural_net_.module_.temperature)

    def predict_proba(self, X: Images, extra_outputs: str | Sequence[str] | None = None) -> Any:
        """Return class probabilities, and further outputs if asked for.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.
        extra_outputs : {"emb", "logits"} or sequence of these, optional
            What to return besides.

        Returns
        -------
        ndarray of float32, shape (n, n_classes)
            Or a tuple of it and the outputs asked for.

        Raises
        ------
        NotFittedError
            If the classifier was never fitted.
        DataError
            If the images are not of the shape trained on.
        """
        self._check_fitted(X)
        while True:
            try:
                with computing_on(str(self.neural_net_.device)):
                    return super().predict_proba(X, extra_outputs=extra_outputs)
            except torch.OutOfMemoryError:
                if not self._halve_batches(len(X)):
                    raise

    def sample_proba(
        self,
        X: Images,
        n_samples: int = 20,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[np.float32]:
        """Sample class probabilities by Monte-Carlo dropout (Gal and Ghahramani, 2016).

        Each sample is one thinned network: its dropout mask is the same for all images. All else
        is in evaluation mode, and the state before is restored.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.
        n_samples : int, default=20
            Number of masks.
        random_state : int or RandomState, optional
            Seeds the masks; by default `random_state` of the classifier does.

        Returns
        -------
        ndarray of float32, shape (n_samples, n, n_classes)

        Raises
        ------
        NotFittedError
            If the classifier was never fitted.
        ParameterError
            If the model has no dropout, so that all samples would be the same, or `n_samples` is
            not 1 or more.
        """
        self._check_fitted(X)
        if not is_whole(n_samples) or n_samples < 1:
            raise ParameterError(f"n_samples={n_samples!r}; expected a whole number, 1 or more")
        result = np.empty((n_samples, len(X), len(self.classes_)), np.float32)
        start = 0
        for batch in self.iter_outputs(X, n_samples, random_state):
            assert batch.mc_proba is not None
            stop = start + batch.mc_proba.shape[1]
            result[:, start:stop] = batch.mc_proba.cpu().numpy()
            start = stop
        return result

    def iter_outputs(
        self,
        X: Images,
        n_samples: int = 0,
        random_state: int | np.random.RandomState | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Iterator[Outputs]:
        """Stream over images once and yield all that the network says of each batch.

        Where a GPU's memory does not suffice, batches become smaller.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.
        n_samples : int, default=0
            Monte-Carlo dropout samples of each image; see `sample_proba`.
        random_state : int or RandomState, optional
            Seeds the dropout masks.
        rows : ndarray of int64, shape (n,), optional
            Which of the images; by default all.

        Yields
        ------
        Outputs
            `proba`, `logits` (b, n_classes), `embeddings` (b, n_features) and, with samples,
            `mc_proba` (n_samples, b, n_classes), on the device.
        """
        self._check_fitted(X)
        module = self.neural_net_.module_.eval()
        device = torch.device(self.neural_net_.device)
        sampler = None
        if n_samples:
            sampler = DropoutSampler(module, n_samples, self.mask_seed(random_state))

        def outputs(images: Tensor) -> Outputs:
            with torch.inference_mode():
                on_device = images.to(device)
                logits, embeddings = module(on_device)
                samples = sampler(on_device, embeddings) if sampler else None
                return Outputs(logits.softmax(-1), logits, embeddings, samples)

        return self._run_batches(X, outputs, rows)

    def _run_batches(
        self, X: Images, compute: Callable[[Tensor], T], rows: NDArray[np.int64] | None = None
    ) -> Iterator[T]:
        """Yield what comes of each batch; if they had to become smaller, they stay so."""
        net = self.neural_net_
        device = str(net.device)
        batches = SliceBatches(Dataset(X), net.iterator_valid__batch_size, rows, device)

        def computed(images: Tensor) -> T:
            with computing_on(device):
                return compute(images)

        for result in run_batches(batches, computed):
            net.iterator_valid__batch_size = batches.batch_size
            yield result

    def _halve_batches(self, n_images: int) -> bool:
        """Score in smaller batches from now on, if there are any."""
        net = self.neural_net_
        batch_size = min(net.iterator_valid__batch_size, n_images)
        if batch_size < 2:
            return False
        net.iterator_valid__batch_size = math.ceil(batch_size / 2)
        say_smaller(str(net.device), net.iterator_valid__batch_size)
        return True

    def replica(self, device: str) -> ImageClassifier:
        """Return a copy of the fitted classifier, with its network on another device.

        Raises
        ------
        NotFittedError
            If the classifier was never fitted.
        """
        self._check_network()
        other = copy.copy(self)
        # not copy.copy: skorch would pickle the network, which not every model's classes allow
        net: Any = object.__new__(type(self.neural_net_))
        net.__dict__.update(self.neural_net_.__dict__)
        other.neural_net_ = net
        net.module_ = copy.deepcopy(self.neural_net_.module_).to(device)
        other.neural_net_.device = device
        return other

    def head_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities that the head gives embeddings.

        Parameters
        ----------
        embeddings : ndarray of float32, shape (n, n_features)
            As from ``predict_proba(X, extra_outputs="emb")``.

        Returns
        -------
        ndarray of float32, shape (n, n_classes)

        Raises
        ------
        NotFittedError
            If the classifier was never fitted.
        """
        self._check_network()
        module = self.neural_net_.module_.eval()
        device = torch.device(self.neural_net_.device)
        with torch.inference_mode():
            logits = module.classify(torch.from_numpy(np.array(embeddings)).to(device))
        proba: NDArray[np.float32] = logits.softmax(-1).cpu().numpy()
        return proba

    def expected_gradient_length(self, X: Images) -> NDArray[np.float32]:
        """Return the length of the loss's gradient, expected over the predicted labels.

        The gradient is that of the cross entropy with respect to all weights, of each image on its
        own; it costs a backward pass a class.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.

        Returns
        -------
        ndarray of float32, shape (n,)

        Raises
        ------
        NotFittedError
            If the classifier was never fitted.
        """
        self._check_fitted(X)
        module = self.neural_net_.module_.eval()
        device, n_classes = torch.device(self.neural_net_.device), len(self.classes_)
        lengths = self._run_batches(
            X, lambda images: expected_gradient_length(module, images.to(device), n_classes)
        )
        return torch.cat(list(lengths)).cpu().numpy()

    def backbone(self, image_shape: tuple[int, ...]) -> Backbone:
        """Build the backbone that a fit on images starts from, frozen.

        Parameters
        ----------
        image_shape : tuple of int
            Channels, height and width of the images.

        Raises
        ------
        SkalError
            If a parameter is not valid, or the weights do not fit.
        """
        self._check_parameters()
        return load_backbone(
            self.model,
            image_shape,
            pretrained=self.pretrained,
            weights=self.weights,
            device=self.device,
            precision=self.precision,
        )

    def take_backbone(self, backbone: Backbone) -> ImageClassifier:
        """Give a head that was trained on features the backbone that they are of.

        From then on it takes images, too. It does so by itself when it is asked about images.

        Parameters
        ----------
        backbone : Backbone
            As from `backbone`.

        Returns
        -------
        self : ImageClassifier

        Raises
        ------
        NotFittedError
            If the classifier was never fitted.
        ParameterError
            If it is not frozen.
        """
        self._check_network()
        if not self.freeze:
            raise ParameterError("only a classifier with freeze=True takes another backbone")
        self.neural_net_.module_.take_backbone(backbone.module)
        self.image_shape_ = backbone.image_shape
        return self

    def mask_seed(self, random_state: int | np.random.RandomState | None) -> int:
        """Return the seed of Monte-Carlo dropout's masks: by default it follows the classifier's.

        Parameters
        ----------
        random_state : int, RandomState or None
            An int is the seed itself; from a RandomState it is drawn.

        Returns
        -------
        int
        """
        if random_state is not None:
            return _as_seed(random_state)
        # not the stream that the weights were drawn from
        return derive_seed(_as_seed(self.random_state) % 2**32, "strategy")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "neural_net_")

    def _fit_seeded(
        self,
        method: str,
        X: Any,
        y: ArrayLike,
        rows: NDArray[np.int64] | None = None,
        **fit_params: Any,
    ) -> None:
        self._check_parameters()
        check_input(X, self.freeze)
        self._check_labels(y)
        seed, calls = _as_seed(self.random_state), 0
        if method == "partial_fit" and hasattr(self, "neural_net_"):
            # else an integer seed would draw the very same batches in each call
            calls = getattr(self, "n_partial_fits_", 0) + 1
            seed = derive_seed(seed % 2**32, "training", calls)
        backbone, sample = None, None
        if self.freeze and X.ndim == 4:
            backbone = self.backbone(X.shape[1:])
        if self.freeze:
            X, y, sample = self._features(backbone, X, np.asarray(y), rows)
        with torch_seed(seed):
            self._fit(method, X, y, sample=sample, **fit_params)
        self.n_partial_fits_ = calls
        if self.freeze:
            self.n_features_in_ = None  # pixels or features: `_check_fitted` looks
        if backbone is not None:
            self.take_backbone(backbone)
        elif not self.freeze:
            self.image_shape_ = tuple(int(side) for side in X.shape[1:])

    def _features(
        self,
        backbone: Backbone | None,
        X: Any,
        y: NDArray[Any],
        measurable: NDArray[np.int64] | None,
    ) -> tuple[Features, NDArray[Any], Features]:
        """Return features and labels of what is labelled, and features to measure."""
        labeled = np.flatnonzero(is_labeled(y, missing_label=self.missing_label))
        n = len(X) if measurable is None else len(measurable)
        spread = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
        if measurable is not None:
            spread = measurable[spread]
        if backbone is None:
            return X[labeled], y[labeled], X[spread]
        rows = np.union1d(labeled, spread)
        features = backbone(X[rows])
        first, second = (features[np.searchsorted(rows, part)] for part in (labeled, spread))
        return first, y[labeled], second

    def _fit(
        self,
        fit_function: str,
        X: Images | Features,
        y: Any,
        sample: Features | None = None,
        **fit_params: Any,
    ) -> None:
        """Train as SkorchMixin does, except that Ctrl-C ends it.

        skorch's own `partial_fit` swallows Ctrl-C and would leave a half-trained network that
        looks fitted; here no network is left.
        """
        if fit_function == "fit" or not hasattr(self, "neural_net_"):
            before = self._state_before()
            _, X, y = self.initialize(X=X, y=y, enforce_check_X_y=True)
            if before is not None:
                self._start_from(before)
            self._compile()
            if sample is not None:
                network, device = self.neural_net_.module_.network, self.neural_net_.device
                network.scaling.measure(torch.from_numpy(np.array(sample)).to(device))
        else:
            X, y, _ = self._validate_data(X=X, y=y, **self._validate_data_kwargs())
        X_train, y_train = self._return_training_data(X, y)
        if X_train is None:
            return
        net = self.neural_net_
        net.module_.temperature.fill_(1)
        try:
            with computing_on(str(net.device)):
                net.notify("on_train_begin", X=X_train, y=y_train)
                net.fit_loop(X_train, y_train, **fit_params)
                net.notify("on_train_end", X=X_train, y=y_train)
        except BaseException:
            del self.neural_net_
            raise

    def _compile(self) -> None:
        if self.compile and not self.freeze:
            self.neural_net_.module_.network.backbone.compile()

    def _return_training_data(self, X: Any, y: NDArray[Any]) -> tuple[Any, Any]:
        """Return what is labelled, as scikit-activeml does, but hold on to no page of a memmap."""
        labeled = np.flatnonzero(is_labeled(y, missing_label=MISSING_LABEL))
        if not len(labeled):
            return None, None
        return take_mapped(X, labeled), y[labeled].astype(np.int64)

    def _state_before(self) -> dict[str, Tensor] | None:
        """Return the weights of the fit before, if the next one is to start from them."""
        if self.warm_start == "off" or not hasattr(self, "neural_net_"):
            return None
        return dict(self.neural_net_.module_.state_dict())

    def _start_from(self, before: dict[str, Tensor]) -> None:
        """Take over weights of a fit before, shrunk and perturbed by new ones if asked for."""
        module = self.neural_net_.module_
        own = module.state_dict()  # not of a backbone that was taken on after the fit
        for name, values in own.items():
            shape = tuple(before[name].shape) if name in before else None
            if shape != values.shape:
                raise DataError(
                    f"warm_start: {name} had the shape {shape} in the fit before and has "
                    f"{tuple(values.shape)} now; fit a new classifier, or a clone"
                )
        trained = {n for n, weights in module.named_parameters() if weights.requires_grad}
        with torch.no_grad():
            for name, values in own.items():
                if self.warm_start == "shrink" and name in trained:
                    values.mul_(PERTURB).add_(before[name], alpha=SHRINK)
                else:
                    values.copy_(before[name])

    def _check_parameters(self) -> None:
        if self.classes is None:
            raise ParameterError(
                "ImageClassifier needs `classes`, all class labels, e.g. classes=[0, 1, 2]: with "
                "few labels, some classes may not be among them yet"
            )
        if self.steps is not None and self.epochs is not None:
            raise ParameterError("give steps or epochs, not both")
        for name in ("steps", "epochs", "patience", "train_batch_size"):
            value = getattr(self, name)
            if value is None and name != "train_batch_size":
                continue
            if not is_whole(value):
                raise ParameterError(f"{name}={value!r}; expected a whole number, 1 or more")
            if value < 1:
                raise ParameterError(f"{name}={value}; expected 1 or more")
        for name, (expected, holds) in _RANGES.items():
            value = getattr(self, name)
            optional = name in ("lr", "clip_norm")
            if not (optional and value is None) and not (isinstance(value, Real) and holds(value)):
                raise ParameterError(f"{name}={value!r}; expected {expected}")
        if self.patience is not None and self.average == "swa":
            raise ParameterError(SWA_AND_PATIENCE)
        if self.freeze and self.finetune:
            raise ParameterError("give freeze or finetune, not both: the one trains no backbone")
        if self.head != "linear" and not self.freeze:
            raise ParameterError(f"head={self.head!r} acts on a frozen backbone alone: freeze=True")
        self._check_names()

    def _check_names(self) -> None:
        if not isinstance(self.augmentation, tuple | list):
            raise ParameterError(
                f"augmentation={self.augmentation!r}; expected a tuple of names, such as ('flip',)"
            )
        for kind, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
            ("warm start", self.warm_start, WARM_STARTS),
            ("average", self.average, AVERAGES),
            ("head", self.head, HEADS),
            *(("augmentation", name, AUGMENTATIONS) for name in self.augmentation),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)

    def _check_labels(self, y: ArrayLike) -> None:
        labels = np.asarray(y)
        labels = labels[is_labeled(labels, missing_label=self.missing_label)]
        unknown = np.setdiff1d(labels, np.asarray(self.classes))
        if len(unknown):
            raise DataError(
                f"y has the label {unknown[0].item()!r}; expected one of the classes "
                f"{np.asarray(self.classes).tolist()}, or {self.missing_label!r} for none"
            )

    def _check_network(self) -> None:
        if not hasattr(self, "neural_net_"):
            raise NotFittedError("this ImageClassifier was not fitted; call fit(X, y) first")

    def _check_fitted(self, X: Images) -> None:
        self._check_network()
        check_input(X, self.freeze)
        network = self.neural_net_.module_.network
        if X.ndim == 2:
            expected = len(network.scaling.center)
            if X.shape[1] != expected:
                raise DataError(f"got {X.shape[1]} features; the head was trained on {expected}")
            return
        if self.freeze and not network.has_backbone:
            self.take_backbone(self.backbone(X.shape[1:]))
        if X.shape[1:] != self.image_shape_:
            raise DataError(
                f"got images of shape {X.shape[1:]}; the network was trained on {self.image_shape_}"
            )

    def _net_parts(self, X: Images, y: NDArray[np.int64]) -> tuple[Any, Any, dict[str, Any]]:
        """Say what skorch's NeuralNet is to be made of."""
        device = resolve_device(self.device)
        optimizer, options = OPTIMIZERS[self.optimizer]
        lr = self.lr or default_lr(self.model, self.optimizer, self.freeze)
        groups = [("network.backbone.*", {"lr": BACKBONE_SHARE * lr})] if self.finetune else []
        _, criterion, _ = super()._net_parts(X, y)
        params = {
            "module__model": self.model,
            "module__augmentation": self.augmentation,
            "module__bf16": resolve_bf16(self.precision, device),
            "module__n_classes": len(self.classes_),
            "module__dropout": self.dropout,
            **self._input_parts(X),
            "optimizer": optimizer,
            **{f"optimizer__{name}": value for name, value in options.items()},
            "optimizer__lr": lr,
            "optimizer__param_groups": groups,
            "optimizer__fused": device != "mps",
            "device": device,
            "train_split": None,
            "max_epochs": 1,
            "verbose": 0,
            "iterator_train": TrainBatches,
            "iterator_train__batch_size": self.train_batch_size,
            "iterator_train__steps": self.steps,
            "iterator_train__epochs": self.epochs,
            "iterator_train__balanced": self.balanced,
            "iterator_train__mixup": self.mixup,
            "iterator_train__n_classes": len(self.classes_),
            "iterator_train__device": device,
            "iterator_valid": SliceBatches,
            "iterator_valid__device": device,
            "iterator_valid__batch_size": scoring_batch_size(device, X.shape[-1]),
            **self._training_parts([*(options["lr"] for _, options in groups), lr]),
        }
        return ImageModule, criterion, params

    def _training_parts(self, lrs: list[float]) -> dict[str, Any]:
        """Say what of the training the options decide, of a network with so many groups."""
        callbacks: list[tuple[str, Any]] = []
        parts: dict[str, Any] = {}
        if self.patience is None:
            held = SWA_SHARE if self.average == "swa" else 0.0
            callbacks.append(("one_cycle", OneCycle(lrs, held)))
        else:
            until_flat = UntilFlat(self.patience)
            callbacks.append(("until_flat", until_flat))
            parts["iterator_train__ended"] = until_flat.over
        if self.clip_norm is not None:
            callbacks.append(("clip_norm", GradientNormClipping(self.clip_norm)))
        if self.average != "none":
            callbacks.append(("averaging", Averaging(self.average)))
        if self.label_smoothing:
            parts["criterion__label_smoothing"] = self.label_smoothing
        return {**parts, "callbacks": [*callbacks, *self.callbacks]}

    def _input_parts(self, X: Images | Features) -> dict[str, Any]:
        """Say what of the network its input decides: pixels or features."""
        if self.freeze:
            parts = {"freeze": True, "head": self.head, "n_features": X.shape[1]}
        else:
            parts = {
                "in_channels": X.shape[1],
                "image_size": X.shape[2],
                "pretrained": self.pretrained,
                "weights": self.weights,
            }
        return {f"module__{name}": value for name, value in parts.items()}


def _as_seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def is_whole(value: Any) -> TypeGuard[int]:
    """Tell whether a value is a whole number, and not True or False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_input(X: Any, features: bool = False) -> None:
    """Check that `X` is images, as `check_images` does, or, if they will do, features.

    Raises
    ------
    DataError
        If it is neither.
    """
    if features and isinstance(X, np.ndarray) and X.ndim == 2:
        if X.dtype not in (np.float16, np.float32):
            raise DataError(f"X is {X.dtype} of shape {X.shape}; expected features from skal.embed")
        return
    check_images(X)


def check_images(X: Images) -> None:
    """Check that `X` is what the network takes.

    Raises
    ------
    DataError
        If it is not uint8 of shape (n, 1 or 3, size, size).
    """
    if not isinstance(X, np.ndarray) or X.dtype != np.uint8 or X.ndim != 4:
        got = f"{X.dtype} of shape {X.shape}" if isinstance(X, np.ndarray) else type(X).__name__
        raise DataError(
            f"X is {got}; expected uint8 pixels of shape (n, channels, height, width), which the "
            "network scales itself"
        )
    if X.shape[1] not in (1, 3):
        raise DataError(
            f"the images of X have {X.shape[1]} channels; expected 1 (grey) or 3 (colour), in "
            "shape (n, channels, height, width)"
        )
    if X.shape[2] != X.shape[3]:
        raise DataError(f"the images of X are {X.shape[2]}x{X.shape[3]}; expected square ones")
