"""Save trained classifiers, and load them without running code from the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core.durable import sha256, write_atomic
from ..core.errors import ParameterError, RunFolderError, one_line, pass_on_memory
from ..datasets.base import Images
from .backbone import Features
from .classifier import ImageClassifier
from .description import (
    CHECKSUM,
    DESCRIPTION,
    MODEL_FORMAT,
    NO_MODEL,
    WEIGHTS,
    check_model,
    read_description,
)
from .devices import resolve_device
from .inference import NotFittedError, check_input
from .tensors import content_of, tensors_of
from .weights import backbone_of

LONGEST = 1000
"""Longest error message, in characters: torch lists all tensors that do not match."""


def save_classifier(classifier: ImageClassifier, folder: str | Path, **facts: Any) -> None:
    """Write ``model.safetensors`` and ``model.json``, from which `load_classifier` rebuilds it.

    Parameters
    ----------
    classifier : ImageClassifier
        A fitted classifier. Its skorch callbacks are not saved.
    folder : str or Path
        An existing folder.
    **facts
        Further content of ``model.json``, such as the names of the classes.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    ParameterError
        If it was trained on features and has no backbone.

    Examples
    --------
    >>> import tempfile
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
    >>> clf = clf.fit(data.X[:50], data.y[:50])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skal.save_classifier(clf, folder, class_names=data.classes)
    ...     again = skal.load_classifier(folder)
    >>> bool((again.predict(data.X_test) == clf.predict(data.X_test)).all())
    True
    """
    if not hasattr(classifier, "neural_net_"):
        raise NotFittedError("only a fitted ImageClassifier can be saved; call fit(X, y) first")
    if classifier.freeze and not classifier.neural_net_.module_.network.has_weights:
        raise ParameterError(
            "the classifier was trained on features and has no backbone to save; call "
            "classifier.take_backbone(classifier.backbone(image_shape)) first"
        )
    params = classifier.get_params(deep=False)
    for name in ("classes", "cost_matrix"):
        params[name] = None if params[name] is None else np.asarray(params[name]).tolist()
    for name in ("callbacks", "random_state"):
        del params[name]
    if isinstance(params["weights"], Mapping):  # tensors; the saved state replaces them
        params["weights"] = None
    content = {
        "format": MODEL_FORMAT,
        "image_shape": classifier.image_shape_,
        **facts,
        "params": {**params, "augmentation": list(classifier.augmentation)},
    }
    folder, weights = Path(folder), weights_of(classifier)
    content["sha256"] = sha256(weights)
    write_atomic(folder / WEIGHTS, weights)
    text = json.dumps(content, indent=2, default=_plain)
    content = {**json.loads(text), CHECKSUM: sha256(text)}
    write_atomic(folder / DESCRIPTION, json.dumps(content, indent=2) + "\n")


def weights_of(classifier: ImageClassifier) -> bytes:
    """Return the weights of a fitted classifier in safetensors format."""
    state = classifier.neural_net_.module_.state_dict()
    return content_of({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def load_weights(classifier: ImageClassifier, path: Path, X: Images | Features) -> ImageClassifier:
    """Initialise a classifier for images or features like `X`, with weights from `weights_of`.

    Raises RunFolderError if the file is missing, or the weights belong to another network.
    """
    try:
        state = tensors_of(path.read_bytes())
        classifier.initialize(X[:0])
        classifier.neural_net_.module_.load_state_dict(state)
    except (OSError, RuntimeError, SafetensorError) as error:
        pass_on_memory(error)
        raise RunFolderError(
            f"cannot resume from the weights {str(path)!r}: {one_line(error, LONGEST)}"
        ) from error
    return classifier


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def load_classifier(
    folder: str | Path, device: str = "auto", trust: bool = False
) -> ImageClassifier:
    """Load a classifier that `save_classifier` wrote, without running code from the files.

    Parameters
    ----------
    folder : str or Path
        A run folder, or another folder with ``model.safetensors`` and ``model.json``.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Device of the network.
    trust : bool, default=False
        Whether custom networks, ``module:Name``, may be imported.

    Raises
    ------
    RunFolderError
        If the files are missing, damaged or of another format, or the network is a custom one, not
        registered by skal or an installed package, and `trust` is False.
    UnknownNameError, ParameterError
        If the device is unknown or not available.

    Examples
    --------
    >>> import tempfile
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> clf = skal.ImageClassifier("small-cnn", classes=range(10), steps=5, random_state=0)
    >>> clf = clf.fit(data.X[:50], data.y[:50])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skal.save_classifier(clf, folder, class_names=data.classes)
    ...     again = skal.load_classifier(folder)
    >>> bool((again.predict(data.X_test) == clf.predict(data.X_test)).all())
    True
    """
    resolve_device(device)
    folder = Path(folder)
    content = read_description(folder)
    check_model(folder, content, trust)
    damaged = NO_MODEL.format(str(folder))
    try:
        weights = (folder / WEIGHTS).read_bytes()
        if sha256(weights) != content["sha256"]:
            raise RunFolderError(f"{WEIGHTS} is damaged: it does not match its checksum")
        return rebuild(content, tensors_of(weights), device)
    except Exception as error:  # damaged files may raise anything
        pass_on_memory(error)
        raise RunFolderError(f"{damaged}: {one_line(error, LONGEST)}") from error


def rebuild(
    content: Mapping[str, Any], state: Mapping[str, Tensor], device: str
) -> ImageClassifier:
    """Build the classifier that ``model.json`` describes and load its weights.

    Raises RunFolderError, or anything else if the files are damaged.
    """
    shape = tuple(content["image_shape"])
    params = {**content["params"], "pretrained": False, "device": device}
    params["augmentation"] = tuple(params["augmentation"])
    no_images = np.empty((0, *shape), np.uint8)
    check_input(no_images)
    # some builders depend on the backbone's weights (ResNet's stem)
    # compiling would cost more than it saves if images are scored once
    classifier = ImageClassifier(**{**params, "weights": backbone_of(state), "compile": False})
    classifier.initialize(no_images)
    module = classifier.neural_net_.module_
    for name in ("mean", "std"):  # one value, or one per channel, as in the run
        module.register_buffer(name, torch.empty_like(state[name], device=module.mean.device))
    # networks saved before calibration existed have no temperature
    module.load_state_dict({"temperature": torch.ones(()), **state})
    if names := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise RunFolderError(f"the weights have NaN or infinite values in {names[0]}")
    classifier.weights, classifier.compile = params["weights"], params.get("compile", False)
    return classifier
