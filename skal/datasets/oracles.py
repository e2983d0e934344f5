"""Who answers when a label is asked for. Once a run has started, true labels live here alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import DataError, ParameterError, UnknownNameError
from ..core.registry import Registry
from .base import MISSING_LABEL, ImageDataset, Labels
from .settings import LABEL_NOISE_KINDS

ORACLES: Registry[Callable[[ImageDataset, int], Oracle]] = Registry("oracle")
"""Functions, or classes, that take the dataset and a seed and return an `Oracle`."""


class Oracle(ABC):
    """Labels images by index."""

    @abstractmethod
    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        """Return the class ids of images.

        Parameters
        ----------
        indices : ndarray of int64, shape (b,)
            Which images of the pool.

        Returns
        -------
        array-like of int, shape (b,)
        """

    def draw_stratified(
        self, indices: NDArray[np.int64], n: int, random_state: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw images with as even numbers of each class as there are.

        Parameters
        ----------
        indices : ndarray of int64
            Where from.
        n : int
            How many; all of them when that is less.
        random_state : Generator
            Source of the draw.

        Returns
        -------
        ndarray of int64, shape (n,)

        Raises
        ------
        ParameterError
            If this oracle does not know labels before it is asked for them, as most do not.
        """
        raise ParameterError(
            f"{type(self).__name__} does not know the labels beforehand, so that the initial set "
            "cannot be stratified; take another init_strategy, such as random"
        )


class TrueLabels(Oracle):
    """Answers from known labels: simulated annotation.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        True class ids; all must be known.

    Raises
    ------
    DataError
        If some are not.
    """

    def __init__(self, y: Labels) -> None:
        unknown = int((y == MISSING_LABEL).sum())
        if unknown:
            raise DataError(
                f"{unknown} of {len(y)} images have no known label, so that labelling cannot be "
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
        # each image's place among those of its class: the first of all classes, then the second ...
        place = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            place[labels == label] = np.arange((labels == label).sum())
        return shuffled[np.argsort(place, kind="stable")[:n]]


class NoisyLabels(TrueLabels):
    """Answers wrongly for some images: a careless annotator, or a malicious one.

    The wrong answers are fixed from the start: an image has the same one whenever it is asked for,
    whatever was asked before. At a higher rate they stay wrong in the same way, and others come
    in addition. A stratified set is drawn by the labels as they are given.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        True class ids; all must be known.
    classes : sequence of str
        Class names.
    rate : float
        In [0, 1]: which share of the images is given a wrong label, rounded to whole images; of
        the kind "class=A:B", which share of class A.
    kind : {"uniform", "pairs", "class=A:B"}
        The wrong label is any other, each as likely; or the next class, the first after the last;
        or that of class B for images of class A. A and B are names or ids.
    seed : int
        Decides which images, and the wrong labels.

    Raises
    ------
    DataError
        If a label is not known.
    ParameterError, UnknownNameError
        If there is no such kind or class, or A is B.
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
    """Return what each label becomes if it is to be wrong; of some kinds, some stay right."""
    n_classes = len(classes)
    if kind in _SHIFTS:
        wrong: Labels = (y + _SHIFTS[kind](n_classes, len(y), draw)) % n_classes
        return wrong
    prefix, _, text = kind.partition("=")
    if prefix != "class":
        raise UnknownNameError("label noise kind", kind, LABEL_NOISE_KINDS)
    true, given = _two_classes(text, classes)
    if true == given:
        raise ParameterError(f"label_noise_kind: {kind!r} changes nothing; expected two classes")
    return np.where(y == true, given, y)


_SHIFTS: Mapping[str, Callable[[int, int, np.random.Generator], Labels | int]] = {
    "uniform": lambda n_classes, n, draw: draw.integers(1, n_classes, n),
    "pairs": lambda n_classes, n, draw: 1,
}


def _two_classes(text: str, classes: Sequence[str]) -> tuple[int, int]:
    """Return the ids of the classes in ``A:B``, whose names may have colons of their own."""
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
    """Asks a function.

    Parameters
    ----------
    function : callable
        Takes the indices, an int64 array of shape (b,), and returns b class ids.
    """

    def __init__(self, function: Callable[[NDArray[np.int64]], ArrayLike]) -> None:
        self._function = function

    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        return self._function(indices)


@ORACLES.register("true", summary="the labels that the dataset came with")
def true_labels(data: ImageDataset, seed: int) -> Oracle:
    """Return the oracle of simulated annotation."""
    return TrueLabels(data.y)


def make_oracle(
    oracle: Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str | None,
    data: ImageDataset,
    seed: int,
    *,
    label_noise: float = 0.0,
    label_noise_kind: str = "uniform",
) -> Oracle:
    """Return the oracle that is meant.

    Parameters
    ----------
    oracle : Oracle, callable, str or None
        An oracle, a function of indices, a name of `ORACLES`, or None for the true labels.
    data : ImageDataset
        What is labelled.
    seed : int
        For oracles that draw.
    label_noise : float, default=0
        Share of the true labels that are given wrongly, see `NoisyLabels`.
    label_noise_kind : str, default="uniform"
        In which way.

    Returns
    -------
    Oracle

    Raises
    ------
    ParameterError, UnknownNameError
        If it is none of these, or noise is asked for of labels that are not the dataset's.
    """
    if label_noise:
        if oracle not in (None, "true"):
            raise ParameterError(
                "label_noise is of the labels that the dataset came with; an oracle of one's own "
                "can give wrong ones itself: give one or the other"
            )
        return NoisyLabels(data.y, data.classes, label_noise, label_noise_kind, seed=seed)
    if oracle is None or isinstance(oracle, str):
        return ORACLES.get(oracle or "true")(data, seed)
    if isinstance(oracle, Oracle):
        return oracle
    if callable(oracle):
        return FunctionOracle(oracle)
    raise ParameterError(
        f"oracle: got {type(oracle).__name__}; expected an Oracle, a function of indices, or one "
        f"of {', '.join(ORACLES.names())}"
    )
