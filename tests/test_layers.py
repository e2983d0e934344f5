"""A module imports only from those above it in the design's table."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import skal

ROOT = Path(skal.__file__).parent
ORDER = (
    "errors",
    "files",
    "progress",
    "memory",
    "registry",
    "seeding",
    "config",
    "datasets",
    "pool",
    "models",
    "batches",
    "training",
    "backbone",
    "learner",
    "embedding",
    "calibration",
    "saving",
    "committee",
    "scoring",
    "strategies",
    "oracles",
    "metrics",
    "wording",
    "records",
    "plots",
    "trackers",
    "pretraining",
    "preflight",
    "resuming",
    "stopping",
    "cold_start",
    "querying",
    "streaming",
    "experiment",
    "active_learner",
    "results",
    "statistics",
    "analysis",
    "report",
    "backends",
    "cells",
    "comparison",
    "sharding",
    "label",
    "testing",
    "doctor",
    "cli",
    "__main__",
)
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
INNER = [path for path in MODULES if path != Path("__init__.py")]


def layer(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over all but what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from nodes(child)


def imported_layers(source: str, module: Path) -> set[str]:
    """Return the layers of skal that a module imports, wherever in it the import stands."""
    package = ["skal", *module.parts[:-1]]
    found = set()
    for node in nodes(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "skal" and len(parts) > 1 and parts[1] in ORDER:
                found.add(parts[1])
    return found


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
from typing import TYPE_CHECKING
import skal.pool
from .. import errors
from ..registry import Registry
from . import base
if TYPE_CHECKING:
    from ..cli import main
def f():
    from ..learner import ImageClassifier
"""
    found = imported_layers(source, Path("models/build.py"))
    assert found == {"pool", "errors", "registry", "models", "learner"}


@pytest.mark.parametrize("module", INNER, ids=str)
def test_module_has_its_place_in_the_order(module: Path) -> None:
    assert layer(module) in ORDER


@pytest.mark.parametrize("module", INNER, ids=str)
def test_module_imports_only_from_above(module: Path) -> None:
    above = ORDER[: ORDER.index(layer(module))]
    below = imported_layers((ROOT / module).read_text(), module) - {layer(module), *above}
    assert not below, f"{module} imports from below: {below}"


def test_nothing_but_the_program_imports_the_command_line() -> None:
    importers = [
        str(module)
        for module in INNER
        if layer(module) not in ("cli", "__main__")
        and "cli" in imported_layers((ROOT / module).read_text(), module)
    ]
    assert importers == []


@pytest.mark.parametrize(
    "name",
    [
        "skal",
        *(
            f"skal.{name}"
            for name in ("errors", "files", "registry", "seeding", "config", "datasets", "models")
        ),
        *(
            f"skal.{name}"
            for name in (
                "strategies",
                "records",
                "plots",
                "trackers",
                "results",
                "statistics",
                "analysis",
                "report",
                "cli",
            )
        ),
    ],
)
def test_importing_costs_no_torch(name: str) -> None:
    if name != "skal" and not list(ROOT.glob(f"{name.partition('.')[2]}*")):
        assert name == "skal.report"  # the only one that is still to come
        return
    code = f"import sys, {name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
