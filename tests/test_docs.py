"""What the documents say works."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from test_layers import ORDER

import skal
from skal.cli import main
from skal.core.registry import Registry
from skal.label import FORMATS
from skal.strategies import STREAM_STRATEGIES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), ROOT / "data/README.md", ROOT / "docs/label-studio.md"])
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
OF_OTHER_TOOLS = {"--check", "--internal-host", "--nthreads", "--nworkers"}

ARGUMENTS = {"cifar10_percent": ("--seeds", "1", "--steps", "1")}
"""What keeps an example short."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def skal_commands() -> list[str]:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if "skal " in part]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and take back out what is registered meanwhile."""
    registries: tuple[Registry[Any], ...]
    registries = (skal.DATASETS, skal.MODELS, skal.STRATEGIES, skal.ORACLES, skal.TRACKERS)
    registries += (STREAM_STRATEGIES, FORMATS)
    before = [set(registry.names()) for registry in registries]
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry.names()) - names:
            registry.remove(name)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_in_the_readme_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("code", blocks(CONTRIBUTING, "python"))
def test_an_extension_in_contributing_registers_something_in_fifteen_lines(code: str) -> None:
    names: dict[str, Any] = {"__name__": "an_extension"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    (registry,) = (value for value in names.values() if isinstance(value, Registry))
    entry = list(registry)[-1]
    assert entry.load() in names.values()
    assert entry.facts["summary"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Yield the functions and classes of a module, methods by ``Class.method``."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{node.name}.")


def test_the_way_of_an_image_goes_through_functions_that_exist() -> None:
    steps = re.findall(r"`([a-z_/]+\.py): ([A-Za-z_.]+)`", CONTRIBUTING)
    assert len(steps) > 10
    for module, name in steps:
        found = definitions(ast.parse((ROOT / "skal" / module).read_text()).body)
        assert name in found, f"{module}: {name}"
    rooms = [ORDER.index(module.partition("/")[0]) for module, _ in steps[2:]]
    assert set(rooms) == {
        ORDER.index(room) for room in ("datasets", "models", "strategies", "runs")
    }


def test_the_picture_of_the_house_has_the_rooms_in_their_order() -> None:
    (picture,) = blocks(CONTRIBUTING, "text")
    assert re.findall(r"^  ([a-z]+) {2,}\S", picture, re.MULTILINE) == list(ORDER)


@pytest.mark.usefixtures("elsewhere")
def test_commands_in_the_readme_run() -> None:
    commands = [c for c in skal_commands() if c.startswith("skal run --dataset digits")]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)[1:]
        done = CliRunner().invoke(main, [*words, "--steps", "2"])
        assert done.exit_code == 0, done.output
        assert "round 5/5: 120 labels" in done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_and_command_named_in_a_document_exists(document: Path) -> None:
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    known = {
        option
        for command in [main, *commands.values()]
        for parameter in command.get_params(context)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    text = document.read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - OF_OTHER_TOOLS
    assert named <= known
    used = set(re.findall(r"`skal ([a-z]+)", text)) | set(re.findall(r"^skal ([a-z]+)", text, re.M))
    assert used <= set(commands)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_runs(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(example), *ARGUMENTS.get(example.stem, ())])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "findings").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_imports_of_skal_exists(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "skal":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}: {alias.name}"


def test_an_extension_takes_fifteen_lines_at_most() -> None:
    for example in (ROOT / "examples").glob("custom_*.py"):
        body = example.read_text().partition('"""\n')[2].partition("if __name__")[0]
        code = [line for line in body.splitlines() if line.strip() and '"""' not in line]
        assert len(code) <= 15, f"{example.name}: {len(code)}"


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
