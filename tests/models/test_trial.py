"""Networks of somebody else are looked at before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import skal
from skal.core.errors import DataError, ParameterError, UnknownNameError
from skal.models import Network


def small(*, n_classes: int, in_channels: int, width: int = 4) -> Network:
    """Take some of the arguments alone, and one of its own."""
    backbone = nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return Network(backbone, nn.Sequential(nn.Dropout(0.1), nn.Linear(width, n_classes)))


class Wrong(Network):
    def __init__(self, made: Network, what: str) -> None:
        super().__init__(made.backbone, made.head)
        self.what = what

    def forward(self, images: Tensor) -> Any:
        logits, embeddings = super().forward(images)
        return {
            "logits": logits,
            "triple": (logits, embeddings, embeddings),
            "swapped": (embeddings, logits),
            "classes": (logits.argmax(1), embeddings),
            "nothing": None,
            "sum": (logits.sum(0), embeddings),
        }[self.what]


def wrong(*, n_classes: int, in_channels: int, what: str) -> Network:
    return Wrong(small(n_classes=n_classes, in_channels=in_channels), what)


def a_module(*, n_classes: int) -> nn.Module:
    return nn.Linear(3, n_classes)


def failing() -> Network:
    raise RuntimeError("no licence")


FAST: dict[str, Any] = {"n_rounds": 0, "n_init": 6, "steps": 2}


def test_arguments_in_the_name_reach_the_builder(tiny: skal.ImageDataset, tmp_path: Path) -> None:
    spec = f"{__name__}:small?width=6"
    run = skal.run(tiny, "random", model=spec, **FAST, out=tmp_path / "run")
    assert run.config.model == spec
    assert run.classifier.neural_net_.module_.network.head[-1].in_features == 6
    loaded = skal.load_classifier(tmp_path / "run", trust=True)
    assert loaded.neural_net_.module_.network.head[-1].in_features == 6
    with pytest.raises(UnknownNameError, match="'widht'; did you mean width"):
        skal.run(tiny, "random", model=f"{__name__}:small?widht=6", **FAST)


@pytest.mark.parametrize(
    ("what", "got"),
    [
        ("logits", r"float32 of shape \(2, 3\)"),
        ("triple", r"\(float32 of shape \(2, 3\), float32 of shape \(2, 4\), float32 of"),
        ("swapped", r"\(float32 of shape \(2, 4\), float32 of shape \(2, 3\)\)"),
        ("classes", r"\(int64 of shape \(2,\), "),
        ("nothing", "None"),
        ("sum", r"\(float32 of shape \(3,\), "),
    ],
)
def test_what_forward_returns_is_looked_at_before_anything_is_written(
    what: str, got: str, tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    message = rf"wrong\?what={what}' \(Wrong\) returned {got}.*; expected \(logits, embeddings\)"
    with pytest.raises(ParameterError, match=message):
        skal.run(
            tiny, "random", model=f"{__name__}:wrong?what={what}", **FAST, out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_what_is_no_network_is_refused(tiny: skal.ImageDataset) -> None:
    with pytest.raises(ParameterError, match="returned Linear; expected a skal"):
        skal.run(tiny, "random", model=f"{__name__}:a_module", **FAST)
    with pytest.raises(ParameterError, match="cannot be built: RuntimeError: no licence"):
        skal.run(tiny, "random", model=f"{__name__}:failing", **FAST)


def test_a_size_that_it_does_not_take_is_told(tiny: skal.ImageDataset) -> None:
    class Narrow(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[-1] == 5, "five pixels, please"
            return torch.zeros(len(images), 2)

    skal.MODELS.add("narrow", lambda **shape: Network(Narrow(), nn.Linear(2, shape["n_classes"])))
    try:
        with pytest.raises(
            DataError, match=r"'narrow' cannot process images of 12 px \(five pixels"
        ):
            skal.run(tiny, "random", model="narrow", **FAST)
    finally:
        skal.MODELS.remove("narrow")
