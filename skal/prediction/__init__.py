"""Prediction with a trained network on new images, and its export to one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.registry import Registry

if TYPE_CHECKING:
    from .networks import NetworkFormat

NETWORK_FORMATS: Registry[type[NetworkFormat]] = Registry("network format")
"""File formats of networks: subclasses of `NetworkFormat`. The fact `suffix` repeats the class's,
to look for an existing file before torch is imported."""

_add = NETWORK_FORMATS.add
_add(
    "onnx",
    f"{__name__}.networks:Onnx",
    summary="ONNX, for onnxruntime, OpenVINO, TensorRT and many others",
    suffix=".onnx",
)
_add(
    "torchscript",
    f"{__name__}.networks:TorchScript",
    summary="TorchScript, for torch in Python and C++, without skal",
    suffix=".pt",
)
_add(
    "state-dict",
    f"{__name__}.networks:StateDict",
    summary="only the weights, by name, as safetensors",
    suffix=".safetensors",
)
