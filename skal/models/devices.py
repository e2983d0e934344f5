"""Device, precision, seeds, and torch's settings while networks compute."""

from __future__ import annotations

import math
import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch

from ..core.errors import ParameterError, UnknownNameError
from ..core.memory import keep_freed_memory

PIXELS_PER_BATCH = {"cpu": 100_000, "cuda": 4_000_000}
_KNOWN_WARNINGS = (
    ".* does not have a deterministic implementation, but you set",
    "Deterministic behavior was enabled with either",
    ".*attention defaults to a non-deterministic algorithm",
    "Please use the new API settings to control TF32 behavior",
)
"""torch's warnings about the settings of `computing_on`, whose docstring covers them."""


@dataclass(frozen=True)
class Device:
    """Device of networks ("cpu", "cuda", "mps", "cuda:1"), and whether they use bfloat16."""

    name: str
    bf16: bool = False

    @classmethod
    def resolve(cls, device: str, precision: str) -> Device:
        """Resolve a device and a precision, either of which may be "auto"."""
        name = resolve_device(device)
        return cls(name, resolve_bf16(precision, name))

    def scoring_batch_size(self, image_size: int) -> int:
        """Return the batch size for scoring that was measured to be fastest.

        On a CPU, feature maps should stay near the caches; a GPU needs large batches.
        """
        pixels = PIXELS_PER_BATCH.get(self.name, PIXELS_PER_BATCH["cuda"])
        return int(np.clip(2 ** round(math.log2(pixels / image_size**2)), 16, 8192))


def resolve_device(device: str) -> str:
    """Return the device, or the one that "auto" stands for.

    Raises UnknownNameError for unknown devices, ParameterError for unavailable ones.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, found in available.items() if found)
    if device not in available:
        raise UnknownNameError("device", str(device), ("auto", *available))
    if not available[device]:
        having = ", ".join(name for name, found in available.items() if found)
        raise ParameterError(f"device {device!r} is not available; this machine has: {having}")
    return device


def resolve_bf16(precision: str, device: str) -> bool:
    """Return whether to use bfloat16; with "auto", if the device supports it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    # torch 2.10 has no get_capabilities
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's generators inside the block and restore their state afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed and restore the generators of Python, numpy and torch, for code that takes no seed."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with torch_seed(seed):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


class _CudaSettings:
    """torch's settings while networks compute on CUDA, shared by all threads that do."""

    def __init__(self) -> None:
        self._lock, self._users, self._settings = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                _hush_torch()
                with ExitStack() as settings:
                    settings.enter_context(_tf32())
                    settings.enter_context(_repeatable())
                    self._settings = settings.pop_all()
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._settings.close()


_CUDA_SETTINGS = _CudaSettings()


def computing_on(device: str) -> AbstractContextManager[None]:
    """Set up torch for computing with networks on a device inside the block.

    On CUDA, float32 matrices are multiplied in TF32, as torch does in convolutions, and results are
    reproducible on the same machine, with the same versions and seed: cuDNN and torch use
    deterministic algorithms. torch has none for the gradients of attention (transformers) and of
    some pooling layers (AlexNet, VGG), which may differ in the last bits without a warning.
    ``CUBLAS_WORKSPACE_CONFIG`` is set to what determinism needs unless the environment has it; that
    and the filters for torch's warnings about determinism remain after the block.

    On a CPU the process keeps freed memory from then on; see `keep_freed_memory`. On MPS nothing
    changes.
    """
    if device.startswith("cuda"):
        return _CUDA_SETTINGS
    if device == "cpu":
        keep_freed_memory()
    return nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    """Set torch's old TF32 setting, which also sets the new ones.

    Some readers, such as torch.compile in torch 2.10, raise if the two differ.
    """
    torch_backends: Any = torch.backends
    backends = [torch_backends.cuda.matmul, torch_backends.mkldnn.matmul]
    new = [backend.fp32_precision for backend in backends]
    try:
        old = torch.get_float32_matmul_precision()
    except RuntimeError:  # they already differ
        old = "high" if new[0] == "tf32" else "highest"
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(old)
        for backend, precision in zip(backends, new, strict=True):
            backend.fp32_precision = precision


@contextmanager
def _repeatable() -> Iterator[None]:
    """Use deterministic algorithms; keep the process's own mode if it already uses them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    mode = torch.are_deterministic_algorithms_enabled()
    before = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    # filling costs a pass over each result and changes none
    cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = True, False, False
    if not mode:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        if not mode:
            torch.use_deterministic_algorithms(False)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before


def _hush_torch() -> None:
    """Ignore warnings that torch would repeat in each step, also if filters were reset since."""
    for message in _KNOWN_WARNINGS:
        known = ("ignore", re.compile(message, re.IGNORECASE), UserWarning, None, 0)
        if known not in warnings.filters:  # changing the filters resets what was warned of once
            warnings.filterwarnings("ignore", message, UserWarning)
