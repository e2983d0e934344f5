"""Networks of torchvision: ResNet-18 with a stem for small images, and all others by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torchvision
from torch import Tensor, nn

from ..core.errors import UnknownNameError
from ..core.registry import Entry
from . import Builder
from .network import Network, linear_head
from .weights import downloaded, load_matching, without_prefix

SMALL_IMAGE = 64
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
OF_ONE_SIZE = {"vit_": "image_size", "maxvit_": "input_size"}
"""Prefixes of networks with a fixed image size, and their argument for it."""
WITHOUT_AUXILIARY: Mapping[str, Mapping[str, Any]] = {
    # these weights expect the network to transform its input
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}
"""Networks with auxiliary heads, which are only used by their authors' training recipe."""


def names() -> Sequence[str]:
    """Return the names of torchvision's classification models, and of each of several weights."""
    found: list[str] = []
    for name in torchvision.models.list_models(module=torchvision.models):
        tags = tags_of(name)
        found += [name, *(f"{name}@{tag}" for tag in tags if len(tags) > 1)]
    return found


def tags_of(name: str) -> Sequence[str]:
    """Return the names of a model's weights."""
    return [weights.name for weights in torchvision.models.get_model_weights(name)]


def find(name: str) -> Entry[Builder]:
    """Return the entry for `MODELS` of ``model``, with its default weights, or ``model@WEIGHTS``.

    Raises UnknownNameError if torchvision has no such model or weights.
    """
    weights = weights_of(name)
    facts = {
        "summary": f"torchvision's {name}",
        "lr": 0.001,
        "pretrained": partial(download, weights),
        "image_size": int(weights.transforms().crop_size[0]),
    }
    return Entry(f"torchvision:{name}", partial(build, name), facts)


def weights_of(name: str) -> Any:
    """Return the weights of ``model`` or ``model@WEIGHTS``; raise UnknownNameError if unknown."""
    model, at, tag = name.partition("@")
    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise UnknownNameError("model of torchvision", model, known)
    weights = torchvision.models.get_model_weights(model)
    if at and tag not in tags_of(model):
        raise UnknownNameError(f"weights of torchvision's {model}", tag, tags_of(model))
    return weights[tag] if at else weights.DEFAULT


def build(
    name: str, *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build a model of torchvision, ``model`` or ``model@WEIGHTS``, without its head.

    Input is normalised as its weights expect. skal's head replaces the last linear layer (or, if
    there is none, the last convolution) and dropout right before it; embeddings are the input of
    that layer.
    """
    weights = weights_of(name)
    name = name.partition("@")[0]
    facts = weights.transforms()
    size = next(
        (argument for prefix, argument in OF_ONE_SIZE.items() if name.startswith(prefix)), None
    )
    options = dict(WITHOUT_AUXILIARY.get(name, {}))
    if size == "image_size":
        options["image_size"] = int(weights.meta["min_size"][0])
    net = torchvision.models.get_model(name, weights=None, **options)
    n_features = behead(net)
    return Network(
        net,
        linear_head(n_features, n_classes, dropout),
        tuple(facts.mean),
        tuple(facts.std),
        in_channels=3,
        input_size=int(weights.meta["min_size"][0]) if size else None,
    )


def behead(net: nn.Module) -> int:
    """Remove the last layer and dropout right before it; return the width of its input."""
    leaves = [(path, module) for path, module in net.named_modules() if not list(module.children())]
    linear = [place for place, (_, leaf) in enumerate(leaves) if isinstance(leaf, nn.Linear)]
    convolutions = [place for place, (_, leaf) in enumerate(leaves) if isinstance(leaf, nn.Conv2d)]
    place = (linear or convolutions)[-1]
    path, last = leaves[place]
    before, layer = leaves[place - 1]
    net.set_submodule(path, nn.Identity())
    if isinstance(layer, nn.Dropout):
        net.set_submodule(before, nn.Identity())
    return int(last.in_features if isinstance(last, nn.Linear) else last.in_channels)


def download(weights: Any) -> Mapping[str, Tensor]:
    """Return the state dict of torchvision's weights, downloaded on first use."""
    shown = sys.stderr.isatty()
    return downloaded(
        f"the weights {weights.url}",
        lambda: weights.get_state_dict(progress=shown, check_hash=True),
    )


def resnet18_imagenet() -> Mapping[str, Tensor]:
    """Return torchvision's ImageNet weights of ResNet-18, downloaded on first use."""
    return download(torchvision.models.ResNet18_Weights.DEFAULT)


def resnet18(
    *,
    n_classes: int,
    in_channels: int,
    image_size: int,
    dropout: float = 0.25,
    weights: Mapping[str, Tensor] | None = None,
) -> Network:
    """Build torchvision's ResNet-18 (He et al., 2016).

    Below 64 px a 3x3 convolution replaces the 7x7 stem with stride 2 and the max pooling, as usual
    for CIFAR. With weights (a state dict, whose last layer is ignored) the size of their first
    convolution decides instead.
    """
    net = torchvision.models.resnet18(weights=None)
    if weights is not None:
        weights = without_prefix(weights, net.state_dict())
    first = None if weights is None else weights.get("conv1.weight")
    small_stem = image_size < SMALL_IMAGE if first is None else first.shape[-1] == 3
    if small_stem:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    n_features = net.fc.in_features
    net.fc = nn.Identity()
    head = linear_head(n_features, n_classes, dropout)
    if weights is None:
        return Network(net, head, in_channels=3)
    load_matching(net, weights)
    return Network(net, head, IMAGENET_MEAN, IMAGENET_STD, in_channels=3)
