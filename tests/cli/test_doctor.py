from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

import skal.cli.doctor
import skal.runs.record
from skal.cli.doctor import Check, examine


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_sound_installation_has_no_problem(tmp_path: Path) -> None:
    checks = by_name(examine(tmp_path))
    assert all(check.fine for check in checks.values())
    assert checks["torch"].found == torch.__version__.partition("+")[0]
    assert checks["Pillow"].found == importlib.metadata.version("Pillow")
    assert checks["Python"].found == sys.version.split()[0]
    assert {"device", "threads", "free disk", "data folder"} <= checks.keys()


@pytest.mark.parametrize("package", ["Pillow", "torch", "scikit-activeml"])
def test_a_package_that_is_too_old_or_missing_is_named_with_what_is_needed(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = next(
        str(r.specifier)
        for r in map(Requirement, importlib.metadata.requires("skal") or [])
        if r.name.lower() == package.lower()
    )
    true = skal.runs.record.package_version
    for found, said in (("0.0.1", "0.0.1"), (None, "missing")):
        monkeypatch.setattr(
            skal.cli.doctor,
            "package_version",
            lambda name, f=found: f if name == package else true(name),
        )
        check = by_name(examine(tmp_path))[package]
        assert not check.fine
        assert check.found == f"{said}, needs {wanted}"


def test_skal_that_is_not_installed_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(skal.cli.doctor, "requires", requires)
    assert by_name(examine(tmp_path))["torch"].fine


def test_a_torchvision_that_does_not_fit_is_a_problem_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    check = by_name(examine(tmp_path))["torchvision with torch"]
    assert not check.fine
    assert "pip install" in check.found


def test_a_torch_that_does_not_import_is_a_problem_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not by_name(examine(tmp_path))["device"].fine


def test_a_data_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = by_name(examine(tmp_path / "file" / "data"))["data folder"]
    assert not check.fine
    assert "cannot be written" in check.found


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    assert by_name(examine(tmp_path / "a" / "b"))["data folder"].fine
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 2**20))
    check = by_name(examine(tmp_path))["free disk"]
    assert not check.fine
    assert check.found.startswith("0.0 GiB")
