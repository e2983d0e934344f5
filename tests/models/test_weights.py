"""Files of weights as people have them: each gives the same backbone, and none runs code."""

from __future__ import annotations

import os
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from skal.core.errors import DataError
from skal.models import Network, build_network
from skal.models.checkpoints import read_tensors
from skal.models.weights import tell_once

State = Mapping[str, Tensor]


def build(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
    """Build a network whose names are like a residual network's."""
    block = nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(4, 4, 3, bias=False), bn1=nn.BatchNorm2d(4)),
    )
    layers = OrderedDict(
        conv1=nn.Conv2d(in_channels, 4, 3, bias=False),
        bn1=nn.BatchNorm2d(4),
        layer1=nn.Sequential(block),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
    )
    return Network(nn.Sequential(layers), nn.Sequential(nn.Linear(4, n_classes)))


def started(weights: Path | None = None) -> Network:
    shape: Any = {"n_classes": 3, "in_channels": 3, "image_size": 16, "dropout": 0.0}
    return build_network(f"{__name__}:build", weights=weights, **shape)


def state_of(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    network = started()
    for tensor in network.backbone.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    return {name: t.clone() for name, t in network.backbone.state_dict().items()}


def put(prefix: str, state: State, **more: Tensor) -> dict[str, Tensor]:
    return {**{prefix + name: tensor for name, tensor in state.items()}, **more}


class AttributeDict(dict[str, Any]):
    """Settings, as many a training keeps them."""


def settings() -> dict[str, Any]:
    """Return what stands beside the tensors, of kinds that torch refuses by itself."""
    ema = {"decay": np.float64(0.99), "best": np.float32(0.7), "rng": np.arange(3)}
    args = Namespace(data=Path("data/images"), betas=(0.9, 0.99), dtype=np.dtype("f4"))
    return {
        "args": args,
        "metrics": ema,
        "hyper_parameters": AttributeDict(path=Path("out"), args=args),
        "counts": defaultdict(int, epochs=3),
    }


def optimizer() -> dict[str, Any]:
    module = build(n_classes=2, in_channels=3, image_size=16, dropout=0).backbone
    adam = torch.optim.AdamW(module.parameters())
    module(torch.zeros(2, 3, 16, 16)).sum().backward()
    adam.step()
    return {"optimizer": adam.state_dict(), "scheduler": {"last_epoch": 3}, "epoch": 3}


def whole(state: State) -> nn.Module:
    backbone = started().backbone
    backbone.load_state_dict(state)
    return backbone


HEAD = {"fc.weight": torch.zeros(7, 4), "fc.bias": torch.zeros(7)}
LAYOUTS: dict[str, Callable[[State, State], Any]] = {
    "a state dict": lambda good, _: {**good, **HEAD},
    "Lightning": lambda good, _: {"state_dict": put("model.", good), **settings(), **optimizer()},
    "timm": lambda good, other: {
        "arch": "net",
        **settings(),
        **optimizer(),
        "state_dict": {**other, **HEAD},
        "state_dict_ema": {**good, **HEAD},
    },
    "model_state_dict": lambda good, _: {**optimizer(), "model_state_dict": good},
    "model, numpy": lambda good, _: {"best": np.float64(0.9), "model": good},
    "model, path": lambda good, _: {"model": good, "out": Path("runs/1")},
    "model_ema": lambda good, other: {"model": other, "model_ema": put("module.", good)},
    "net": lambda good, _: {"net": put("module.", good), "acc": 91.2, "epoch": 199},
    "DINO": lambda good, other: {
        "student": put("module.backbone.", other, **{"module.head.mlp.weight": torch.zeros(9, 4)}),
        "teacher": put("backbone.", good, **{"head.mlp.weight": torch.zeros(9, 4)}),
        "dino_loss": {"center": torch.zeros(1, 9)},
        **settings(),
    },
    "MoCo": lambda good, other: {
        "arch": "net",
        "state_dict": {
            **put("module.encoder_q.", good, **{"module.encoder_q.fc.weight": torch.zeros(9, 4)}),
            **put("module.encoder_k.", other),
            "module.queue": torch.zeros(4, 8),
        },
        **optimizer(),
    },
    "encoder": lambda good, _: put("encoder.", good, **{"projector.weight": torch.zeros(9, 4)}),
    "compiled": lambda good, _: put("_orig_mod.", good),
    "compiled, parallel": lambda good, _: {"network": put("_orig_mod.module.trunk.", good)},
    "averaged": lambda good, _: put("module.", good, n_averaged=torch.tensor(3)),
    "a list": lambda good, other: {"ensemble": [good, other]},
    "a whole module": lambda good, _: {"model": whole(good), **settings()},
}


def same(network: Network, state: State) -> bool:
    own = network.backbone.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in state)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_backbone(layout: str, tmp_path: Path) -> None:
    good, other = state_of(1), state_of(2)
    torch.save(LAYOUTS[layout](good, other), tmp_path / "weights.pth")
    assert same(started(tmp_path / "weights.pth"), good)


def test_layouts_of_before_zip_files_are_read_too(tmp_path: Path) -> None:
    good, path = state_of(1), tmp_path / "old.pth.tar"
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"state_dict": put("module.", good), **optimizer()}, path, **old)
    assert same(started(path), good)
    torch.save({"state_dict": good, "args": Namespace(lr=0.1)}, path, **old)
    with pytest.raises(DataError, match=r"refers to argparse\.Namespace, which skal does not run"):
        started(path)


def test_prefixes_are_found_in_safetensors_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell_once.cache_clear()
    caplog.set_level("INFO", "skal")
    good, path = state_of(1), tmp_path / "weights.safetensors"
    safetensors.torch.save_file(put("student.", state_of(2)) | put("teacher.", good), path)
    assert same(started(path), good)
    (told,) = caplog.messages
    assert told.endswith("10 of the backbone's 10 tensors fit; their names begin with 'teacher.'")


def test_settings_of_omegaconf_stand_beside_weights(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    good, path = state_of(1), tmp_path / "weights.ckpt"
    config = omegaconf.OmegaConf.create({"lr": 0.1, "sizes": [1, 2], "model": {"name": "net"}})
    torch.save({"state_dict": put("model.net.", good), "hyper_parameters": config}, path)
    assert same(started(path), good)


def test_where_nothing_fits_both_sides_names_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {f"blocks.{n}.qkv": torch.zeros(2, 3) for n in range(9)}}, path)
    with pytest.raises(DataError) as caught:
        started(path)
    assert str(caught.value) == (
        "the weights do not fit the model: 0 of the backbone's 10 tensors fit; conv1.weight is "
        "missing; the weights have model.blocks.0.qkv (2, 3), model.blocks.1.qkv (2, 3), "
        "model.blocks.2.qkv (2, 3) and 6 more; the backbone has conv1.weight (4, 3, 3, 3), "
        "bn1.weight (4,), bn1.bias (4,) and 9 more"
    )


class Touching:
    """Something whose loading by pickle itself would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return touch, (self.path,)


def touch(path: Path) -> None:
    path.touch()


class MakingAFolder(Touching):
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


class CallingAMethod(Touching):
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    good, path, trace = state_of(1), tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"model": good, "extra": Touching(trace)}, path)
    assert same(started(path), good)
    torch.save({"conv1.weight": Touching(trace)}, path)
    with pytest.raises(DataError, match="contains no tensor; expected a state dict"):
        started(path)
    for evil, told in (
        (MakingAFolder(trace), r"it refers to \w+\.mkdir, which skal does not run; expected"),
        (CallingAMethod(trace), "unrecognized function <object of the file>; expected"),
    ):
        torch.save({"model": good, "extra": evil}, path)
        with pytest.raises(DataError, match=told):
            started(path)
    assert not trace.exists()


def test_a_file_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    good = state_of(1)
    content: dict[str, Any] = {"model": good}
    content["self"] = [content]
    torch.save(content, tmp_path / "weights.pth")
    assert same(started(tmp_path / "weights.pth"), good)


def test_an_object_without_attributes_beside_the_tensors_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "empty.pt"
    torch.save({"model": {"weight": torch.ones(3)}, "args": Namespace()}, path)
    assert list(read_tensors(path)) == ["model.weight"]
