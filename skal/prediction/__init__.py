"""A trained network on any number of other images, and as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.registry import Registry

if TYPE_CHECKING:
    from .networks import NetworkFormat

NETWORK_FORMATS: Registry[type[NetworkFormat]] = Registry("network format")
"""How networks are written to files; the entries are subclasses of `NetworkFormat`. The
fact `suffix` is that of the class, to look for a file of that name before torch is imported."""

_add = NETWORK_FORMATS.add
_add(
    "onnx",
    f"{__name__}.networks:Onnx",
    summary="for onnxruntime, OpenVINO, TensorRT and many others",
    suffix=".onnx",
)
_add(
    "torchscript",
    f"{__name__}.networks:TorchScript",
    summary="for torch alone, in Python and C++",
    suffix=".pt",
)
_add(
    "state-dict",
    f"{__name__}.networks:StateDict",
    summary="the weights by name, as safetensors",
    suffix=".safetensors",
)
