from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

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


def without(package: str, version: str | None = None) -> Callable[[str], Distribution]:
    """Return a search that finds everything but `package`, of which it finds another version."""

    class Other(Distribution):
        def read_text(self, filename: str) -> str:
            return f"Name: {package}\nVersion: {version}\n"

        def locate_file(self, path: object) -> Path:
            raise FileNotFoundError(path)

    def find(name: str) -> Distribution:
        if name != package:
            return importlib.metadata.distribution(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return Other()

    return find


@pytest.mark.parametrize("package", ["Pillow", "torch", "scikit-activeml"])
@pytest.mark.parametrize(("version", "said"), [("0.0.1", "0.0.1"), (None, "missing")])
def test_a_package_that_is_too_old_or_missing_is_named_with_what_is_needed(
    package: str, version: str | None, said: str, tmp_path: Path
) -> None:
    wanted = next(
        str(r.specifier)
        for r in map(Requirement, importlib.metadata.requires("skal") or [])
        if r.name.lower() == package.lower()
    )
    check = by_name(examine(tmp_path, find=without(package, version)))[package]
    assert not check.fine
    assert check.found == f"{said}, needs {wanted}"


def test_skal_that_is_not_installed_is_looked_at_all_the_same(tmp_path: Path) -> None:
    assert by_name(examine(tmp_path, find=without("skal")))["torch"].fine


def test_a_torchvision_that_does_not_fit_is_a_problem_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    check = by_name(examine(tmp_path))["torchvision with torch"]
    assert not check.fine
    assert "pip install" in check.found


def test_a_matplotlib_that_does_not_import_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert by_name(examine(tmp_path))["plots"].fine
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    check = by_name(examine(tmp_path))["plots"]
    assert not check.fine and "cannot import matplotlib" in check.found


def test_a_torch_that_does_not_import_is_a_problem_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not by_name(examine(tmp_path))["device"].fine


def test_a_data_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = by_name(examine(tmp_path / "file" / "data"))["data folder"]
    assert not check.fine
    assert "is not writable" in check.found


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    assert by_name(examine(tmp_path / "a" / "b"))["data folder"].fine
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_problem(tmp_path: Path) -> None:
    check = by_name(examine(tmp_path, least_free=2**60))["free disk"]
    assert not check.fine
    assert check.found.endswith(f"GiB at {tmp_path}")
