"""A fit that fails leaves the classifier as it was."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from made_up import Memory, watched
from skorch.callbacks import Callback

import skal
from skal.core.errors import DataError, ParameterError
from skal.models.inference import NotFittedError


class Broken(Exception):
    """What a callback raises."""


SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}


class Fail(Callback):  # type: ignore[misc]
    """Fails when a training reaches some point, once it is told to."""

    def __init__(self, how: str, where: str) -> None:
        self.how, self.where = how, where
        self.armed = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_") and name == super().__getattribute__("where"):
            return self._fail
        return super().__getattribute__(name)

    def _fail(self, net: Any, **facts: Any) -> None:
        if self.armed and (self.where.startswith("on_train") or len(net.history) > 1):
            if self.how in SIGNALS:
                signal.raise_signal(SIGNALS[self.how])
            raise Broken


def classifier(**params: Any) -> skal.ImageClassifier:
    options = {"model": "lenet", "classes": [0, 1, 2], "steps": 6, "random_state": 0}
    return skal.ImageClassifier(**{**options, **params})


@pytest.fixture
def y(tiny: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(len(tiny.y)) < 30, tiny.y, -1)


WRONG: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Any], dict[str, Any], type[Exception]]]
WRONG = {
    "channels": (lambda X, y: (np.repeat(X, 3, axis=1), y), {}, DataError),
    "size": (lambda X, y: (X[:, :, :8, :8], y), {}, DataError),
    "dtype": (lambda X, y: (X / 255, y), {}, DataError),
    "label": (lambda X, y: (X, np.where(y == 0, 7, y)), {}, DataError),
    "fewer labels": (lambda X, y: (X, y[:-1]), {}, DataError),
    "weights": (lambda X, y: (X, y), {"sample_weight": np.ones(90)}, ParameterError),
    "keyword": (lambda X, y: (X, y), {"wieghts": 1}, ParameterError),
}


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_training_on_something_wrong_leaves_the_network_as_it_was(
    tiny: skal.ImageDataset, y: np.ndarray, wrong: str, freeze: bool
) -> None:
    fitted = classifier(freeze=freeze).fit(tiny.X, y)
    before = fitted.predict_proba(tiny.X_test)
    change, options, error = WRONG[wrong]
    with pytest.raises(error) as caught:
        fitted.partial_fit(*change(tiny.X, y), **options)
    assert "\n" not in str(caught.value)
    assert np.array_equal(fitted.predict_proba(tiny.X_test), before)


@pytest.mark.parametrize(
    "where", ["on_train_begin", "on_batch_end", "on_epoch_end", "on_train_end"]
)
@pytest.mark.parametrize("how", ["error", "Ctrl-C"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_training_that_ends_by_an_error_or_ctrl_c_leaves_the_network_as_it_was(
    tiny: skal.ImageDataset, y: np.ndarray, method: str, how: str, where: str
) -> None:
    fail = Fail(how, where)
    fitted = classifier(callbacks=[("fail", fail)]).fit(tiny.X, y)
    fitted.neural_net_.module_.temperature.fill_(2)
    net, before = fitted.neural_net_, fitted.predict_proba(tiny.X_test)
    straight = classifier().fit(tiny.X, y).partial_fit(tiny.X, y)
    fail.armed = True
    with pytest.raises(KeyboardInterrupt if how == "Ctrl-C" else Broken):
        getattr(fitted, method)(tiny.X, y)
    assert fitted.neural_net_ is net
    assert fitted.temperature == 2
    assert len(net.history) == 6
    assert np.array_equal(fitted.predict_proba(tiny.X_test), before)
    fail.armed = False  # and what is trained next is as if there had been no failure
    found = fitted.partial_fit(tiny.X, y).predict_proba(tiny.X_test)
    assert np.array_equal(found, straight.predict_proba(tiny.X_test))


@pytest.fixture
def terminable() -> Iterator[None]:
    """Take SIGTERM and SIGHUP as the command line does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("terminable")
@pytest.mark.parametrize("how", [*SIGNALS])
def test_a_first_fit_that_fails_leaves_the_classifier_unfitted(
    how: str, tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fail = Fail(how, "on_epoch_end")
    fail.armed = True
    unfitted = classifier(callbacks=[fail])
    before = set(vars(unfitted))
    for method in ("fit", "partial_fit"):
        with pytest.raises(KeyboardInterrupt):
            getattr(unfitted, method)(tiny.X, y)
        with pytest.raises(NotFittedError):
            unfitted.predict(tiny.X_test)
        assert set(vars(unfitted)) == before


def test_ctrl_c_is_handled_as_before_once_the_training_is_over(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    classifier().fit(tiny.X, y)
    assert signal.getsignal(signal.SIGINT) is handler


def test_out_of_memory_in_training_leaves_the_network_as_it_was(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    memory = Memory(*9 * [1000], 1, training=True)
    with watched(memory) as model:
        fitted = classifier(model=model).fit(tiny.X, y)
        before = fitted.predict_proba(tiny.X_test)
        for method in ("partial_fit", "fit"):
            with pytest.raises(torch.OutOfMemoryError):
                getattr(fitted, method)(tiny.X, y)
            assert np.array_equal(fitted.predict_proba(tiny.X_test), before)
    assert len(memory.asked) == 6 + 4 + 1


def test_a_training_that_diverges_is_an_error_and_leaves_the_network_as_it_was(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fitted = classifier(optimizer="sgd", precision="fp32").fit(tiny.X, y)
    before = fitted.predict_proba(tiny.X_test)
    fitted.set_params(lr=1e30)
    with pytest.raises(DataError, match=r"training diverged: .* NaN or infinite in epoch \d"):
        fitted.fit(tiny.X, y)
    assert np.array_equal(fitted.predict_proba(tiny.X_test), before)
