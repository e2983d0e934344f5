"""What tests share."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from made_up import bars
from matplotlib.figure import Figure
from PIL import Image

import skal

torch.set_num_threads(1)

# a shell has Ctrl-C ignored by what runs in its background, and nohup a terminal that is closed; so
# would all that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell out what is no Unicode in captured output: pytest-xdist's workers cannot send it."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


SLOW = ("test_faults", "test_page", "test_site", "test_examples")
SHARED = {"ray_here", "two_processes"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that at the end no worker of pytest-xdist waits for
    another, and let what shares processes of its own follow, side by side.
    """

    def turn(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return 0 if item.path.stem in SLOW else 1 if SHARED.intersection(names) else 2

    items.sort(key=turn)


@pytest.fixture
def tiny() -> skal.ImageDataset:
    """Three classes of 12x12 px that a few optimiser steps tell apart: bars at three heights."""
    return bars()


@pytest.fixture(scope="session", autouse=True)
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep downloads and caches of what tests share out of the working tree, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKAL_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's downloads and caches out of the working tree."""
    folder = tmp_path / "data"
    monkeypatch.setenv("SKAL_DATA_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def restored_logger() -> Iterator[None]:
    """Let no test leave handlers or a level behind."""
    log = logging.getLogger("skal")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


BLANK = {"svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'}
with io.BytesIO() as _file:
    Image.new("RGB", (8, 8)).save(_file, "png")
    BLANK["png"] = _file.getvalue()


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures unrendered, which is most of what a small run takes, unless they are looked at.

    They are composed as ever; what is shared by the tests of a module or session is rendered, too.
    """
    if request.node.get_closest_marker("pictures"):
        return

    def save(figure: Figure, file: BinaryIO, *, format: str, **how: object) -> None:
        file.write(BLANK[format])

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def fashion_mnist_dir() -> Path:
    """Return the folder of the real Fashion-MNIST files; in CI they must be there."""
    debian = "/usr/share/datasets/fashion-mnist"
    folder = Path(os.environ.get("SKAL_FASHION_MNIST") or debian)
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        return folder
    missing = (
        "no Fashion-MNIST here: install Debian's dataset-fashion-mnist or set $SKAL_FASHION_MNIST"
    )
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a headless Chromium, for all tests of a module; in CI it must be there."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    else:
        # the first opens a page in a third of the time
        names = ("chromium-headless-shell", "chromium", "google-chrome")
        program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        missing = "needs Debian's chromium-headless-shell and playwright: pip install '.[test]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        # there is nothing to be drawn by a GPU, and to stand in for one costs
        options = ["--no-sandbox", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


@pytest.fixture
def two_processes() -> int:
    """Return how many processes to ask for; the next test finds them there, with all imported."""
    return 2


@pytest.fixture(scope="session")
def ray_here() -> Iterator[Any]:
    """Start one real Ray of two processors on this machine, for all tests that use it."""
    ray = pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sees = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # the tests' functions, too
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=sees)
        yield ray
        ray.shutdown()
