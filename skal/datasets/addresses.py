"""Which image a text means that comes from elsewhere: the one place where that is decided."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ..core.errors import DataError
from .formats import page_of

UPLOADS = "/data/upload/"
"""Where Label Studio serves what was uploaded to it, under a changed name."""
LOCAL_FILES = "/data/local-files/"
STORAGES = ("gs:", "s3:")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
MOST_CANDIDATES = 3

Parts = tuple[str, ...]


class UnclearAddressError(DataError):
    """A text means no image, or may mean several; `candidates` are those."""

    def __init__(self, address: str, candidates: Iterable[str]) -> None:
        self.candidates = sorted(candidates)
        shown = ", ".join(map(repr, self.candidates[:MOST_CANDIDATES]))
        more = ", ..." if len(self.candidates) > MOST_CANDIDATES else ""
        reason = f"may be any of {shown}{more}" if self.candidates else "is no image"
        super().__init__(f"{address!r} {reason}")


class Located(NamedTuple):
    """An image's path, where its text puts the root, and whether by the root's own name."""

    path: str
    root_at: Parts = ()
    by_name: bool = False


def one_root(found: Iterable[Located]) -> bool:
    """Tell whether texts that were found put the root at one place, as those of one folder do."""
    places = sorted({one.root_at for one in found if one.root_at}, key=len)
    return all(_are_one(place, places[-1]) for place in places)


class Addresses:
    """Finds images by text: a path, an address on the web or in storage, a name, an id.

    The whole text counts as it stands; then its ends, from the longest to the shortest. An end
    counts only if it names exactly one image, and if no folder in the text contradicts it: either
    the text or the image's path is used up, and no folder of the text is one of the folders here
    but not the image's own. What is left of a text says where the root is: under its own name where
    Label Studio serves files of a disk, and else at one place for all texts, see `one_root`. A name
    without a suffix means the one image of that stem.

    Parameters
    ----------
    paths : iterable of str
        Of the images, relative to their root, with slashes.
    root : str, default=""
        The root's own path, with which texts may begin, or with its last names.
    alike : mapping of str to sequence of str, optional
        Of these paths, which images are all written so, and therefore cannot be told apart.
    """

    def __init__(
        self,
        paths: Iterable[str],
        root: str = "",
        alike: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self._alike = alike
        self._root = tuple(_plain(part) for part in root.split("/") if part)
        self._given = [*paths]

    def find(self, address: str) -> str:
        """Return the path of the image that is meant; an UnclearAddressError if there is none."""
        return self.locate(address).path

    def locate(self, address: str) -> Located:
        """Return the image that is meant, and where that puts the root; errors as of `find`."""
        found = self._located(address)
        if found.path in self._alike:
            raise UnclearAddressError(address, self._alike[found.path])
        return found

    def _located(self, address: str) -> Located:
        if (path := self._paths.get(address)) is not None:
            return Located(path)
        unclear: set[str] = set()
        is_local = LOCAL_FILES in address
        for text in _readings(address):
            path = self._as_it_stands(text)
            found = Located(path) if path else self._by_end(text, is_local, unclear)
            if found is not None:
                if unclear and found.path not in unclear:
                    break  # what it says as it stands is not passed over for another reading
                return found
        if UPLOADS in address and (path := self._uploaded(address, unclear)) is not None:
            return Located(path)
        raise UnclearAddressError(address, unclear)

    def _as_it_stands(self, text: str) -> str | None:
        text = text.removeprefix("./")
        return self._paths.get(text) or self._paths.get(_plain(text))

    # what most texts do not need is made when the first one does: a million images may be many

    def prepare(self) -> None:
        """Make all of it now, so that no text waits for it."""
        for name in ("_paths", "_folders", "_by_name", "_by_stem", "_by_made_plain"):
            getattr(self, name)

    @cached_property
    def _paths(self) -> dict[str, str]:
        found = {path: path for path in self._given}
        for path in self._given:
            if not path.isascii():
                found.setdefault(_plain(path), path)
        return found

    @cached_property
    def _folders(self) -> set[str]:
        folders = {path.rpartition("/")[0] for path in self._paths.values()}
        return {_plain(part) for folder in folders for part in folder.split("/") if part}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        # a file's name says no page of it
        return self._by(lambda name: {_plain(name), _plain(page_of(name)[0])})

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._by(lambda name: {_plain(name.rpartition(".")[0])})

    @cached_property
    def _by_made_plain(self) -> dict[str, list[str]]:
        return self._by(lambda name: {_made_plain(name)})

    def _by(self, keys: Callable[[str], set[str]]) -> dict[str, list[str]]:
        """Return the paths by what is made of their last names."""
        found: dict[str, list[str]] = {}
        for path in dict.fromkeys(self._paths.values()):
            for key in keys(path.rpartition("/")[2]):
                found.setdefault(key, []).append(path)
        return found

    def _by_end(self, text: str, is_local: bool, unclear: set[str]) -> Located | None:
        *folders, name = [_plain(part) for part in text.split("/") if part not in ("", ".")] or [""]
        if ".." in folders:
            return None
        paths = self._by_name.get(name) or self._by_stem.get(name, [])
        images = [tuple(path.split("/")) for path in paths]
        places = [(*self._root, *map(_plain, image[:-1])) for image in images]
        shared = [_n_shared(folders, place) for place in places]
        longest = [image for image, n in zip(images, shared, strict=True) if n == max(shared)]
        if len(longest) != 1:
            unclear.update("/".join(image) for image in longest)
            return None
        (image,), n = longest, max(shared)
        above = n - (len(image) - 1)  # of the root's names that the text has, too
        text_used_up, image_used_up = n == len(folders), above >= 0
        meant = (one for name in folders for one in (name, name.strip(), unquote(name)))
        here = {folder for folder in meant if folder in self._folders}
        own = {*map(_plain, image[:-1]), *self._root[len(self._root) - max(above, 0) :]}
        if not here <= own or not (text_used_up or image_used_up):
            return None
        root_at = [one.strip() for one in folders[: max(len(folders) - (len(image) - 1), 0)]]
        if root_at and is_local and above == 0:
            return None
        return Located("/".join(image), tuple(root_at), above > 0)

    def _uploaded(self, address: str, unclear: set[str]) -> str | None:
        """Find what was uploaded to Label Studio, which puts eight digits before a name and takes
        what is not plain out of it.
        """
        name = _UPLOADED.sub("", unquote(_split(address).path).rpartition("/")[2])
        same = {*self._by_name.get(_plain(name), []), *self._by_made_plain.get(name, [])}
        if len(same) == 1:
            return same.pop()
        unclear |= same
        return None


def _readings(address: str) -> Iterator[str]:
    """Yield what a text may be: a path as it stands, the path of an address, one of Windows."""
    text = address.strip()
    if "://" not in text and not text.startswith((UPLOADS, LOCAL_FILES, *STORAGES)):
        if text != address:
            yield address
        yield text
        if "%" in text:
            yield unquote(text)
        if "\\" in text:
            yield text.replace("\\", "/")
        return
    # names in a storage may have the sign of a fragment, and files pages
    parts = _split(text.replace("#", "%23") if text.startswith(STORAGES) else text)
    page = f"{parts.path}#{parts.fragment}"
    path = parts.path if page_of(page)[1] is None else page
    if parts.path.endswith(LOCAL_FILES) and "d" in (query := parse_qs(parts.query)):
        yield query["d"][0]
        return
    # the bucket or host is a folder, too, that may contradict
    yield parts.netloc + path
    if "%" in path:
        yield parts.netloc + unquote(path)


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise UnclearAddressError(address, ()) from error


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _made_plain(name: str) -> str:
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _n_shared(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many folders two places share from their ends on."""
    n = 0
    for one, other in zip(reversed(ours), reversed(theirs), strict=False):
        if one != other:
            break
        n += 1
    return n


def _are_one(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tell whether two places may be one, of which one text says more."""
    n = min(len(one), len(other))
    return n == 0 or list(one[-n:]) == list(other[-n:])
