"""Inference with a trained network: input checks, predictions, embeddings, dropout samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple, Self, TypeGuard, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SkactivemlClassifier
from skactiveml.classifier import SkorchClassifier
from skactiveml.utils import is_labeled
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils import check_random_state
from skorch.dataset import Dataset
from torch import Tensor
from torch.func import functional_call, grad, vmap

from ..core.errors import DataError, ParameterError, SkalError
from ..core.seeding import derive_seed
from ..datasets.base import Images
from ..datasets.rows import ImageRows
from .backbone import Backbone
from .devices import Device
from .engine import speed_up
from .iterators import SliceBatches, run_batches
from .network import DropoutSampler, ImageModule, uncompiled
from .training import ImageNet

OUTPUTS: Mapping[str, str] = {"proba": "proba", "logits": "logits", "emb": "embeddings"}
_TEXTS = "OUS"  # dtype kinds of arrays that may contain text
NUMBERS_AT_ONCE = 2**25  # gradients held at a time, 128 MiB of float32

T = TypeVar("T")


class NotFittedError(SkalError, SklearnNotFittedError):
    """The classifier is asked for predictions before it is fitted."""


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_seed(random_state: int | np.random.RandomState | None) -> int:
    """Return an integer seed, drawn from the RandomState unless one is given."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def check_input(X: Any, features: bool = False) -> None:
    """Raise DataError unless `X` is uint8 images of shape (n, 1 or 3, size, size), or features if
    these are allowed.
    """
    if features and isinstance(X, np.ndarray) and X.ndim == 2:
        if X.dtype not in (np.float16, np.float32):
            raise DataError(f"X is {X.dtype} of shape {X.shape}; expected features from skal.embed")
        return
    is_array = isinstance(X, np.ndarray | ImageRows)
    if not is_array or X.dtype != np.uint8 or X.ndim != 4:
        got = f"{X.dtype} of shape {X.shape}" if is_array else type(X).__name__
        raise DataError(
            f"X is {got}; expected unscaled uint8 pixels of shape (n, channels, height, width)"
        )
    if X.shape[1] not in (1, 3):
        raise DataError(
            f"the images of X have {X.shape[1]} channels; expected 1 (grey) or 3 (colour), in "
            "shape (n, channels, height, width)"
        )
    if X.shape[2] != X.shape[3]:
        raise DataError(f"the images of X are {X.shape[2]}x{X.shape[3]}; expected square ones")


def check_labels(y: ArrayLike, n: int, classes: ArrayLike, missing_label: int) -> None:
    """Raise DataError unless `y` has, for each of `n` images, one of the classes or no label."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise DataError(f"y has shape {labels.shape}; expected ({n},), one label per image")
    if labels.dtype.kind in _TEXTS and np.asarray(classes).dtype.kind not in _TEXTS:
        text = next((label for label in labels.tolist() if isinstance(label, str)), None)
        if text is not None:
            raise DataError(
                f"y contains text, such as {text!r}; expected class ids, "
                f"{np.asarray(classes).tolist()}, or {missing_label!r} for unlabelled images"
            )
    labels = labels[is_labeled(labels, missing_label=missing_label)]
    unknown = np.setdiff1d(labels, np.asarray(classes))
    if len(unknown):
        raise DataError(
            f"y has the label {unknown[0].item()!r}; expected one of the classes "
            f"{np.asarray(classes).tolist()}, or {missing_label!r} for unlabelled images"
        )


def best_labels(fitted: SkactivemlClassifier, found: Any) -> Any:
    """Return the label of the most probable class, or with costs of the cheapest, for each row.

    Ties go to the first class, as everywhere in skal; scikit-activeml would draw one. `found` is
    the result of `predict_proba`; further outputs in it are returned after the labels.
    """
    proba, *extra = found if isinstance(found, tuple) else (found,)
    is_by_cost = fitted.cost_matrix is not None
    best = (proba @ fitted.cost_matrix_).argmin(axis=1) if is_by_cost else proba.argmax(axis=1)
    labels = fitted.classes_[best]
    return (labels, *extra) if extra else labels


class Outputs(NamedTuple):
    """The network's outputs for one batch."""

    proba: Tensor
    logits: Tensor
    embeddings: Tensor
    mc_proba: Tensor | None


class FittedNetwork(SkorchClassifier):  # type: ignore[misc]
    """Inference methods of `ImageClassifier`; all stream over batches.

    `X` is images of the shape trained on, uint8 of shape (n, channels, height, width), or with
    `freeze` also features. Batches shrink if a GPU runs out of memory. All methods raise
    NotFittedError if the classifier is not fitted, and DataError if the image shape differs.
    """

    neural_net_: ImageNet
    freeze: bool
    image_shape_: tuple[int, ...]

    def backbone(self, image_shape: tuple[int, ...]) -> Backbone:
        """Build the frozen backbone for images of a shape."""
        raise NotImplementedError

    @property
    def temperature(self) -> float:
        """The temperature that logits are divided by; 1 unless `calibrate` set another."""
        if not hasattr(self, "neural_net_"):
            return 1.0
        return float(self.neural_net_.module_.temperature)

    def predict_proba(self, X: Images, extra_outputs: str | Sequence[str] | None = None) -> Any:
        """Return class probabilities, and further outputs if asked for.

        Parameters
        ----------
        X : ndarray
            Images or features; see the class.
        extra_outputs : {"emb", "logits"} or sequence of these, optional
            Further outputs to return.

        Returns
        -------
        ndarray of float32, shape (n, n_classes)
            With `extra_outputs`, a tuple of it and these outputs.
        """
        names = self._normalize_extra_outputs(extra_outputs, self.forward_outputs, "proba")
        parts: list[list[NDArray[np.float32]]] = [[] for _ in ("proba", *names)]
        for batch in self.iter_outputs(X):
            for part, name in zip(parts, ("proba", *names), strict=True):
                part.append(getattr(batch, OUTPUTS[name]).cpu().numpy())
        proba, *extra = map(np.concatenate, parts)
        self._initialize_fallbacks(proba)
        return (proba, *extra) if names else proba

    def predict(self, X: Images, extra_outputs: str | Sequence[str] | None = None) -> Any:
        """Return the labels of the most probable classes, or with a `cost_matrix` of those with the
        lowest expected cost; ties go to the first. See `predict_proba` for `extra_outputs`.
        """
        return best_labels(self, self.predict_proba(X, extra_outputs))

    def sample_proba(
        self,
        X: Images,
        n_samples: int = 20,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[np.float32]:
        """Sample class probabilities by Monte-Carlo dropout (Gal and Ghahramani, 2016).

        Each dropout sample uses one mask for all images. Everything else is in evaluation mode.

        Parameters
        ----------
        X : ndarray
            Images or features; see the class.
        n_samples : int, default=20
            Number of masks.
        random_state : int or RandomState, optional
            Seeds the masks; by default the classifier's `random_state`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n, n_classes)

        Raises
        ------
        ParameterError
            If the model has no dropout, or `n_samples` is below 1.
        """
        self._check_fitted(X)
        if not is_whole(n_samples) or n_samples < 1:
            raise ParameterError(f"n_samples={n_samples!r}; expected a whole number, 1 or more")
        parts = []
        for batch in self.iter_outputs(X, n_samples, random_state):
            assert batch.mc_proba is not None
            parts.append(batch.mc_proba.cpu().numpy())
        return np.concatenate(parts, axis=1)

    def iter_outputs(
        self,
        X: Images,
        n_samples: int = 0,
        random_state: int | np.random.RandomState | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Iterator[Outputs]:
        """Stream over images, or some rows of them, and yield the outputs of each batch.

        These are, on the device, `proba` and `logits` (b, n_classes), `embeddings` (b, n_features)
        and, if `n_samples` is not 0, dropout samples seeded as in `sample_proba`, `mc_proba`
        (n_samples, b, n_classes).
        """
        self._check_fitted(X)
        module = self.neural_net_.module_.eval()
        sampler = None
        if n_samples:
            sampler = DropoutSampler(module, n_samples, self.mask_seed(random_state))

        def outputs(images: Tensor) -> Outputs:
            with torch.inference_mode():
                logits, embeddings = module(images)
                samples = sampler(images, embeddings) if sampler else None
                return Outputs(logits.softmax(-1), logits, embeddings, samples)

        return self._stream(X, outputs, rows)

    def _stream(
        self, X: Images, compute: Callable[[Tensor], T], rows: NDArray[np.int64] | None = None
    ) -> Iterator[T]:
        """Yield the result of `compute` for each batch, on the device and in evaluation mode.

        If a batch runs out of memory, later calls keep the smaller batch size.
        """
        net = self.neural_net_
        net.module_.eval()
        device = str(net.device)
        most = net.iterator_valid__batch_size
        if X.ndim == 4:
            side = net.module_.input_size or X.shape[-1]
            most = min(most, Device(device).scoring_batch_size(side))
            if self.freeze:
                most = max(most, speed_up(net.module_, X, rows))

        def stay(size: int) -> None:
            net.iterator_valid__batch_size = size

        return run_batches(SliceBatches(Dataset(X), most, rows, device), compute, stay)

    def head_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities that the head computes from embeddings.

        Parameters
        ----------
        embeddings : ndarray of float32, shape (n, n_features)
            As from ``predict_proba(X, extra_outputs="emb")``.

        Returns
        -------
        ndarray of float32, shape (n, n_classes)
        """
        self._check_network()
        module = self.neural_net_.module_.eval()
        device = torch.device(self.neural_net_.device)
        with torch.inference_mode():
            logits = module.classify(torch.from_numpy(np.array(embeddings)).to(device))
        proba: NDArray[np.float32] = logits.softmax(-1).cpu().numpy()
        return proba

    def expected_gradient_length(self, X: Images) -> NDArray[np.float32]:
        """Return the gradient norm of the loss of each image, expected over predicted labels.

        The gradient is that of the cross entropy with respect to all weights, which costs one
        backward pass per class.

        Returns
        -------
        ndarray of float32, shape (n,)
        """
        self._check_fitted(X)
        module, n_classes = self.neural_net_.module_.eval(), len(self.classes_)
        lengths = self._stream(
            X, lambda images: expected_gradient_length(module, images, n_classes)
        )
        return torch.cat(list(lengths)).cpu().numpy()

    def replica(self, device: str) -> Self:
        """Return a copy of the fitted classifier, with its network on another device."""
        self._check_network()
        other = copy.copy(self)
        other.neural_net_ = self.neural_net_.replica(device)
        return other

    def mask_seed(self, random_state: int | np.random.RandomState | None) -> int:
        """Return the seed of dropout samples, derived from the classifier's unless one is given."""
        if random_state is not None:
            return as_seed(random_state)
        # independent of the random stream of the weights
        return derive_seed(as_seed(self.random_state) % 2**32, "strategy")

    def take_backbone(self, backbone: Backbone) -> Self:
        """Add the backbone to a head that was trained on its features, so that it takes images.

        Called automatically when a head without backbone gets images.

        Raises
        ------
        NotFittedError, ParameterError
            If the classifier is not fitted, or not frozen.
        """
        self._check_network()
        if not self.freeze:
            raise ParameterError("take_backbone: expected a classifier with freeze=True")
        self.neural_net_.module_.take_backbone(backbone.network)
        self.image_shape_ = backbone.image_shape
        return self

    def _check_network(self) -> None:
        if not hasattr(self, "neural_net_"):
            raise NotFittedError("this ImageClassifier is not fitted; call fit(X, y) first")

    def _check_fitted(self, X: Images) -> None:
        """Check that there is a network, and that it can process `X`."""
        self._check_network()
        check_input(X, self.freeze)
        network = self.neural_net_.module_.network
        if X.ndim == 2:
            expected = network.n_features
            if X.shape[1] != expected:
                raise DataError(f"got {X.shape[1]} features; the head was trained on {expected}")
            return
        if self.freeze and not network.has_backbone:
            shape = self.image_shape_ if network.has_weights else X.shape[1:]
            self.take_backbone(self.backbone(shape))
        if X.shape[1:] != self.image_shape_:
            raise DataError(
                f"got images of shape {X.shape[1:]}; the network was trained on {self.image_shape_}"
            )


def expected_gradient_length(module: ImageModule, images: Tensor, n_classes: int) -> Tensor:
    r"""Return the gradient norm of the loss, expected over predicted labels, float32 of shape (n,).

    This is :math:`\sum_y p_y |\nabla_\theta L(x, y)|` with the cross entropy L and all trainable
    weights :math:`\theta`. The module must be in evaluation mode, with the uint8 images on its
    device.
    """
    if not len(images):  # vmap fails on empty batches
        return torch.zeros(0, device=images.device)
    network = module.network
    weights = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    rest = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
    rest.update(network.named_buffers())
    temperature = module.temperature

    def loss(weights: dict[str, Tensor], pixels: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(network, {**weights, **rest}, (pixels[None],))[0] / temperature
        return F.cross_entropy(logits, label[None]), logits[0].softmax(-1)[label]

    per_image = vmap(grad(loss, has_aux=True), in_dims=(None, 0, None))
    n_weights = sum(p.numel() for p in weights.values())
    at_once = max(1, NUMBERS_AT_ONCE // max(n_weights, 1))
    expected = []
    with uncompiled(network):
        for part in torch.split(module.prepare(images), at_once):
            total = torch.zeros(len(part), device=images.device)
            for label in range(n_classes):
                found, proba = per_image(weights, part, torch.tensor(label, device=images.device))
                squared = sum(g.flatten(1).square().sum(dim=1) for g in found.values())
                total += proba * torch.as_tensor(squared).sqrt()
            expected.append(total)
    return torch.cat(expected)
