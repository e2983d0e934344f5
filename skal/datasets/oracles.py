"""Oracles, which label images. During a run, only the oracle has the true labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.answers import integers
from ..core.errors import DataError, ParameterError, UnknownNameError, blame, blaming
from ..core.registry import Registry, parameters
from ..core.text import counted, plural
from .base import MISSING_LABEL, ImageDataset, Labels
from .settings import LABEL_NOISE_KINDS

ORACLES: Registry[Callable[..., Any]] = Registry("oracle")
"""Classes of `Oracle`, or functions that return an `Oracle` or a function of indices.

They are called with their own arguments, and with `data`, an `ImageDataset`, and `seed` if they
take them. A function whose only required argument is none of these is itself the function of
indices.
"""


class Oracle(ABC):
    """Base class of oracles, which label images by index.

    Examples
    --------
    >>> import skal
    >>> data = skal.load_dataset("digits")
    >>> class Careful(skal.Oracle):
    ...     def label(self, indices):
    ...         return data.y[indices]
    >>> run = skal.run(data, "random", oracle=Careful(), n_rounds=1, steps=5)
    >>> run.summary["n_labeled"]
    40
    """

    @abstractmethod
    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        """Return the class ids of images.

        Parameters
        ----------
        indices : ndarray of int64, shape (b,)
            Indices of images in the pool.

        Returns
        -------
        array-like of int, shape (b,)
        """

    def replay(self, indices: NDArray[np.int64]) -> ArrayLike | None:
        """Return earlier labels again when a run is resumed, or None to trust the record.

        By default the images are labelled again in the same order, so that an oracle that draws
        at random continues with the same state. Return None in oracles that ask people.
        """
        return self.label(indices)

    def draw_stratified(
        self, indices: NDArray[np.int64], n: int, random_state: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw images with class counts as even as possible.

        Parameters
        ----------
        indices : ndarray of int64
            Images to draw from.
        n : int
            Number to draw; fewer if there are fewer.
        random_state : Generator
            Source of randomness.

        Returns
        -------
        ndarray of int64, shape (n,)

        Raises
        ------
        ParameterError
            If the oracle does not know labels in advance, as is the default.
        """
        raise ParameterError(
            f"{type(self).__name__} does not know labels in advance, so the initial set cannot be "
            "stratified; choose another init_strategy, such as random"
        )


class TrueLabels(Oracle):
    """An oracle of known labels; raises a `DataError` if some are unknown."""

    def __init__(self, y: Labels) -> None:
        unknown = int((y == MISSING_LABEL).sum())
        if unknown:
            of, have = counted(len(y), "image"), plural(unknown, "has", "have")
            raise DataError(
                f"{unknown} of {of} {have} no known label, so labelling cannot be "
                "simulated; remove them from X, or pass an oracle that can label them"
            )
        self._y: Labels = np.array(y, dtype=np.int64)

    def label(self, indices: NDArray[np.int64]) -> Labels:
        return self._y[indices]

    def draw_stratified(
        self, indices: NDArray[np.int64], n: int, random_state: np.random.Generator
    ) -> NDArray[np.int64]:
        shuffled = random_state.permutation(indices)
        labels = self._y[shuffled]
        # each image's rank within its class: draw the first of all classes, then the second ...
        rank = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            rank[labels == label] = np.arange((labels == label).sum())
        return shuffled[np.argsort(rank, kind="stable")[:n]]


class NoisyLabels(TrueLabels):
    """An oracle with label noise: a share `rate` of its labels, rounded to whole images, is wrong.

    `kind` "uniform" gives any other class, "pairs" the next one, and "class=A:B" (names or ids)
    class B for that share of class A. The wrong labels depend only on the seed, and those at a
    lower rate are also wrong at a higher one; a stratified set is drawn by the noisy labels. A
    `DataError` is raised if a label is unknown, a `UsageError` if there is no such kind or class,
    or A is B.
    """

    def __init__(
        self,
        y: Labels,
        classes: Sequence[str],
        rate: float,
        kind: str = "uniform",
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(y)
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(y))
        wrong = _wrong_labels(self._y, classes, kind, draw)
        candidates = order[(wrong != self._y)[order]]
        changed = candidates[: round(rate * len(candidates))]
        self._y[changed] = wrong[changed]


def _wrong_labels(
    y: Labels, classes: Sequence[str], kind: str, draw: np.random.Generator
) -> Labels:
    """Return the wrong version of each label; for "class=A:B" only labels of class A differ."""
    n_classes = len(classes)
    if kind in _SHIFTS:
        return np.asarray((y + _SHIFTS[kind](n_classes, len(y), draw)) % n_classes)
    prefix, _, text = kind.partition("=")
    if prefix != "class":
        raise UnknownNameError("label noise kind", kind, LABEL_NOISE_KINDS)
    true, given = _two_classes(text, classes)
    if true == given:
        raise ParameterError(f"label_noise_kind: {kind!r} has no effect; expected two classes")
    return np.where(y == true, given, y)


_SHIFTS: Mapping[str, Callable[[int, int, np.random.Generator], Labels | int]] = {
    "uniform": lambda n_classes, n, draw: draw.integers(1, n_classes, n),
    "pairs": lambda n_classes, n, draw: 1,
}


def _two_classes(text: str, classes: Sequence[str]) -> tuple[int, int]:
    """Return the ids of the classes in ``A:B``; their names may contain colons."""
    ids = {str(number): number for number in range(len(classes))}
    ids.update((name, number) for number, name in enumerate(classes))
    splits = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == ":"]
    if not splits:
        raise ParameterError(f"label_noise_kind: got 'class={text}'; expected class=A:B")
    known = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
    for name in (known or splits)[0]:
        if name not in ids:
            raise UnknownNameError("class in label_noise_kind:", name, classes)
    true, given = known[0]
    return ids[true], ids[given]


class FunctionOracle(Oracle):
    """An oracle that calls a function of indices, int64 of shape (b,), which returns b class
    ids.
    """

    def __init__(self, function: Callable[[NDArray[np.int64]], ArrayLike]) -> None:
        self.function = function

    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        return self.function(indices)


AnyOracle: TypeAlias = Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str


@ORACLES.register("true", summary="the dataset's own labels")
def true_labels(data: ImageDataset) -> Oracle:
    """Return the oracle of simulated labelling."""
    return TrueLabels(data.y)


def make_oracle(
    oracle: AnyOracle | None,
    data: ImageDataset,
    seed: int,
    *,
    label_noise: float = 0.0,
    label_noise_kind: str = "uniform",
) -> Oracle:
    """Return the oracle of a run from an object, a function of indices, a name in `ORACLES`, or
    None for the true labels, with `label_noise` as for `NoisyLabels`. Raise a `UsageError` if it is
    none of these, or if noise is asked for on other labels than the dataset's.
    """
    oracle = "true" if oracle is None else oracle
    if label_noise and oracle != "true":
        raise ParameterError(
            "give label_noise or oracle, not both: noise applies only to the dataset's own labels"
        )
    if label_noise:
        return NoisyLabels(data.y, data.classes, label_noise, label_noise_kind, seed=seed)
    made = _named(oracle, data, seed) if isinstance(oracle, str) else oracle
    if isinstance(made, Oracle):
        return made
    if callable(made) and not isinstance(made, type):
        return FunctionOracle(made)
    raise ParameterError(
        f"oracle: got {made!r}; expected an Oracle, a function of indices, module:Name, or one of "
        f"{', '.join(ORACLES.names())}"
    )


def _named(spec: str, data: ImageDataset, seed: int) -> Oracle | Callable[..., ArrayLike]:
    """Make an oracle by its name, or return the function of indices that was named."""
    if not is_named(spec):
        raise ParameterError(
            f"oracle: {spec!r} was a Python object, which settings cannot store; pass it again as "
            "oracle=..., or by name as module:Name"
        )
    entry = ORACLES.resolve(spec)
    given = {"data": data, "seed": seed}
    with blaming(f"the oracle {entry.spec} cannot be made", ParameterError):
        target: Any = entry.load()
        needed = [
            name
            for name, parameter in (parameters(target) or {}).items()
            if parameter.default is parameter.empty and name not in {*given, *entry.params}
        ]
        if len(needed) == 1 and not isinstance(target, type):
            return partial(target, **entry.params)
        return cast("Oracle | Callable[..., ArrayLike]", entry.make(**given))


_OBJECT = "object of "


def oracle_spec(oracle: AnyOracle) -> str:
    """Return an oracle's name for the settings, or "object of TYPE" for an object."""
    return oracle if isinstance(oracle, str) else f"{_OBJECT}{_name_of(oracle)}"


def is_named(spec: str) -> bool:
    """Return whether an oracle can be made again from its entry in the settings."""
    return not spec.startswith(_OBJECT)


def _name_of(oracle: Any) -> str:
    if isinstance(oracle, FunctionOracle):
        oracle = oracle.function
    while isinstance(oracle, partial):
        oracle = oracle.func
    return str(getattr(oracle, "__qualname__", type(oracle).__qualname__))


def ask(oracle: Oracle, indices: NDArray[np.int64], classes: Sequence[str]) -> Labels:
    """Return b class ids, int64, or raise a `DataError` that names the oracle."""
    try:
        answer: Any = oracle.label(indices)
        if len(indices) == 1 and np.ndim(answer) == 0:
            answer = [answer]  # a scalar will do for a single image
    except Exception as error:
        blame(error, f"the oracle {_name_of(oracle)} failed", DataError)
    labels, got = integers(answer, len(indices))
    n_classes = len(classes)
    is_outside = np.empty(0, bool) if labels is None else (labels < 0) | (labels >= n_classes)
    if labels is None or is_outside.any():
        got = got if labels is None else f"the class {labels[is_outside][0]}"
        raise DataError(
            f"the oracle {_name_of(oracle)} returned {got}; expected {len(indices)} class ids, "
            f"integers from 0 to {n_classes - 1}"
        )
    return labels
