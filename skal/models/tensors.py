"""Read and write tensors in safetensors format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import safetensors.torch
from torch import Tensor


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """Return the tensors in a file's content, by name.

    Raises SafetensorError if the content is not valid, MemoryError if memory runs out.
    """
    with _panicking():
        return safetensors.torch.load(content)


def content_of(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return the content of a file of tensors; raise MemoryError if memory runs out."""
    with _panicking():
        return safetensors.torch.save(dict(tensors), metadata)


@contextmanager
def _panicking() -> Iterator[None]:
    """Raise MemoryError if safetensors panics, which ``except Exception`` does not catch."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise MemoryError(str(error)) from error
        raise
