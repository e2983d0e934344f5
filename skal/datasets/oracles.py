"""Who answers when a label is asked for. Once a run has started, true labels are only here."""

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
"""Classes of `Oracle`, or functions that return one or a function of indices.

They are called with their own arguments, and with what they take of `data`, an `ImageDataset`, and
`seed`. A function that takes nothing of these but one other argument is itself asked for labels.
"""


class Oracle(ABC):
    """Labels images by index.

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
            Which images of the pool.

        Returns
        -------
        array-like of int, shape (b,)
        """

    def replay(self, indices: NDArray[np.int64]) -> ArrayLike | None:
        """Return what was answered before, when a run is resumed.

        By default the images are asked for once more, in the same order, so that an oracle that
        draws at random continues where it was. One that asks people returns None instead.
        """
        return self.label(indices)

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
    """Answers from known labels; a `DataError` is raised if some are not known."""

    def __init__(self, y: Labels) -> None:
        unknown = int((y == MISSING_LABEL).sum())
        if unknown:
            of, have = counted(len(y), "image"), plural(unknown, "has", "have")
            raise DataError(
                f"{unknown} of {of} {have} no known label, so that labelling cannot be "
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
    """Answers wrongly for a share `rate` of the images, rounded to whole ones. `kind` "uniform" is
    any other class, "pairs" the next one, "class=A:B" (names or ids) class B for that share of
    class A. The wrong answers are fixed by the seed, whatever was asked before, and more come in
    addition at a higher rate; a stratified set is drawn by the labels as given. A `DataError` is
    raised if a label is not known, a `UsageError` if there is no such kind or class, or A is B.
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
        return np.asarray((y + _SHIFTS[kind](n_classes, len(y), draw)) % n_classes)
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
    """Asks a function of indices, int64 of shape (b,), for b class ids."""

    def __init__(self, function: Callable[[NDArray[np.int64]], ArrayLike]) -> None:
        self.function = function

    def label(self, indices: NDArray[np.int64]) -> ArrayLike:
        return self.function(indices)


AnyOracle: TypeAlias = Oracle | Callable[[NDArray[np.int64]], ArrayLike] | str


@ORACLES.register("true", summary="the labels that the dataset came with")
def true_labels(data: ImageDataset) -> Oracle:
    """Return the oracle of simulated annotation."""
    return TrueLabels(data.y)


def make_oracle(
    oracle: AnyOracle | None,
    data: ImageDataset,
    seed: int,
    *,
    label_noise: float = 0.0,
    label_noise_kind: str = "uniform",
) -> Oracle:
    """Return the oracle of a run, of an object, a function of indices, what `ORACLES` resolves, or
    None for the true labels, with `label_noise` as of `NoisyLabels`. A `UsageError` is raised if it
    is none of these, or noise is asked for of labels that are not the dataset's.
    """
    oracle = "true" if oracle is None else oracle
    if label_noise and oracle != "true":
        raise ParameterError(
            "label_noise is of the labels that the dataset came with; an oracle of one's own "
            "can give wrong ones itself: give one or the other"
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
    """Make an oracle by its name, or return a function of indices that was named."""
    if not is_named(spec):
        raise ParameterError(
            f"oracle: {spec!r} was an object, which settings cannot hold; give it again, from "
            "Python, as oracle=..., or name it as module:Name"
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
    """Return an oracle's name for the settings, or that it was an object."""
    return oracle if isinstance(oracle, str) else f"{_OBJECT}{_name_of(oracle)}"


def is_named(spec: str) -> bool:
    """Tell whether an oracle can be made again by what the settings say of it."""
    return not spec.startswith(_OBJECT)


def _name_of(oracle: Any) -> str:
    if isinstance(oracle, FunctionOracle):
        oracle = oracle.function
    while isinstance(oracle, partial):
        oracle = oracle.func
    return str(getattr(oracle, "__qualname__", type(oracle).__qualname__))


def ask(oracle: Oracle, indices: NDArray[np.int64], classes: Sequence[str]) -> Labels:
    """Return b class ids, int64; a `DataError` that names the oracle is raised otherwise."""
    try:
        answer: Any = oracle.label(indices)
        if len(indices) == 1 and np.ndim(answer) == 0:
            answer = [answer]  # of a single image a number will do
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
