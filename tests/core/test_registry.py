from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skal.core.errors import MissingExtraError, ParameterError, UnknownNameError
from skal.core.registry import (
    Entry,
    Family,
    Registry,
    import_object,
    import_plugins,
    parse_spec,
    write_spec,
)


def test_registered_objects_come_back_by_name_in_their_order() -> None:
    registry: Registry[type] = Registry("thing")

    @registry.register("second", summary="a class")
    class Second: ...

    registry.add("first", "pathlib:Path", summary="an import path")

    assert registry.get("second") is Second
    assert registry.get("first") is Path
    assert registry.names() == ["second", "first"]
    assert registry.resolve("first").facts == {"summary": "an import path"}
    assert "first" in registry and "third" not in registry


def test_a_name_is_given_once() -> None:
    registry: Registry[int] = Registry("thing")
    registry.add("one", 1)
    with pytest.raises(ParameterError, match="the thing 'one' is already registered"):
        registry.add("one", 2)
    assert registry.get("one") == 1


def test_an_entry_can_be_taken_out_and_added_anew() -> None:
    registry: Registry[int] = Registry("thing")
    registry.add("one", 1)
    registry.remove("one")
    registry.add("one", 2)
    assert registry.get("one") == 2
    with pytest.raises(UnknownNameError):
        registry.remove("two")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bage", "unknown strategy 'bage'; did you mean badge?"),
        ("zzzzzz", "unknown strategy 'zzzzzz'; known: badge, random"),
    ],
)
def test_unknown_names_come_with_the_nearest(name: str, message: str) -> None:
    registry: Registry[int] = Registry("strategy")
    registry.add("badge", 1)
    registry.add("random", 2)
    with pytest.raises(UnknownNameError) as caught:
        registry.get(name)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("path", ["no_such_module:Name", ":Name", ".relative:Name"])
def test_modules_that_cannot_be_imported_are_a_users_error(path: str) -> None:
    with pytest.raises(ParameterError, match="cannot import"):
        import_object(path)


def test_a_module_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "skal_broken_module.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParameterError, match="RuntimeError: no licence"):
        import_object("skal_broken_module:Name")


def test_where_a_module_of_skal_fails_the_command_that_finds_out_why_is_named() -> None:
    with pytest.raises(ParameterError, match=r"; `skal doctor` checks the installation$"):
        import_object("skal.nothing:Name")
    with pytest.raises(ParameterError) as caught:
        import_object("no_such_module:Name")
    assert "doctor" not in str(caught.value)


def test_a_missing_attribute_comes_with_the_nearest_public_ones() -> None:
    with pytest.raises(UnknownNameError, match="'Pth'; did you mean Path") as caught:
        import_object("pathlib:Pth")
    assert "_" not in str(caught.value).partition("did you mean")[2]


@pytest.mark.parametrize(
    ("spec", "name", "params"),
    [
        ("badge", "badge", {}),
        ("badge?", "badge", {}),
        ("k-means?pick=farthest", "k-means", {"pick": "farthest"}),
        ("m.n:C?a=1&b=0.5&c=None", "m.n:C", {"a": 1, "b": 0.5, "c": None}),
        ("x?a=[1,2]&b='1'&c=k=v", "x", {"a": [1, 2], "b": "1", "c": "k=v"}),
        ("x?a=R%26D&b=100%25&c=5%2526", "x", {"a": "R&D", "b": "100%", "c": "5%26"}),
    ],
)
def test_a_spec_is_a_name_with_arguments(spec: str, name: str, params: dict[str, object]) -> None:
    assert parse_spec(spec) == (name, params)
    assert parse_spec(write_spec(name, params)) == (name, params)


@pytest.mark.parametrize("spec", ["x?rate", "x?=1", "x?a=1&b"])
def test_arguments_that_are_none_are_refused(spec: str) -> None:
    with pytest.raises(ParameterError, match=r"of x: got '[a-z=1]+'; expected NAME=VALUE"):
        parse_spec(spec)


def thing(size: int, colour: str = "red", **more: object) -> tuple[object, ...]:
    return (size, colour, more)


def other(size: int, colour: str = "red") -> tuple[int, str]:
    return (size, colour)


def test_an_entry_is_made_with_its_arguments_and_what_it_takes_of_the_context() -> None:
    registry: Registry[object] = Registry("thing")
    registry.add("other", other)
    entry = registry.resolve("other?colour=blue")
    assert entry.make(size=3, seed=0) == (3, "blue")
    assert registry.resolve(entry.spec) == entry
    assert registry.resolve("other?colour=blue", {"colour": "green"}).spec == "other?colour=green"
    assert registry.resolve("other").spec == "other"
    by_path = registry.resolve(f"{__name__}:thing?weight=2")
    assert by_path.make(size=1, seed=0) == (1, "red", {"weight": 2, "seed": 0})
    with pytest.raises(UnknownNameError, match="argument of other: 'color'; did you mean colour"):
        registry.resolve("other?color=blue").make(size=3)
    with pytest.raises(UnknownNameError, match="argument of other: 'size'"):
        registry.resolve("other?size=4").make(size=3)


def members() -> list[str]:
    return ["small", "large"]


def find(name: str) -> Entry[object]:
    if name not in members():
        raise UnknownNameError("member", name, members())
    return Entry(f"kin:{name}", name.upper())


def no_members() -> list[str]:
    raise MissingExtraError("lost", "lost", "the family lost")


def test_families_are_named_and_expanded_by_pattern() -> None:
    families = {
        "kin": Family(f"{__name__}:find", f"{__name__}:members", "relatives"),
        "lost": Family(f"{__name__}:find", f"{__name__}:no_members", "needs an extra"),
    }
    registry: Registry[object] = Registry("thing", families)
    registry.add("smaller", 1)
    assert [e.name for e in registry.listed()] == ["smaller", "kin:NAME", "lost:NAME"]
    assert [e.name for e in registry.listed("*small*")] == ["smaller", "kin:small"]
    assert [e.name for e in registry.listed("kin:*")] == ["kin:small", "kin:large"]
    assert [e.name for e in registry.listed("small*")] == ["smaller"]
    assert registry.listed("nothing*") == []
    with pytest.raises(MissingExtraError):
        registry.listed("lost:*")
    assert registry.resolve("kin:large?depth=2") == Entry("kin:large", "LARGE", {}, {"depth": 2})
    with pytest.raises(UnknownNameError, match="did you mean large"):
        registry.resolve("kin:lage")
    with pytest.raises(UnknownNameError, match=r"family of things, or module, 'kim'; .* kin"):
        registry.resolve("kim:large")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("thing_5", "; did you mean thing_085 or thing_075 or thing_065?"),
        (
            "foo",
            "; none of the 90 known names is similar, the nearest are "
            "thing_089 or thing_088 or thing_087",
        ),
    ],
)
def test_of_very_many_names_those_that_are_near_are_suggested(name: str, said: str) -> None:
    registry: Registry[int] = Registry("thing")
    for number in range(90):
        registry.add(f"thing_{number:03}", number)
    with pytest.raises(UnknownNameError) as caught:
        registry.resolve(name)
    assert str(caught.value) == f"unknown thing {name!r}{said}"


def test_plugins_that_fail_in_any_way_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    modules = ("skal_exits", "skal_fails", "no_such_one", "skal_works")
    points = [importlib.metadata.EntryPoint(f"p{i}", m, "skal") for i, m in enumerate(modules)]
    (tmp_path / "skal_exits.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "skal_fails.py").write_text("1 / 0\n")
    (tmp_path / "skal_works.py").write_text("done = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.WARNING, "skal"):
        import_plugins(points)
    warned = [record.getMessage() for record in caplog.records]
    assert [line.split()[1] for line in warned] == ["p0", "p1", "p2"]
    assert "division by zero" in warned[1]
    assert "skal_works" in sys.modules


PLUGIN = """
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skal.strategies import STRATEGIES

@STRATEGIES.register("outside-first", summary="the first images", needs="nothing")
class First(SingleAnnotatorPoolQueryStrategy):
    def query(self, X, y, candidates=None, batch_size=1, return_utilities=False):
        return [i for i, label in enumerate(y) if label == -1][:batch_size]
"""


EACH_IN_TURN = """
import json, sys
from click.testing import CliRunner
from skal.cli import main
done = [CliRunner().invoke(main, args) for args in json.load(sys.stdin)]
json.dump([[one.exit_code, one.stdout, one.stderr] for one in done], sys.stdout)
"""


def test_an_installed_package_adds_to_the_command_line_and_a_broken_one_breaks_nothing(
    tmp_path: Path,
) -> None:
    for name, module in (("outside", "skal_outside"), ("broken", "skal_not_there")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[skal]\n{name} = {module}\n")
    (tmp_path / "skal_outside.py").write_text(PLUGIN)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}

    flags = ["--n-init", "4", "--n-query", "3", "--n-rounds", "1", "--steps", "1", "--out", "run"]
    commands = [
        ["list", "strategies", "--json"],
        ["run", "--help"],
        ["run", "--dataset", "digits", "--strategy", "outside-first", *flags],
    ]
    done = subprocess.run(
        [sys.executable, "-c", EACH_IN_TURN],
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd=tmp_path,
        check=True,
    )
    (listed, told, told_of_broken), (_, helped, _), (ran, _, said) = json.loads(done.stdout)
    assert listed == 0
    by_name = {row["name"]: row for row in json.loads(told)}
    assert by_name["outside-first"]["summary"] == "the first images"
    assert "broken" in told_of_broken and "skal_not_there" in told_of_broken
    assert "Traceback" not in told_of_broken
    assert "outside-first" in helped

    assert ran == 0, said
    rows = (tmp_path / "run/queries.csv").read_text().splitlines()[5:]
    picked = [int(row.split(",")[2]) for row in rows]
    assert len(picked) == 3 and max(picked) <= 6
