"""Tensors of safetensors files."""

from __future__ import annotations

import safetensors.torch
from torch import Tensor


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """Return the tensors in the content of a file, by name.

    A SafetensorError is raised if it is no such file, a MemoryError if there is no memory for them:
    safetensors panics then, which no ``except Exception`` catches.
    """
    try:
        return safetensors.torch.load(content)
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise MemoryError(str(error)) from error
        raise
