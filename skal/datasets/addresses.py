"""Resolves texts from other tools, such as paths and URLs, to images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ..core.errors import DataError
from .formats import page_of, suffixes

UPLOADS = "/data/upload/"
"""Where Label Studio serves uploaded files, under changed names."""
LOCAL_FILES = "/data/local-files/"
STORAGES = ("gs:", "s3:")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
MOST_CANDIDATES = 3

Parts = tuple[str, ...]


class UnclearAddressError(DataError):
    """A text matches no image, or may mean any of `candidates`."""

    def __init__(self, address: str, candidates: Iterable[str]) -> None:
        self.candidates = sorted(candidates)
        shown = ", ".join(map(repr, self.candidates[:MOST_CANDIDATES]))
        more = ", ..." if len(self.candidates) > MOST_CANDIDATES else ""
        reason = f"may be any of {shown}{more}" if self.candidates else "matches no image"
        super().__init__(f"{address!r} {reason}")


class Located(NamedTuple):
    """The path of an image; where its text puts the root; whether the text includes the root's
    name; whether it omits folders of the image; and whether it would then be ambiguous.
    """

    path: str
    root_at: Parts = ()
    by_name: bool = False
    leaves_out: bool = False
    has_namesakes: bool = False


def one_root(found: Iterable[Located]) -> bool:
    """Return whether resolved texts agree on the place of the root, as those of one folder do."""
    places = sorted({one.root_at for one in found if one.root_at}, key=len)
    return all(place == places[-1][-len(place) :] for place in places)  # longer or not


class Addresses:
    """Finds images by text: a path, a URL, an address in cloud storage, a name, or an id.

    The whole text is tried first, then its ends, from the longest to the shortest. An end counts
    only if it matches exactly one image, and if no folder in the text contradicts it: either the
    text or the image's path must be used up, and the text must contain no folder that exists here
    but is not the image's own. The rest of the text gives the place of the root: under its own name
    where Label Studio serves local files, and else the same for all texts, see `one_root`. A name
    without a suffix means the one image with that stem.

    `paths` are relative to `root`, with slashes; texts may begin with the root's path or with its
    last names. `alike` maps paths to the images that are written the same and cannot be told apart.
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
        """Return the path of the matching image; raise an UnclearAddressError if none is."""
        return self.locate(address).path

    def locate(self, address: str) -> Located:
        """Return the matching image and the place of the root; raise the errors of `find`."""
        found = self._located(address)
        if found.path in self._alike:
            raise UnclearAddressError(address, self._alike[found.path])
        return found

    def contradiction(self, found: Iterable[Located]) -> str:
        """Return why the texts of one file are inconsistent, or "".

        They must agree on the place of the root, see `one_root`. If one begins with the root's own
        name, no other may be the path of an image both with that name and without. If one omits
        folders, all must, and then none may match two images, even if one of these has no folder.
        """
        found = sorted(set(found))
        if not one_root(found):
            places = sorted("/".join(one.root_at) for one in found if one.root_at)
            listed = ", ".join(dict.fromkeys(places[:MOST_CANDIDATES]))
            return f"names images of several folders ({listed}), of which one is"
        named = next((one.path for one in found if one.by_name), None)
        for one in found if named is not None else ():
            behind = None if one.root_at or one.leaves_out else self.behind_root(one.path)
            if behind:
                return (
                    f"begins the path of {named!r} with the folder itself, and then {one.path!r} "
                    f"may be {behind!r} or {one.path!r}, in"
                )
        short = next((one.path for one in found if one.leaves_out), None)
        if short is None:
            return ""
        for one in found:
            if one.leaves_out:
                continue
            if one.root_at or "/" in one.path:
                return f"leaves folders of {short!r} out, and not those of {one.path!r}, in"
            if one.has_namesakes or len(self._by_name.get(_plain(one.path), ())) > 1:
                return f"leaves folders of {short!r} out, and {one.path!r} may be in several, in"
        return ""

    def behind_root(self, path: str) -> str | None:
        """Return the image of a path that begins with the root's name or last names, or None."""
        path = _plain(path)
        if not path.startswith(self._last_names):
            return None
        rests = (path.removeprefix(names) for names in self._last_names if path.startswith(names))
        return next((self._paths[rest] for rest in rests if rest in self._paths), None)

    def _located(self, address: str) -> Located:
        if (path := self._paths.get(address)) is not None:
            return Located(path)
        unclear: set[str] = set()
        is_local = LOCAL_FILES in address
        for readings in _readings(address):
            found = self._found(readings, is_local, unclear)
            if len(found) == 1 and (not unclear or not unclear.isdisjoint(found)):
                return next(iter(found.values()))
            if found:
                unclear.update(found)
                break  # a literal reading takes precedence over others
        if UPLOADS in address and (path := self._uploaded(address, unclear)) is not None:
            return Located(path)
        raise UnclearAddressError(address, unclear)

    def _found(
        self, readings: Sequence[Reading], is_local: bool, unclear: set[str]
    ) -> dict[str, Located]:
        """Return the images that equally likely readings match; with several the address is
        unclear.
        """
        found: dict[str, Located] = {}
        for reading in readings:
            path = self._as_it_stands(reading.text)
            if path and reading.is_literal:
                return {path: Located(path)}
            one = Located(path) if path else self._by_end(reading, is_local, unclear)
            if one is not None:
                found.setdefault(one.path, one)
        return found

    def _as_it_stands(self, text: str) -> str | None:
        text = text.removeprefix("./")
        return self._paths.get(text) or self._paths.get(_plain(text))

    # computed when first needed: most texts need none of it, and there may be a million images

    def prepare(self) -> None:
        """Compute all of it now, so that no text waits for it."""
        for name in ("_paths", "_folders", "_by_name", "_by_stem", "_by_made_plain"):
            getattr(self, name)

    @cached_property
    def _last_names(self) -> Parts:
        """The ends of the root's path, from the whole to its last name, each with a slash."""
        return tuple("/".join((*self._root[n:], "")) for n in range(len(self._root)))

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
        # a file name alone also matches its pages
        return self._by(lambda name: {_plain(name), _plain(page_of(name)[0])})

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._by(lambda name: {_plain(name.rpartition(".")[0])})

    @cached_property
    def _by_made_plain(self) -> dict[str, list[str]]:
        return self._by(lambda name: {re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))})

    def _by(self, keys: Callable[[str], set[str]]) -> dict[str, list[str]]:
        """Return the paths by keys made of their file names."""
        found: dict[str, list[str]] = {}
        for path in dict.fromkeys(self._paths.values()):
            for key in keys(path.rpartition("/")[2]):
                found.setdefault(key, []).append(path)
        return found

    def _by_end(self, reading: Reading, is_local: bool, unclear: set[str]) -> Located | None:
        is_above, (*folders, name) = _parts_of(reading.text)
        paths = self._by_name.get(name, [])
        if not paths and not _is_of_image(name):
            paths = self._by_stem.get(name, [])
        images = [tuple(path.split("/")) for path in paths]
        places = [(*self._root, *map(_plain, image[:-1])) for image in images]
        shared = [_n_shared(folders, place) for place in places]
        fit = [  # either the text or the image's path is used up
            (n, image)
            for n, image in zip(shared, images, strict=True)
            if n == len(folders) or n >= len(image) - 1
        ]
        whole = [image for n, image in fit if n == len(folders) == len(image) - 1]
        if len(whole) == 1 and not is_above:
            return Located("/".join(*whole), has_namesakes=len(images) > 1)
        n = max((n for n, _ in fit), default=0)
        longest = [image for shared_by, image in fit if shared_by == n]
        if len(longest) != 1:
            unclear.update("/".join(image) for image in longest)
            return None
        (image,) = longest
        above = n - (len(image) - 1)  # how many of the root's names the text includes
        others = folders[: len(folders) - n]  # only in the text
        meant = (*others, *(one.strip() for one in others), *map(reading.decode, others))
        here = {folder for folder in meant if folder in self._folders}
        own = {*map(_plain, image[:-1]), *self._root[len(self._root) - max(above, 0) :]}
        if not here <= own:
            return None
        root_at = [one.strip() for one in folders[: max(len(folders) - (len(image) - 1), 0)]]
        if above <= 0 and (is_above or (root_at and is_local)):
            return None
        return Located("/".join(image), tuple(root_at), above > 0, above < 0)

    def _uploaded(self, address: str, unclear: set[str]) -> str | None:
        """Find an image uploaded to Label Studio, which prefixes eight digits and a dash and
        removes special characters.
        """
        name = _UPLOADED.sub("", unquote(_split(address).path).rpartition("/")[2])
        same = {*self._by_name.get(_plain(name), []), *self._by_made_plain.get(name, [])}
        if len(same) == 1:
            return same.pop()
        unclear |= same
        return None


class Reading(NamedTuple):
    """One reading of a text as a path; `is_decoded` if percent-encoding was decoded."""

    text: str
    is_literal: bool = False
    is_decoded: bool = False

    def decode(self, name: str) -> str:
        return name if self.is_decoded else _plain(unquote(name))


def _readings(address: str) -> Iterator[list[Reading]]:
    """Yield groups of equally likely readings of a text, the likeliest first."""
    text = address.strip()
    scheme, sign, rest = text.partition("://")
    if text.startswith((UPLOADS, LOCAL_FILES)) or (sign and scheme.lower() in ("http", "https")):
        yield _of_web(text, rest if sign else text)
    elif sign or text.startswith(STORAGES):
        yield _of_storage(rest if sign else text.partition(":")[2])
    else:
        if text != address:
            yield [Reading(address)]
        ways = [Reading(text, is_literal=True)]
        if "%" in text:
            ways.append(Reading(unquote(text), is_decoded=True))
        if "\\" in text:
            ways.append(Reading(text.replace("\\", "/")))
        # a path is read literally first, but for a name alone all readings are equally likely
        yield from ([way] for way in ways) if "/" in text else [ways]


def _of_web(text: str, whole: str) -> list[Reading]:
    """Return the path of a URL, as written and decoded; unencoded ? and # in a file name do not
    begin a query or fragment.
    """
    parts = _split(text)
    path = parts.netloc + parts.path
    query = parse_qs(parts.query).get("d", [""])[0] if path.endswith(LOCAL_FILES) else ""
    if query:
        whole = text.partition("?d=")[2] or query
        return _ways(whole, *([] if _goes_on(query, whole) else [Reading(query, is_decoded=True)]))
    page = f"{path}#{parts.fragment}"
    if page_of(page)[1] is not None:
        return _ways(page)
    return _ways(whole if _goes_on(path, whole) else path)


def _of_storage(rest: str) -> list[Reading]:
    """Return the path of an address in cloud storage, whose names may contain ? and #; the bucket
    is a folder that may contradict.
    """
    rest = rest.lstrip("/")
    path, _, query = rest.rpartition("?")
    cut = _ways(path) if path and "=" in query and not _goes_on(path, rest) else []
    back = [Reading(rest.replace("\\", "/"))] if "\\" in rest else []
    return _ways(rest, *cut, *back)


def _ways(path: str, *others: Reading) -> list[Reading]:
    decoded = [Reading(unquote(path), is_decoded=True)] if "%" in path else []
    return [Reading(path), *decoded, *others]


def _goes_on(path: str, whole: str) -> bool:
    """Return whether the text after a path belongs to its name, as in ``rose#1.png``."""
    return _is_of_image(whole) and not _is_of_image(path)


def _is_of_image(name: str) -> bool:
    return name.lower().endswith(suffixes())


def names_image(text: str) -> bool:
    """Return whether a text looks like the address of an image."""
    return _is_of_image(text) or _is_of_image(re.split("[?#]", text)[0])


def _parts_of(text: str) -> tuple[bool, list[str]]:
    """Return whether a path begins with "..", and its names, at least one."""
    is_above, parts = False, list[str]()
    for part in text.split("/"):
        if part == "..":
            is_above = is_above or not parts
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(_plain(part))
    return is_above, parts or [""]


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise UnclearAddressError(address, ()) from error


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _n_shared(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many last folders two paths share."""
    pairs = zip(reversed(ours), reversed(theirs), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
