"""The environment of a run: versions, device, code."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..core.registry import parse_spec
from ..core.trust import naming
from .config import RunConfig

PACKAGES = (
    "skal",
    "scikit-activeml",
    "skorch",
    "torch",
    "torchvision",
    "scikit-learn",
    "numpy",
    "Pillow",
)
ENGINE = "openvino"
"""Inference engine of frozen backbones on the CPU, if it is installed."""


def environment(config: RunConfig) -> dict[str, Any]:
    """Return the content of ``environment.json``: versions, device, precision, threads, platform,
    command and code.
    """
    import torch

    device = config.device

    return {
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in (*PACKAGES, ENGINE)},
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "precision": config.precision,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "command": _command(),
        "code": own_code(config),
    }


def own_code(config: RunConfig) -> dict[str, str]:
    """Return the file hashes of modules that settings name as ``module:Name``. Installed packages,
    which are known by their version, are left out.
    """
    found = {}
    for _, spec, _ in naming(config):
        module, colon, _ = parse_spec(spec)[0].partition(":")
        file = getattr(sys.modules.get(module), "__file__", None) if colon else None
        if file and "site-packages" not in Path(file).parts and module.partition(".")[0] != "skal":
            with suppress(OSError):
                found[module] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return found


def changed_code(before: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """Return the modules whose files have changed since an earlier `environment`."""
    known = before.get("code", {})
    return [module for module, code in now.items() if known.get(module, code) != code]


def _command() -> list[str]:
    """Return the command line, as one would type it."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["python", "-m", program.parent.name, *sys.argv[1:]]
    return [program.name if os.access(program, os.X_OK) else sys.argv[0], *sys.argv[1:]]


def _processor() -> str:
    """Return the processor's name, which `platform` does not find on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
