"""What a trained network says of images: probabilities, embeddings, dropout samples, gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from skactiveml.classifier import SkorchClassifier
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from torch import Tensor

from ..core.errors import ParameterError, SkalError
from ..core.seeding import derive_seed
from ..datasets.base import Images
from .gradients import expected_gradient_length
from .inputs import as_seed, is_whole
from .module import DropoutSampler
from .net import ImageNet

OUTPUTS: Mapping[str, str] = {"proba": "proba", "logits": "logits", "emb": "embeddings"}


class NotFittedError(SkalError, SklearnNotFittedError):
    """A prediction was asked of a classifier that was never trained."""


class Outputs(NamedTuple):
    """What the network says of one batch."""

    proba: Tensor
    logits: Tensor
    embeddings: Tensor
    mc_proba: Tensor | None


class FittedNetwork(SkorchClassifier):  # type: ignore[misc]
    """The answers of a fitted `ImageClassifier`, all of one stream of batches.

    `X` is images of the shape trained on, uint8 of shape (n, channels, height, width), or with
    `freeze` also features. Where a GPU's memory does not suffice, batches become smaller. All
    methods raise NotFittedError if the classifier was never fitted, and DataError if the images are
    of another shape.
    """

    neural_net_: ImageNet

    def _check_fitted(self, X: Images) -> None:
        """Check that there is a network, and that it takes `X`."""
        raise NotImplementedError

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
        X : ndarray
            See above.
        extra_outputs : {"emb", "logits"} or sequence of these, optional
            What to return besides.

        Returns
        -------
        ndarray of float32, shape (n, n_classes)
            Or a tuple of it and the outputs asked for.
        """
        names = self._normalize_extra_outputs(extra_outputs, self.forward_outputs, "proba")
        parts: list[list[NDArray[np.float32]]] = [[] for _ in ("proba", *names)]
        for batch in self.iter_outputs(X):
            for part, name in zip(parts, ("proba", *names), strict=True):
                part.append(getattr(batch, OUTPUTS[name]).cpu().numpy())
        proba, *extra = map(np.concatenate, parts)
        self._initialize_fallbacks(proba)
        return (proba, *extra) if names else proba

    def sample_proba(
        self,
        X: Images,
        n_samples: int = 20,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[np.float32]:
        """Sample class probabilities by Monte-Carlo dropout (Gal and Ghahramani, 2016).

        Each dropout sample has one mask for all images. All else is in evaluation mode, and the
        state before is restored.

        Parameters
        ----------
        X : ndarray
            See above.
        n_samples : int, default=20
            Number of masks.
        random_state : int or RandomState, optional
            Seeds the masks; by default `random_state` of the classifier does.

        Returns
        -------
        ndarray of float32, shape (n_samples, n, n_classes)

        Raises
        ------
        ParameterError
            If the model has no dropout, so that all samples would be the same, or `n_samples` is
            not 1 or more.
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
        """Stream over images once and yield all that the network says of each batch.

        Parameters
        ----------
        X, random_state
            As for `sample_proba`.
        n_samples : int, default=0
            Dropout samples of each image.
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
        sampler = None
        if n_samples:
            sampler = DropoutSampler(module, n_samples, self.mask_seed(random_state))

        def outputs(images: Tensor) -> Outputs:
            with torch.inference_mode():
                logits, embeddings = module(images)
                samples = sampler(images, embeddings) if sampler else None
                return Outputs(logits.softmax(-1), logits, embeddings, samples)

        return self.neural_net_.stream(X, outputs, rows)

    def head_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities that the head gives embeddings.

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
        """Return the length of the loss's gradient, expected over the predicted labels.

        The gradient is that of the cross entropy with respect to all weights, of each image on its
        own; it costs a backward pass a class.

        Returns
        -------
        ndarray of float32, shape (n,)
        """
        self._check_fitted(X)
        module, n_classes = self.neural_net_.module_.eval(), len(self.classes_)
        lengths = self.neural_net_.stream(
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
        """Return the seed of dropout samples: the one given, or one of the classifier's own."""
        if random_state is not None:
            return as_seed(random_state)
        # not the stream that the weights were drawn from
        return derive_seed(as_seed(self.random_state) % 2**32, "strategy")

    def _check_network(self) -> None:
        if not hasattr(self, "neural_net_"):
            raise NotFittedError("this ImageClassifier was not fitted; call fit(X, y) first")
