"""What the documents say works."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import io
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
from skal import strategies
from skal.cli import main
from skal.core.registry import Registry
from skal.label import FORMATS
from skal.strategies import STREAM_STRATEGIES

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), ROOT / "data/README.md", *PAGES])
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
OF_OTHER_TOOLS = {"--ask", "--check", "--internal-host", "--nthreads", "--nworkers"}

ONCE = ("--seeds", "1", "--steps", "1")
ARGUMENTS = {
    "cifar10_percent": ONCE,
    "dask_cluster": ONCE,
    "noise_study": (*ONCE, "--rounds", "0"),
    "person_in_the_loop": ONCE,
    "stand_in": ("flowers", "10"),
    "team_with_overlap": ("--seeds", "1"),
}
"""What keeps an example short."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def skal_commands(text: str) -> dict[str, bool]:
    """Return the commands of skal in a document: lines of blocks (True), and those in sentences."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    marked = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    found = {**dict.fromkeys(marked, False), **dict.fromkeys(parts, True)}
    return {part: whole for part, whole in found.items() if part.startswith("skal ")}


SNIPPETS = [
    pytest.param(code, id=f"{name_of(document)}-{number}")
    for document in [ROOT / "README.md", *PAGES]
    for number, code in enumerate(blocks(document.read_text(), "python"))
]


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
@pytest.mark.parametrize("code", SNIPPETS)
def test_python_in_a_document_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "a document", "exec"), {"__name__": "__main__"})
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


PUBLIC = [name for name in skal.__all__ if name != "__version__"]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_a_public_name_runs(name: str) -> None:
    value = getattr(skal, name)
    text = inspect.getdoc(type(value) if isinstance(value, Registry) else value)
    example = doctest.DocTestParser().get_doctest(text or "", {}, name, name, 0)
    assert example.examples, f"skal.{name} has no example"
    told = io.StringIO()
    assert not doctest.DocTestRunner().run(example, out=told.write).failed, told.getvalue()


def test_the_reference_has_every_public_strategy() -> None:
    page = (ROOT / "docs/reference/python.md").read_text()
    listed = set(re.findall(r"skal\.strategies\.([A-Za-z]+)$", page, re.MULTILINE))
    public = {name for name in strategies.__all__ if inspect.isclass(getattr(strategies, name))}
    registries = {"INIT_STRATEGIES", "STRATEGIES", "STREAM_STRATEGIES"}
    assert listed - {"select"} == public - registries


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
def test_runs_that_documents_show_run() -> None:
    commands = {c for document in DOCUMENTS for c in skal_commands(document.read_text())}
    runs = sorted(c for c in commands if c.startswith("skal run --dataset digits --strategy"))
    assert len(runs) >= 2
    for command in runs:
        words = shlex.split(command)[1:]
        done = CliRunner().invoke(main, [*words, "--steps", "2"])
        assert done.exit_code == 0, done.output
        assert "round 5/5: 120 labels" in done.stderr


def parse(command: click.Command, context: click.Context, words: list[str]) -> None:
    """Check a command's words as skal does, but for files, and run nothing."""
    if isinstance(command, click.Group):
        inner = command.get_command(context, words[0])
        assert inner is not None, f"no command {words[0]}"
        return parse(inner, context, words[1:])
    if words:  # alone it is only the name of the command
        command.make_context(command.name, words, parent=context)
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_in_a_document_is_understood(document: Path) -> None:
    for text, whole in skal_commands(document.read_text()).items():
        words = shlex.split(text.replace("...", ""), comments=True)[1:]
        if "COMMAND" in words or words[0].startswith("-"):
            continue
        try:
            parse(main, click.Context(main), words)
        except click.exceptions.Exit:  # --help
            pass
        except (click.MissingParameter, click.BadOptionUsage) as error:
            # a sentence may leave a folder or a value out
            assert not whole, f"{text}: {error.format_message()}"
        except click.ClickException as error:
            pytest.fail(f"{name_of(document)}: {text}: {error.format_message()}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_option_named_in_a_document_exists(document: Path) -> None:
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    known = {
        option
        for command in [main, *commands.values()]
        for parameter in command.get_params(context)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", document.read_text())) - OF_OTHER_TOOLS
    assert named <= known


# those that use an exported network are run in prediction/test_exports.py
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "example", [p for p in EXAMPLES if not p.stem.startswith("use_")], ids=lambda p: p.stem
)
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


def anchors(text: str) -> set[str]:
    """Return what links may lead to within a page: its headings, as GitHub names them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", document.read_text()):
        place, _, anchor = link.partition("#")
        target = document.parent / place if place else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_is_in_the_navigation() -> None:
    index = ROOT / "docs/index.md"
    lists = re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for text in lists for line in text.splitlines() if line and line[0] != ":"]
    listed = [path.resolve() for line in lines for path in index.parent.glob(f"{line}.md")]
    assert len(listed) == len(set(listed))
    assert {index, *listed} >= set(PAGES)


def test_the_readme_is_short_and_leads_to_every_kind_of_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert set(re.findall(r"\(docs/([a-z-]+\.md)", text)) > {"first-steps.md", "when-not.md"}
