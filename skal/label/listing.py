"""Compact collections of files and image numbers, without an object per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from operator import itemgetter
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from ..datasets.index import ImageFile

_END = "\0"
"""A separator that no path contains."""


class Files(Sequence[ImageFile]):
    """A sequence of image files: their `paths`, and part and label stored once per combination."""

    def __init__(self, files: Sequence[ImageFile]) -> None:
        self.paths: list[str] = [*map(itemgetter(0), files)]
        places = itemgetter(1, 2)
        self._known: tuple[tuple[str, str | None], ...] = (*dict.fromkeys(map(places, files)),)
        number = {place: n for n, place in enumerate(self._known)}.__getitem__
        self._places = np.fromiter(map(number, map(places, files)), np.uint32, len(files))

    @classmethod
    def of(cls, files: Sequence[ImageFile]) -> Files:
        return files if isinstance(files, Files) else cls(files)

    def counts(self) -> Counter[tuple[str, str | None]]:
        """Return the number of files of each part and label."""
        counts = np.bincount(self._places, minlength=len(self._known)).tolist()
        return Counter(dict(zip(self._known, counts, strict=True)))

    def paths_but(self, part: str) -> list[str]:
        """Return the paths of all files except those of a part, in order."""
        is_other = np.array([of != part for of, _ in self._known], bool)
        if is_other.all():
            return self.paths
        return [self.paths[place] for place in np.flatnonzero(is_other[self._places]).tolist()]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[ImageFile]:
        known = self._known
        for path, place in zip(self.paths, self._places.tolist(), strict=True):
            yield ImageFile(path, *known[place])

    @overload
    def __getitem__(self, at: int) -> ImageFile: ...
    @overload
    def __getitem__(self, at: slice) -> list[ImageFile]: ...
    def __getitem__(self, at: int | slice) -> ImageFile | list[ImageFile]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        return ImageFile(self.paths[at], *self._known[self._places[at]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Files):
            return NotImplemented
        if self._known == other._known:
            same = np.array_equal(self._places, other._places)
            return same and self.paths == other.paths
        return len(self) == len(other) and all(map(ImageFile.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "paths": _END.join(self.paths)}  # many times faster as one string

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, paths=state["paths"].split(_END) if state["paths"] else [])


class Paths(Mapping[int, str]):
    """The paths of existing images by number, in order."""

    def __init__(self, places: list[str], n: int | None = None) -> None:
        """Take the path of each number, "" if it is missing, and the count `n` of existing ones."""
        self.places = places
        self._n = len(places) if n is None else n

    @classmethod
    def of(cls, paths: Iterable[tuple[int, str]]) -> Self:
        """Build from pairs of number and path in any order; the last path of a number counts."""
        places: list[str] = []
        for number, path in paths:
            if number == len(places):
                places.append(path)
                continue
            places += [""] * (number + 1 - len(places))
            places[number] = path
        return cls(places, len(places) - places.count(""))

    @property
    def is_whole(self) -> bool:
        """Whether all numbers up to the last exist."""
        return self._n == len(self.places)

    def n_other(self, before: Paths) -> int:
        """Return how many numbers have another path than before."""
        shorter, longer = sorted((self.places, before.places), key=len)
        rest = longer[len(shorter) :]
        pairs = zip(shorter, longer, strict=False)
        return sum(one != other for one, other in pairs) + len(rest) - rest.count("")

    def numbers(self) -> dict[str, int]:
        """Return the number of each path."""
        return {path: number for number, path in enumerate(self.places) if path}

    def mask(self) -> NDArray[np.bool_]:
        """Return whether each number exists, as a mask."""
        return np.fromiter(map(bool, self.places), bool, len(self.places))

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[int]:
        if self.is_whole:
            return iter(range(self._n))
        return (number for number, path in enumerate(self.places) if path)

    def __contains__(self, number: Any) -> bool:
        return bool(0 <= number < len(self.places) and self.places[number])

    def __getitem__(self, number: int) -> str:
        path = self.places[number] if 0 <= number < len(self.places) else ""
        if not path:
            raise KeyError(number)
        return path

    def __reduce__(self) -> tuple[Any, ...]:
        return _paths_of, (_END.join(self.places), len(self.places), self._n)


def _paths_of(text: str, n_places: int, n: int) -> Paths:
    return Paths(text.split(_END) if n_places else [], n)


class Numbers(Set[int]):
    """A set of images, one byte per number."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._is_in = mask.tobytes()
        self._n = int(mask.sum())

    @property
    def mask(self) -> NDArray[np.bool_]:
        return np.frombuffer(self._is_in, bool)

    @classmethod
    def _from_iterable(cls, images: Iterable[Any]) -> Any:
        return frozenset(images)  # the result of set operations

    def __contains__(self, image: Any) -> bool:
        return bool(0 <= image < len(self._is_in) and self._is_in[image])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self.mask).tolist())

    def __len__(self) -> int:
        return self._n
