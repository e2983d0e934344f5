"""A trained network on any number of other images, and as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.registry import Registry

if TYPE_CHECKING:
    from .networks import NetworkFormat

NETWORK_FORMATS: Registry[type[NetworkFormat]] = Registry("network format")
"""How networks are written to files; the entries are subclasses of `NetworkFormat`."""

_add = NETWORK_FORMATS.add
_add(
    "onnx",
    f"{__name__}.networks:Onnx",
    summary="for onnxruntime, OpenVINO, TensorRT and many others",
)
_add(
    "torchscript", f"{__name__}.networks:TorchScript", summary="for torch alone, in Python and C++"
)
_add("state-dict", f"{__name__}.networks:StateDict", summary="the weights by name, as safetensors")
