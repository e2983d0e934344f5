"""What tests share: runs that were never run, models of few lines, the memory of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import skal
from skal.comparisons.results import Result
from skal.models import MODELS, Network, linear_head
from skal.runs.config import RunConfig


def bars() -> skal.ImageDataset:
    """Return three classes of 12x12 px that a few steps tell apart: bars at three heights."""
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


def made_up_results(
    strategies: Sequence[str] = ("random", "badge", "margin"),
    n_seeds: int = 3,
    *,
    n_rounds: int = 3,
    gain: float = 0.02,
    settings: Sequence[dict[str, Any]] = ({},),
) -> list[Result]:
    """Each strategy is better than the one before it by about `gain`; each curve saturates."""
    results = []
    for setting in settings:
        for number, strategy in enumerate(strategies):
            for seed in range(n_seeds):
                config = RunConfig(
                    **{"dataset": "digits", "model": "small-cnn", **setting},
                    strategy=strategy,
                    seed=seed,
                )
                draw = np.random.default_rng([seed, number])
                rounds = [
                    {
                        "round": k,
                        "n_labeled": 20 * (k + 1),
                        "accuracy": 0.9
                        - 0.4 * 0.6**k
                        + min(k, 1) * (gain * number + draw.normal(0, 0.005)),
                        "nll": 1.0 / (k + 1),
                        "fit_seconds": 0.5,
                    }
                    for k in range(n_rounds + 1)
                ]
                summary = {"dataset": config.dataset, "accuracy": rounds[-1]["accuracy"]}
                results.append(Result(config, summary, rounds))
    return results


BUDGETS = (20, 40, 60, 80, 100)


def drawn(
    gains: Mapping[str, float], n_seeds: int = 10, n_budgets: int = len(BUDGETS), noise: int = 0
) -> dict[str, dict[int, list[float]]]:
    """Return learning curves that rise from 0.5 towards 0.95, the faster the larger the gain."""
    curves: dict[str, dict[int, list[float]]] = {}
    for number, (name, gain) in enumerate(gains.items()):
        for seed in range(n_seeds):
            shared = np.random.default_rng([seed, noise]).normal(0, 0.01)
            own = np.random.default_rng([seed, noise, number]).normal(0, 0.004, n_budgets)
            own[0] = 0
            rise = 0.45 * (1 - np.exp(-0.4 * gain * np.arange(n_budgets)))
            curves.setdefault(name, {})[seed] = (0.5 + shared + rise + own).tolist()
    return curves


FOUR = drawn({"random": 1.0, "badge": 2.0, "margin": 1.0, "bald": 0.5})


class _Linear(nn.Module):
    def __init__(self, n_inputs: int, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(n_inputs, 8)
        self.answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer(self.layer(images.flatten(1)))


@contextmanager
def model_of(
    answer: Callable[[torch.Tensor], torch.Tensor], mean: float = 0.5, name: str = "made-up"
) -> Iterator[str]:
    """Register a network: what it answers is code, and no matter of its weights."""

    def build(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
        backbone = _Linear(in_channels * image_size**2, answer)
        return Network(backbone, linear_head(8, n_classes, dropout), (mean,))

    MODELS.add(name, build)
    try:
        yield name
    finally:
        MODELS.remove(name)


def resident_of_files() -> int:
    """Return the bytes of mapped files that count as this process's memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0]) * 1024


class Watched(nn.Module):
    """A backbone that tells of each batch before it answers."""

    def __init__(
        self, in_channels: int, tell: Callable[[int, bool], float], normalised: bool
    ) -> None:
        super().__init__()
        norm = [nn.BatchNorm2d(8)] if normalised else []
        self.inner = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3), *norm, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.tell = tell

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.inner(images) * self.tell(len(images), self.training)
        return features


@contextmanager
def watched(tell: Callable[[int, bool], float], normalised: bool = False) -> Iterator[str]:
    """Register a model that tells of the size of each batch, and whether it is trained on it.

    Its features are multiplied by the answer; `normalised` gives it batch norm.
    """

    @MODELS.register("watched")
    def build(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
        return Network(Watched(in_channels, tell, normalised), linear_head(128, n_classes, dropout))

    try:
        yield "watched"
    finally:
        MODELS.remove("watched")


class Memory:
    """Of a device that has room for so many images at once, batch by batch; what it was asked.

    Parameters
    ----------
    *room : int
        Of each batch; the last one is that of all that follow.
    training : bool
        Whether only training needs room.
    """

    def __init__(self, *room: int, training: bool = False) -> None:
        self.asked: list[int] = []
        self._room, self._training = room, training

    def __call__(self, n: int, training: bool) -> float:
        if training or not self._training:
            room = self._room[min(len(self.asked), len(self._room) - 1)]
            self.asked.append(n)
            if n > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0


class Interrupter(skal.Tracker):
    """Interrupts a run at a phase, or when a round is whole."""

    def __init__(self, at: str) -> None:
        self.at = at

    def on_phase(self, round_number: int, phase: str) -> None:
        self._interrupt(f"{phase} {round_number}")

    def on_round(self, row: Any) -> None:
        self._interrupt(f"round {row['round']}")

    def _interrupt(self, event: str) -> None:
        if event == self.at:
            raise KeyboardInterrupt


def fits_heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a list that grows by the images and labels that each training is given."""
    heard: list[tuple[np.ndarray, np.ndarray]] = []
    fit = skal.ImageClassifier.fit

    def heard_fit(self: Any, X: Any, y: Any, **params: Any) -> Any:
        heard.append((np.array(X), np.array(y)))
        return fit(self, X, y, **params)

    monkeypatch.setattr(skal.ImageClassifier, "fit", heard_fit)
    return heard
