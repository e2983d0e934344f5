"""What tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import skal

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell out what is no Unicode in captured output: pytest-xdist's workers cannot send it."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture
def tiny() -> skal.ImageDataset:
    """Three classes of 12x12 px that a few optimiser steps tell apart: bars at three heights."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(n) % 3
        X = rng.integers(0, 80, (n, 1, 12, 12), dtype=np.uint8)
        for image, label in zip(X, y, strict=True):
            image[0, 4 * label : 4 * label + 4] += 150
        return X, y

    X, y = draw(90)
    X_test, y_test = draw(30)
    return skal.ImageDataset(X, y, ("low", "middle", "top"), X_test, y_test, name="tiny")


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


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs draw no learning curve, which takes longer than a small run."""
    monkeypatch.setattr("skal.runs.finished.learning_curve", lambda rounds, title: {})


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
