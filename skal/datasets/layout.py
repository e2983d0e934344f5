"""Interprets folder layouts: the part of a split and the class of each folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ..core.errors import DataError

Folder: TypeAlias = tuple[str, ...]
"""A folder's path: its names from the root on; empty for the root itself."""

UNLABELED = frozenset(
    ("unlabeled", "unlabelled", "_unlabeled", "_unlabelled", "no_label", "nolabel", "no label")
)
_WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
}
KINDS = {
    f"{word}{more}": kind
    for kind, words in _WORDS.items()
    for word in words
    for more in ("", "set", "data", "images")
}
"""Names of the parts of a split, in lower case."""
_FILLERS = frozenset(
    ("set", "sets", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "files")
)
_AROUND = frozenset(("data", "dataset", "images", "imgs", "pictures", "photos", "raw"))
"""Names of folders that wrap all the others."""
_YEAR = re.compile(r"(19|20)\d\d")
_FOLD = re.compile(r"(fold|split|part|batch|chunk)[ _-]?\d+", re.IGNORECASE)
MOST_SHOWN = 4


class Place(NamedTuple):
    """The part ("train", "test", "unlabeled" or "other") and class (or None) of the images in a
    folder, and the folder that holds the class folders.
    """

    part: str
    label: str | None = None
    holder: Folder | None = None


class ImageFile(NamedTuple):
    """An image file: its path, part and class."""

    path: str
    part: str  # "train", "test" or "unlabeled"
    label: str | None  # None also for a test image in no class folder

    @property
    def is_of_use(self) -> bool:
        """Whether it can be used: a test image must have a known class."""
        return self.part != "test" or self.label is not None


@dataclass
class _Node:
    """A folder with images in it or below it; `loose` if some are directly in it."""

    path: Folder
    loose: bool = False
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else ""

    @property
    def classes(self) -> dict[str, _Node]:
        """The folders in it, except those of unlabelled images."""
        return {name: node for name, node in self.children.items() if not is_unlabeled(name)}

    @property
    def holds_only_folders(self) -> bool:
        return bool(self.children) and not self.loose


def is_unlabeled(name: str) -> bool:
    """Return whether a folder's name marks its images as unlabelled."""
    return name.strip().lower() in UNLABELED


def class_name(name: str) -> str:
    """Return the class name of a folder."""
    # macOS decomposes accented letters in file names; the class is the same
    return unicodedata.normalize("NFC", name)


def read_layout(folders: Iterable[Folder], refuse: bool = True) -> dict[Folder, Place]:
    """Return part and class of each folder that has images.

    Classes are the folders in the root, or in the parts of a split: folders named "train" and
    "test" or "val" in one of their spellings, possibly with common other words ("seg_train" and
    "seg_test"). Folders that wrap all of that are skipped. A folder "train" (of trains, say) is a
    part only if it has subfolders, or if all its siblings are parts. With `refuse`, a DataError is
    raised if the folders in the place of classes look like parts of a split.
    """
    root = _Node(())
    for folder in folders:
        node = root
        for depth, name in enumerate(folder):
            node = node.children.setdefault(name, _Node(folder[: depth + 1]))
        node.loose = True
    places: dict[Folder, Place] = {}
    base = _unwrapped(root, places)
    parts = _parts(base)
    if not parts:
        _read_classes(base, "train", places, refuse)
        return places
    if base.loose:
        places[base.path] = Place("unlabeled")
    of_parts = {name: base.children[name] for name in parts}
    for name, node in base.children.items():
        if name in parts:
            others = [other for other in of_parts.values() if other is not node]
            inner = _unwrapped(node, places, parts[name], others)
            _read_classes(inner, parts[name], places, refuse)
        else:
            _take(node, Place("unlabeled" if is_unlabeled(name) else "other"), places)
    return places


def _take(node: _Node, place: Place, places: dict[Folder, Place]) -> None:
    """Give a folder and all its subfolders one place."""
    if node.loose:
        places[node.path] = place
    for child in node.children.values():
        _take(child, place, places)


def _read_classes(node: _Node, part: str, places: dict[Folder, Place], refuse: bool) -> None:
    """Treat the folders in a folder as classes."""
    without = Place("test" if part == "test" else "unlabeled", holder=node.path)
    if node.loose:
        places[node.path] = without
    if refuse:
        _refuse_parts(node)
    for name, child in node.children.items():
        place = without if is_unlabeled(name) else Place(part, class_name(name), node.path)
        _take(child, place, places)


def _unwrapped(
    node: _Node, places: dict[Folder, Place], part: str | None = None, others: Iterable[_Node] = ()
) -> _Node:
    """Return the first folder with images or several subfolders, skipping those that wrap it.

    Inside a part of a split, a single subfolder is a class if the other parts have it, too.
    """
    while not node.loose and len(node.classes) == 1:
        ((name, only),) = node.classes.items()
        same = part is not None and (
            name.strip().lower() == node.name.strip().lower()
            or _kind(name)[0] == _kind(node.name)[0]
        )
        elsewhere = any(name in other.classes for other in others)
        if not same and (elsewhere or not only.holds_only_folders):
            break
        for child in node.children.values():
            if child is not only:
                _take(child, Place("unlabeled"), places)
        node = only
    return node


def kind_of(name: str) -> str | None:
    """Return the part of a split in a name: "train", "test", "val", or None."""
    return _kind(name)[0]


def is_part(name: str) -> bool:
    """Return whether a folder's name means a part of a split and nothing else."""
    kind, words = _kind(name)
    return kind is not None and not words


def _kind(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the part of a split in a name, or None, and the name's other words."""
    words = re.findall(r"[A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    small = [word.lower() for word in words]
    kinds = [word for word in small if word in KINDS]
    if len(kinds) != 1:
        return None, ()
    return KINDS[kinds[0]], tuple(w for w in small if w != kinds[0] and w not in _FILLERS)


def _parts(node: _Node) -> dict[str, str]:
    """Map the subfolders that are parts of a split to "train" or "test"; empty without a split."""
    kinds = {name: _kind(name) for name in node.classes}
    for rest in dict.fromkeys(rest for kind, rest in kinds.values() if kind == "train"):
        same = {name: kind for name, (kind, words) in kinds.items() if kind and words in (rest, ())}
        if rest and set(same.values()) == {"train"}:
            continue  # such as "train station" and "bus station"
        nested = {name for name in same if node.children[name].children}
        all_parts = len(same) == len(node.classes)
        if not any(same[name] == "train" and (all_parts or name in nested) for name in same):
            continue
        parts = {name: kind for name, kind in same.items() if kind != "val"}
        if not any(parts.get(name) == "test" for name in nested):
            parts.update((name, "test") for name in same if same[name] == "val" and name in nested)
        return parts
    return {}


def _refuse_parts(node: _Node) -> None:
    """Raise a DataError if subfolders cannot be classes, by their names or contents."""
    classes = node.classes
    parts = _named_as_parts(classes)
    if parts:
        raise DataError(_refusal(node, parts, "have the names of parts of a split"))
    for name, child in classes.items():
        again = [other for other in child.classes if other in classes and other != name]
        if child.holds_only_folders and len(again) >= 2:
            raise DataError(
                _refusal(node, [name], f"it contains {_listed(again)}, which are also next to it")
            )
        is_around = name.strip().lower() in _AROUND and len(child.classes) >= 2
        if child.holds_only_folders and is_around and len(classes) > 1:
            held = _listed(sorted(child.classes))
            raise DataError(_refusal(node, [name], f"it contains folders ({held})"))
    if len(classes) < 2 or not all(child.holds_only_folders for child in classes.values()):
        return
    inner = [{n for n in child.classes if not _YEAR.fullmatch(n)} for child in classes.values()]
    common, union = set.intersection(*inner), set.union(*inner)
    is_split = any(_kind(name)[0] for name in common)
    if is_split or (len(common) >= 2 and 2 * len(common) >= len(union)):
        raise DataError(_refusal(node, list(classes), f"each contains {_listed(sorted(common))}"))


def _named_as_parts(classes: Mapping[str, _Node]) -> list[str]:
    """Return folders that are named as parts: "train" and "test", "train_cats" and "test_cats"
    among others, or "fold1" and "fold2"; empty if there are none.
    """
    kinds: dict[tuple[str, ...], dict[str, str]] = {}
    for name in classes:
        kind, rest = _kind(name)
        if kind:
            kinds.setdefault(rest, {})[name] = kind
    for same in kinds.values():
        if len(set(same.values())) > 1:
            return list(same)
    return list(classes) if len(classes) > 1 and all(map(_FOLD.fullmatch, classes)) else []


def _refusal(node: _Node, names: list[str], why: str) -> str:
    place = f" in {'/'.join(node.path)!r}" if node.path else ""
    return (
        f"the {'folders' if len(names) > 1 else 'folder'} {_listed(names)}{place} "
        f"{'are' if len(names) > 1 else 'is'} in the place of classes, but {why}; expected "
        "ROOT/<class>/*, or ROOT/train/<class>/* with ROOT/test/<class>/*; move the folders, or "
        "give the labels in a labels.csv with the columns path and label"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MOST_SHOWN])
    return f"{shown}{', ...' if len(names) > MOST_SHOWN else ''}"


def alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of classes whose names differ only by case or spaces."""
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(labels):
        names.setdefault(" ".join(name.split()).casefold(), []).append(name)
    return [tuple(sorted(same)) for same in names.values() if len(same) > 1]
