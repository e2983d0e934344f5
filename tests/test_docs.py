"""What the documents say works."""

from __future__ import annotations

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

import skal
from skal.cli import main
from skal.core.registry import Registry

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), ROOT / "data/README.md"])
README = (ROOT / "README.md").read_text()
OF_OTHER_TOOLS = {"--check", "--nthreads", "--nworkers"}

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
        for parameter in command.params
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


def test_an_extension_takes_fifteen_lines_at_most() -> None:
    for example in (ROOT / "examples").glob("custom_*.py"):
        body = example.read_text().partition('"""\n')[2].partition("if __name__")[0]
        code = [line for line in body.splitlines() if line.strip() and '"""' not in line]
        assert len(code) <= 15, f"{example.name}: {len(code)}"


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
