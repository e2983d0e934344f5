"""Networks of timm, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import timm
from torch import Tensor

from ..core.errors import UnknownNameError
from ..core.registry import Entry
from ..datasets.decoding import GEOMETRIES
from . import Builder
from .network import Network, linear_head
from .weights import downloaded


def names() -> Sequence[str]:
    """Return the names of timm's architectures, with each of their weights."""
    known: list[str] = timm.list_models(include_tags=True)
    return known


def find(name: str) -> Entry[Builder]:
    """Return the entry for `MODELS` of ``architecture`` or ``architecture.weights``.

    Raises UnknownNameError if timm has no such architecture or weights.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownNameError("model of timm", architecture, timm.list_models())
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise UnknownNameError(f"weights of timm's {architecture}", tag, tags) from error
    facts: dict[str, Any] = {"summary": f"timm's {name}", "lr": 0.001}
    if config is not None:
        facts["image_size"] = int(config.input_size[-1])
        if config.test_input_size and not config.fixed_input_size:
            facts["frozen_image_size"] = int(config.test_input_size[-1])
        if config.crop_mode in GEOMETRIES:  # else "center", which is the default, "cover"
            facts["geometry"] = config.crop_mode
        if config.has_weights:
            facts["pretrained"] = partial(pretrained, name)
    return Entry(f"timm:{name}", partial(build, name), facts)


def build(
    name: str, *, n_classes: int, in_channels: int, image_size: int, dropout: float
) -> Network:
    """Build a model of timm without its head.

    Input is normalised, and resized if the model needs a fixed size, as its weights expect.
    """
    net = timm.create_model(name, num_classes=0)
    facts = timm.data.resolve_model_data_config(net)
    fixed = net.pretrained_cfg.get("fixed_input_size", False)
    return Network(
        net,
        linear_head(int(net.head_hidden_size), n_classes, dropout),
        tuple(facts["mean"]),
        tuple(facts["std"]),
        in_channels=int(facts["input_size"][0]),
        input_size=int(facts["input_size"][-1]) if fixed else None,
    )


def pretrained(name: str) -> Mapping[str, Tensor]:
    """Return the state dict that timm loads for a model, downloaded on first use."""
    return downloaded(
        f"timm's weights of {name}",
        lambda: timm.create_model(name, pretrained=True, num_classes=0).state_dict(),
    )
