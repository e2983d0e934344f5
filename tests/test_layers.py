"""A room imports only from those above it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import skal

ROOT = Path(skal.__file__).parent
ORDER = (
    "core",
    "datasets",
    "models",
    "strategies",
    "runs",
    "comparisons",
    "prediction",
    "label",
    "cli",
)
"""The rooms, in the order in which data flows through them."""
MOST_PATCHES, MOST_PRIVATE = 112, 24
"""What there is: lower them with what goes."""
LONGEST_MODULE, LONGEST_FUNCTION = 450, 50
"""Lines, of functions those behind the docstring."""
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
BESIDE = {"__init__.py", "__main__.py", "testing.py", "py.typed"}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
INNER = [path for path in MODULES if len(path.parts) > 1]


def layer(module: Path) -> str:
    return module.parts[0]


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
import skal.strategies
from .. import core
from ..datasets.pool import Pool
from . import base
if TYPE_CHECKING:
    from ..cli import main
def f():
    from ..runs.record import Record
"""
    found = imported_layers(source, Path("models/build.py"))
    assert found == {"strategies", "core", "datasets", "models", "runs"}


def test_nothing_stands_beside_the_rooms() -> None:
    there = {path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert there == {*ORDER, *BESIDE}


@pytest.mark.parametrize("module", INNER, ids=str)
def test_room_imports_only_from_those_above(module: Path) -> None:
    above = ORDER[: ORDER.index(layer(module))]
    below = imported_layers((ROOT / module).read_text(), module) - {layer(module), *above}
    assert not below, f"{module} imports from below: {below}"


@pytest.mark.parametrize("module", INNER, ids=str)
def test_modules_and_functions_are_short(module: Path) -> None:
    source = (ROOT / module).read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, FUNCTIONS)]
    long = [node.name for node in functions if lines_of_body(node) > LONGEST_FUNCTION]
    assert not long
    assert source.count("\n") <= LONGEST_MODULE


def lines_of_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    is_described = ast.get_docstring(function, clean=False) is not None
    body = function.body[is_described:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_nothing_but_the_program_imports_the_command_line() -> None:
    importers = [
        str(module)
        for module in INNER
        if layer(module) != "cli" and "cli" in imported_layers((ROOT / module).read_text(), module)
    ]
    assert importers == []


LIGHT = (
    "skal",
    *(f"skal.core.{path.stem}" for path in sorted((ROOT / "core").glob("[!_]*.py"))),
    "skal.datasets",
    "skal.models",
    "skal.strategies",
    "skal.runs.record",
    "skal.runs.trackers",
    "skal.comparisons.results",
    "skal.comparisons.statistics",
    "skal.comparisons.verdicts",
    "skal.comparisons.report",
    "skal.cli",
)


def test_importing_costs_no_torch() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tests_patch_little_and_leave_private_names_alone() -> None:
    sources = [path.read_text() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    patches = sum(len(re.findall(r"\b(?:monkeypatch|patch)\.setattr\(", text)) for text in sources)
    private = sum(len(re.findall(r"\b(?!self\b)\w+\._[a-z]", text)) for text in sources)
    assert patches <= MOST_PATCHES, "ask for what a test needs through an argument"
    assert private <= MOST_PRIVATE
