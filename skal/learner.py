"""`ImageClassifier`: a network for images that scikit-activeml takes as one of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SkactivemlClassifier
from skactiveml.classifier import SkorchClassifier
from skactiveml.utils import is_labeled
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils import check_random_state
from skorch.dataset import Dataset
from torch import Tensor, nn

from .datasets.base import MISSING_LABEL, Images
from .errors import DataError, ParameterError, SkalError, UnknownNameError
from .models import AUGMENTATIONS
from .models.gradients import expected_gradient_length
from .models.module import DropoutSampler, ImageModule
from .seeding import derive_seed, torch_seed
from .training import (
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    OneCycle,
    SliceBatches,
    TrainBatches,
    default_lr,
    resolve_bf16,
    resolve_device,
    scoring_batch_size,
)


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
    augmentation : tuple of str, default=()
        What is done to each training image: names of `skal.models.AUGMENTATIONS`.
    pretrained : bool, default=False
        Start from the model's pretrained weights.
    weights : str or Path, optional
        Start from the weights in this file: a state dict of the model, or the
        ``model.safetensors`` of a run.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        "auto" takes CUDA, else MPS, else the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        "auto" takes bfloat16 where the device computes in it.
    callbacks : sequence, default=()
        skorch callbacks to add.
    missing_label : int, default=-1
        Marks unlabelled images in `y`.
    cost_matrix : array-like of shape (n_classes, n_classes), optional
        See scikit-activeml.
    random_state : int, RandomState or None, default=None
        Seeds initialisation, batches, augmentation and dropout; torch's global state is left as
        it was.

    Notes
    -----
    `X` is uint8 of shape (n, channels, height, width), square; `predict_proba(X)` is float32 of
    shape (n, n_classes), its columns in the order of `classes_`. Outputs to ask for by
    `extra_outputs` are "logits" (n, n_classes), already divided by `temperature`, and "emb", the
    input of the last layer, (n, n_features).

    Every fit starts from new weights. A fit without any label leaves the network untrained.
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
        augmentation: tuple[str, ...] = (),
        pretrained: bool = False,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
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
        self.augmentation = augmentation
        self.pretrained = pretrained
        self.weights = weights
        self.device = device
        self.precision = precision
        self.callbacks = callbacks

    def fit(self, X: Images, y: ArrayLike, **fit_params: Any) -> ImageClassifier:
        """Train a new network on the labelled images.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Labelled and unlabelled images; the latter are not read.
        y : array-like of int, shape (n,)
            Labels; `missing_label` where there is none.

        Returns
        -------
        self : ImageClassifier

        Raises
        ------
        ParameterError, DataError
            If a parameter is not valid, `X` is not as above, or a label is not in `classes`.
        """
        self._fit_seeded("fit", X, y, **fit_params)
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
        """What the logits are divided by: 1 unless `skal.calibration.calibrate` set another."""
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
        return super().predict_proba(X, extra_outputs=extra_outputs)

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
    ) -> Iterator[Outputs]:
        """Stream over images once and yield all that the network says of each batch.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Images of the shape trained on.
        n_samples : int, default=0
            Monte-Carlo dropout samples of each image; see `sample_proba`.
        random_state : int or RandomState, optional
            Seeds the dropout masks.

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
        with torch.inference_mode():
            for images, _ in self.neural_net_.get_iterator(Dataset(X)):
                on_device = images.to(device)
                logits, embeddings = module(on_device)
                samples = sampler(on_device, embeddings) if sampler else None
                yield Outputs(logits.softmax(-1), logits, embeddings, samples)

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
        lengths = [
            expected_gradient_length(module, images.to(device), n_classes)
            for images, _ in self.neural_net_.get_iterator(Dataset(X))
        ]
        return torch.cat(lengths).cpu().numpy()

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

    def _fit_seeded(self, method: str, X: Images, y: ArrayLike, **fit_params: Any) -> None:
        self._check_parameters()
        check_images(X)
        self._check_labels(y)
        seed, calls = _as_seed(self.random_state), 0
        if method == "partial_fit" and hasattr(self, "neural_net_"):
            # else an integer seed would draw the very same batches in each call
            calls = getattr(self, "n_partial_fits_", 0) + 1
            seed = derive_seed(seed % 2**32, "training", calls)
        with torch_seed(seed):
            self._fit(method, X, y, **fit_params)
        self.n_partial_fits_ = calls
        self.image_shape_ = tuple(int(side) for side in X.shape[1:])

    def _fit(self, fit_function: str, X: Images, y: ArrayLike, **fit_params: Any) -> None:
        """Train as SkorchMixin does, except that Ctrl-C ends it.

        skorch's own `partial_fit` swallows Ctrl-C and would leave a half-trained network that
        looks fitted; here no network is left.
        """
        if fit_function == "fit" or not hasattr(self, "neural_net_"):
            _, X, y = self.initialize(X=X, y=y, enforce_check_X_y=True)
        else:
            X, y, _ = self._validate_data(X=X, y=y, **self._validate_data_kwargs())
        X_train, y_train = self._return_training_data(X, y)
        if X_train is None:
            return
        net = self.neural_net_
        net.module_.temperature.fill_(1)
        try:
            net.notify("on_train_begin", X=X_train, y=y_train)
            net.fit_loop(X_train, y_train, **fit_params)
            net.notify("on_train_end", X=X_train, y=y_train)
        except BaseException:
            del self.neural_net_
            raise

    def _check_parameters(self) -> None:
        if self.classes is None:
            raise ParameterError(
                "ImageClassifier needs `classes`, all class labels, e.g. classes=[0, 1, 2]: with "
                "few labels, some classes may not be among them yet"
            )
        if self.steps is not None and self.epochs is not None:
            raise ParameterError("give steps or epochs, not both")
        for name in ("steps", "epochs", "train_batch_size"):
            value = getattr(self, name)
            if value is None and name != "train_batch_size":
                continue
            if not is_whole(value):
                raise ParameterError(f"{name}={value!r}; expected a whole number, 1 or more")
            if value < 1:
                raise ParameterError(f"{name}={value}; expected 1 or more")
        if not isinstance(self.dropout, Real) or not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout={self.dropout!r}; expected 0 <= dropout < 1")
        if self.lr is not None and (not isinstance(self.lr, Real) or not self.lr > 0):
            raise ParameterError(f"lr={self.lr!r}; expected more than 0")
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
        check_images(X)
        if X.shape[1:] != self.image_shape_:
            raise DataError(
                f"got images of shape {X.shape[1:]}; the network was trained on {self.image_shape_}"
            )

    def _net_parts(self, X: Images, y: NDArray[np.int64]) -> tuple[Any, Any, dict[str, Any]]:
        """Say what skorch's NeuralNet is to be made of."""
        device = resolve_device(self.device)
        optimizer, options = OPTIMIZERS[self.optimizer]
        lr = self.lr or default_lr(self.model, self.optimizer)
        _, criterion, _ = super()._net_parts(X, y)
        params = {
            "module__model": self.model,
            "module__augmentation": self.augmentation,
            "module__bf16": resolve_bf16(self.precision, device),
            "module__n_classes": len(self.classes_),
            "module__in_channels": X.shape[1],
            "module__image_size": X.shape[2],
            "module__dropout": self.dropout,
            "module__pretrained": self.pretrained,
            "module__weights": self.weights,
            "optimizer": optimizer,
            **{f"optimizer__{name}": value for name, value in options.items()},
            "optimizer__lr": lr,
            "optimizer__fused": device != "mps",
            "device": device,
            "train_split": None,
            "max_epochs": 1,
            "verbose": 0,
            "iterator_train": TrainBatches,
            "iterator_train__batch_size": self.train_batch_size,
            "iterator_train__steps": self.steps,
            "iterator_train__epochs": self.epochs,
            "iterator_valid": SliceBatches,
            "iterator_valid__batch_size": scoring_batch_size(device, X.shape[2]),
            "callbacks": [("one_cycle", OneCycle(lr)), *self.callbacks],
        }
        return ImageModule, criterion, params


def _as_seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def is_whole(value: Any) -> TypeGuard[int]:
    """Tell whether a value is a whole number, and not True or False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


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
