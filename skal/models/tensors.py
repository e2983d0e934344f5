"""Tensors of safetensors files, and files of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import safetensors.torch
from torch import Tensor


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """Return the tensors in the content of a file, by name.

    A SafetensorError is raised if it is no such file, a MemoryError if there is no memory for them.
    """
    with _panicking():
        return safetensors.torch.load(content)


def content_of(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return the content of a file of tensors; a MemoryError if there is no memory for it."""
    with _panicking():
        return safetensors.torch.save(dict(tensors), metadata)


@contextmanager
def _panicking() -> Iterator[None]:
    """Raise a MemoryError where safetensors panics, which no ``except Exception`` catches."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise MemoryError(str(error)) from error
        raise
