"""`ImageClassifier`: an image network with the interface of a scikit-activeml classifier."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skactiveml.base import SkactivemlClassifier
from skactiveml.utils import is_labeled
from torch import Tensor, nn

from ..core.errors import DataError, ParameterError, UnknownNameError
from ..core.few_labels import FEW_LABELS
from ..core.memory import take_mapped
from ..core.seeding import derive_seed
from ..core.settings import check_values
from ..core.signatures import shows_settings
from ..datasets.base import MISSING_LABEL, Images
from .backbone import Backbone, Features
from .devices import Device, torch_seed
from .heads import HEADS
from .inference import FittedNetwork, as_seed, check_input, check_labels
from .logistic import weights_of
from .net import SETTINGS, check_callbacks, net_params, start_from
from .network import AUGMENTATIONS, ImageModule
from .settings import ClassifierSettings, head_for
from .training import ImageNet

SAMPLE = 1000
"""Images from which the mean and standard deviation of features are estimated."""
UNCHECKED: Mapping[str, Any] = MappingProxyType(
    {
        "ensure_min_samples": 0,
        "ensure_min_features": 0,
        "allow_nd": True,
        "dtype": None,
        "ensure_all_finite": False,
    }
)
"""scikit-learn's checks of X: none, since they are slow for float16; see `_features`."""


@shows_settings(ClassifierSettings)
class ImageClassifier(FittedNetwork):
    """A convolutional network as a scikit-activeml classifier.

    Parameters
    ----------
    model : str, default="small-cnn"
        A name that ``skal list models`` shows, or ``package.module:builder``.
    classes : array-like of shape (n_classes,)
        All class labels, including those without a labelled image yet. Required.
    **settings
    augmentation : tuple of str, default=()
        Augmentations of the training images: names in `skal.models.AUGMENTATIONS`.
    callbacks : sequence, default=()
        Additional skorch callbacks.
    missing_label : int, default=-1
        Marks unlabelled images in `y`.
    cost_matrix : array-like of shape (n_classes, n_classes), optional
        See `skactiveml.base.SkactivemlClassifier`.
    random_state : int, RandomState or None, default=None
        Seeds initialisation, batches, augmentation and dropout. torch's global random state is
        not changed.

    References
    ----------
    J. T. Ash, R. P. Adams. On Warm-Starting Neural Network Training. NeurIPS 2020.

    L. N. Smith, N. Topin. Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates. 2019.

    Notes
    -----
    `X` is uint8 of shape (n, channels, height, width), square; `predict_proba(X)` is float32 of
    shape (n, n_classes), its columns in the order of `classes_`. `extra_outputs` can be "logits",
    (n, n_classes), already divided by `temperature`, and "emb", the input of the last layer,
    (n, n_features).

    The head "logistic" of a frozen backbone is multinomial logistic regression on features scaled
    to length 1, solved to its optimum. Stratified cross-validation over the labels chooses its
    regularisation strength (`strength`) and, with "efficientnet-lite0-stages", the weight of
    features of earlier stages (`stages_share`). The other heads standardise features by the mean
    and standard deviation over up to 1,000 images of `X`, labelled or not. Fitting on pixels or on
    their features gives the same head, up to rounding.

    Every fit starts from new weights, unless `warm_start` is set. A fit without any label leaves
    the network untrained.

    Examples
    --------
    >>> import numpy as np
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> y = np.full(len(data.X), -1)  # -1: not labelled
    >>> y[:50] = data.y[:50]
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
    >>> proba, embeddings = clf.fit(data.X, y).predict_proba(data.X_test, extra_outputs="emb")
    >>> proba.shape, proba.dtype, embeddings.ndim
    ((359, 10), dtype('float32'), 2)
    """

    # parameters of SkorchClassifier that this class fixes
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
        schedule: str = "one-cycle",
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
        head: str | None = None,
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
        self.schedule = schedule
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
        sample_weight: ArrayLike | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        **fit_params: Any,
    ) -> ImageClassifier:
        """Train a new network on the labelled images.

        A fit that fails, or is interrupted by Ctrl-C, leaves the classifier as it was.

        Parameters
        ----------
        X : ndarray of uint8, shape (n, channels, height, width)
            Labelled and unlabelled images. Unlabelled ones are only read with `freeze`, some of
            them, to standardise features. With `freeze`, X may also be features, float16 or
            float32 of shape (n, n_features).
        y : array-like of int, shape (n,)
            Labels; `missing_label` marks unlabelled images.
        sample_weight : array-like of float, shape (n,), optional
            Positive weights of the labelled images; only for the head "logistic".
        rows : ndarray of int64, optional
            Images that may be used to standardise features, for example those that are not held
            out; by default all.

        Returns
        -------
        self : ImageClassifier

        Raises
        ------
        ParameterError, DataError
            If a parameter, `X` or a label is not valid, or the training diverges.
        """
        self._check(X, y, fit_params)
        weights = self._weights(y, sample_weight)
        trained, seed = copy.copy(self), as_seed(self.random_state)
        backbone = self.backbone(X.shape[1:]) if self.freeze and X.ndim == 4 else None
        labels, sample = np.asarray(y), None
        inputs: Any = X
        if self.freeze:
            inputs, labels, sample = self._features(backbone, X, labels, rows)
        with torch_seed(seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
            inputs, labels = trained._build(inputs, labels)
            if self.warm_start != "off" and hasattr(self, "neural_net_"):
                start_from(self.neural_net_.module_, trained.neural_net_.module_, self.warm_start)
            if sample is not None:
                scaling = trained.neural_net_.module_.network.scaling
                scaling.measure(torch.from_numpy(np.array(sample)))
            trained._train(inputs, labels, weights)
        if backbone is not None:
            trained.take_backbone(backbone)
        trained.n_partial_fits_ = 0
        self.__dict__.update(trained.__dict__)
        return self

    def partial_fit(
        self, X: Images, y: ArrayLike, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> ImageClassifier:
        """Continue training from the current weights, on images of the same shape; see `fit`.

        Each call draws different batches, also with an integer `random_state`. The temperature
        is reset to 1, since it was fitted to the previous weights.
        """
        if not hasattr(self, "neural_net_"):
            return self.fit(X, y, sample_weight=sample_weight, **fit_params)
        self._check(X, y, fit_params)
        weights = self._weights(y, sample_weight)
        self._check_fitted(X)
        # otherwise an integer seed would draw the same batches in each call
        calls = self.n_partial_fits_ + 1
        seed = derive_seed(as_seed(self.random_state) % 2**32, "training", calls)
        inputs: Any = X
        labels, trained = np.asarray(y), copy.copy(self)
        if self.freeze:
            backbone = self.backbone(X.shape[1:]) if X.ndim == 4 else None
            inputs, labels, _ = self._features(backbone, X, labels, None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", FEW_LABELS, UserWarning)
            inputs, labels, _ = trained._validate_data(inputs, labels, check_X_dict={**UNCHECKED})
        with torch_seed(seed), self.neural_net_.restored_on_error():
            trained._train(inputs, labels, weights)
        trained.n_partial_fits_ = calls
        self.__dict__.update(trained.__dict__)
        return self

    @property
    def head_used(self) -> str:
        """The head of a frozen backbone: `head`, or the default for the other parameters."""
        if self.head is not None:
            return self.head
        return head_for(vars(self))

    @property
    def is_solved(self) -> bool:
        """Whether the head is solved to its optimum rather than trained by gradients."""
        return self.freeze and HEADS[self.head_used].solved

    @property
    def strength(self) -> float | None:
        """The C of a solved head's last fit, the inverse of its regularisation strength."""
        if not self.is_solved or not hasattr(self, "neural_net_"):
            return None
        return float(self.neural_net_.module_.network.strength) or None

    @property
    def stages_share(self) -> float | None:
        """The share of the squared feature length that a solved head's last fit gave to features of
        earlier stages; None for networks without them. It does not change embeddings.
        """
        if self.strength is None:
            return None
        share = getattr(self.neural_net_.module_.network, "share", None)
        return None if share is None else round(float(share), 6)

    def initialize(
        self, X: Any = None, y: ArrayLike | None = None, enforce_check_X_y: bool = False
    ) -> Any:
        """Build the network for images like `X` without training it.

        With `enforce_check_X_y` it returns ``(self, X, y)``, as in scikit-activeml.

        Raises
        ------
        ParameterError, DataError
            As for `fit`; also without `X`, since the network depends on the image shape.
        """
        if X is None:
            raise ParameterError(
                "initialize() got no images; call initialize(X): the network depends on their shape"
            )
        labels = np.full(len(X), self.missing_label) if y is None else np.asarray(y)
        self._check(X, labels, {})
        inputs, backbone = X, None
        if self.freeze and X.ndim == 4:
            backbone = self.backbone(X.shape[1:])
            inputs = np.zeros((len(X), backbone(X[:0]).shape[1]), np.float16)
        with torch_seed(as_seed(self.random_state)):
            _, labels = self._build(inputs, labels)
        if backbone is not None:
            self.take_backbone(backbone)
        self.n_partial_fits_ = 0
        return (self, X, labels) if enforce_check_X_y else self

    def backbone(self, image_shape: tuple[int, ...]) -> Backbone:
        """Build the frozen backbone for images of shape (channels, height, width).

        Raises
        ------
        SkalError
            If a parameter is not valid, or the weights do not fit.
        """
        self._check_parameters()
        return Backbone.build(
            self.model,
            image_shape,
            Device.resolve(self.device, self.precision),
            pretrained=self.pretrained,
            weights=self.weights,
        )

    def variant(self, **changes: Any) -> Self:
        """Return an unfitted copy with some parameters changed."""
        # not scikit-learn's clone, which copies callbacks: the user's should see all trainings
        return type(self)(**{**self.get_params(deep=False), **changes})

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "neural_net_")

    def _features(
        self,
        backbone: Backbone | None,
        X: Any,
        y: NDArray[Any],
        measurable: NDArray[np.int64] | None,
    ) -> tuple[Features, NDArray[Any], Features]:
        """Return features and labels of the labelled images, and features to standardise by."""
        labeled = np.flatnonzero(is_labeled(y, missing_label=self.missing_label))
        n = len(X) if measurable is None else len(measurable)
        spread = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
        if measurable is not None:
            spread = measurable[spread]
        if backbone is None:
            first, second = X[labeled], X[spread]
        else:
            rows = np.union1d(labeled, spread)
            features = backbone(X[rows])
            first, second = (features[np.searchsorted(rows, part)] for part in (labeled, spread))
        if not np.isfinite(first).all():
            raise DataError("features of labelled images are NaN or infinite; expected finite ones")
        return first, y[labeled], second

    def _build(self, X: Images | Features, y: NDArray[Any]) -> tuple[Any, NDArray[np.int64]]:
        """Build a network with new weights, and return X and the columns of the labels y."""
        X, y, _ = self._validate_data(X, y, check_X_dict={**UNCHECKED})
        _, criterion, _ = self._net_parts(X, y)
        params = net_params(self, X)
        self.neural_net_ = ImageNet(ImageModule, criterion=criterion, **params).initialize()
        if self.compile and not self.freeze:
            self.neural_net_.module_.network.backbone.compile()
        if X.ndim == 4:
            self.image_shape_ = tuple(int(side) for side in X.shape[1:])
        return X, y

    def _train(self, X: Any, y: NDArray[np.int64], weights: NDArray[np.float64] | None) -> None:
        """Train on the labelled images, if any, without keeping pages of a memmap in memory."""
        labeled = np.flatnonzero(is_labeled(y, missing_label=MISSING_LABEL))
        if len(labeled):
            self.neural_net_.module_.temperature.fill_(1)
            images, labels = take_mapped(X, labeled), y[labeled].astype(np.int64)
            self.neural_net_.train_on(images, labels, weights)

    def _weights(self, y: ArrayLike, sample_weight: ArrayLike | None) -> NDArray[np.float64] | None:
        """Return the weights of the labelled images, of mean 1; None if the head is not solved."""
        if not self.is_solved:
            if sample_weight is not None:
                raise ParameterError(
                    "got sample_weight, which only the head 'logistic' of a frozen backbone takes; "
                    "leave it out"
                )
            return None
        labels = np.asarray(y)
        labeled = is_labeled(labels, missing_label=self.missing_label)
        return weights_of(labels, labeled, sample_weight, self.balanced)

    def _check(self, X: Any, y: ArrayLike, fit_params: Mapping[str, Any]) -> None:
        """Check all arguments of a fit before any work is done."""
        self._check_parameters()
        if fit_params:
            raise ParameterError(
                f"ImageClassifier.fit does not take {', '.join(fit_params)}; leave it out"
            )
        if self.callbacks:
            check_callbacks(self)
        check_input(X, self.freeze)
        assert self.classes is not None
        check_labels(y, len(X), self.classes, self.missing_label)

    def _check_parameters(self) -> None:
        if self.classes is None:
            raise ParameterError(
                "ImageClassifier needs `classes`, all class labels, e.g. classes=[0, 1, 2]: some "
                "classes may have no labelled image yet"
            )
        # `check_values` expects a file name; a state dict is valid, too
        weights = "a state dict" if isinstance(self.weights, Mapping) else self.weights
        check_values(SETTINGS, {**vars(self), "weights": weights})
        if not isinstance(self.augmentation, tuple | list):
            raise ParameterError(
                f"augmentation: got {self.augmentation!r}; expected a tuple of names, such as "
                "('flip',)"
            )
        for name in self.augmentation:
            if name not in AUGMENTATIONS:
                raise UnknownNameError("augmentation", name, AUGMENTATIONS)
