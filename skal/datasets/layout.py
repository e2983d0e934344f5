"""What the places of images in a folder say about them: the part of a split, and the class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ..core.errors import DataError

Folder: TypeAlias = tuple[str, ...]
"""A folder's place: its names from the root on; empty for the root itself."""

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
"""Names of the parts of a split, in small letters."""
_FILLERS = frozenset(
    ("set", "sets", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "files")
)
_AROUND = frozenset(("data", "dataset", "images", "imgs", "pictures", "photos", "raw"))
"""Names of folders that hold all the others."""
_YEAR = re.compile(r"(19|20)\d\d")
_FOLD = re.compile(r"(fold|split|part|batch|chunk)[ _-]?\d+", re.IGNORECASE)
MOST_SHOWN = 4


class Place(NamedTuple):
    """What a folder says of the images in it: "train", "test", "unlabeled", or "other" for none of
    these, a class, None where there is none, and the folder that holds the folders of classes.
    """

    part: str
    label: str | None = None
    holder: Folder | None = None


class ImageFile(NamedTuple):
    """One file found: where it is, and what its place says about it."""

    path: str
    part: str  # "train", "test" or "unlabeled"
    label: str | None  # None also for a test image in no class's folder

    @property
    def is_of_use(self) -> bool:
        """Whether it can be trained on, labelled or tested on; a test needs a known class."""
        return self.part != "test" or self.label is not None


@dataclass
class _Node:
    """A folder with images in it or below it; `loose` tells that some lie in itself."""

    path: Folder
    loose: bool = False
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else ""

    @property
    def classes(self) -> dict[str, _Node]:
        """The folders in it but for those of images without a label."""
        return {name: node for name, node in self.children.items() if not is_unlabeled(name)}

    @property
    def holds_folders_alone(self) -> bool:
        return bool(self.children) and not self.loose


def is_unlabeled(name: str) -> bool:
    """Tell whether a folder of this name is one of images without a label."""
    return name.strip().lower() in UNLABELED


def class_name(name: str) -> str:
    """Return the class that a folder's name stands for."""
    # macOS spells an accented name in other code points than the rest, and it is the same class
    return unicodedata.normalize("NFC", name)


def read_layout(folders: Iterable[Folder], refuse: bool = True) -> dict[Folder, Place]:
    """Tell part and class of each folder that images lie in.

    Classes are the folders in the root, or in the parts of a split: folders called "train" and
    "test" or "val" in one of their spellings, which may share other words ("seg_train" beside
    "seg_test"). Folders around all of that are looked through. A folder "train" (of trains, say) is
    a part only if it has folders of its own, or only other parts beside it. A DataError is raised
    if what stands in the place of classes looks like parts of a split, and that is to be refused.
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
    """Give a folder, and all in it, one place."""
    if node.loose:
        places[node.path] = place
    for child in node.children.values():
        _take(child, place, places)


def _read_classes(node: _Node, part: str, places: dict[Folder, Place], refuse: bool) -> None:
    """Take the folders in a folder for classes."""
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
    """Return the folder that holds more than one other, or images, looking through those around it.

    In a part of a split a class may be alone; it is one if the other parts have it, too.
    """
    while not node.loose and len(node.classes) == 1:
        ((name, only),) = node.classes.items()
        same = part is not None and (
            name.strip().lower() == node.name.strip().lower()
            or _kind(name)[0] == _kind(node.name)[0]
        )
        elsewhere = any(name in other.classes for other in others)
        if not same and (elsewhere or not only.holds_folders_alone):
            break
        for child in node.children.values():
            if child is not only:
                _take(child, Place("unlabeled"), places)
        node = only
    return node


def kind_of(name: str) -> str | None:
    """Return the part of a split that a name speaks of: "train", "test", "val", or None."""
    return _kind(name)[0]


def is_part(name: str) -> bool:
    """Tell whether a folder's name is that of a part of a split, and of nothing else."""
    kind, words = _kind(name)
    return kind is not None and not words


def _kind(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the part of a split that a name speaks of, None for none, and its other words."""
    words = re.findall(r"[A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    small = [word.lower() for word in words]
    kinds = [word for word in small if word in KINDS]
    if len(kinds) != 1:
        return None, ()
    return KINDS[kinds[0]], tuple(w for w in small if w != kinds[0] and w not in _FILLERS)


def _parts(node: _Node) -> dict[str, str]:
    """Map the folders in a folder that are parts of a split to "train" or "test"; empty if it holds
    no split.
    """
    kinds = {name: _kind(name) for name in node.classes}
    for rest in dict.fromkeys(rest for kind, rest in kinds.values() if kind == "train"):
        same = {name: kind for name, (kind, words) in kinds.items() if kind and words in (rest, ())}
        if rest and set(same.values()) == {"train"}:
            continue  # "train station" beside "bus station"
        nested = {name for name in same if node.children[name].children}
        alone = len(same) == len(node.classes)
        if not any(same[name] == "train" and (alone or name in nested) for name in same):
            continue
        parts = {name: kind for name, kind in same.items() if kind != "val"}
        if not any(parts.get(name) == "test" for name in nested):
            parts.update((name, "test") for name in same if same[name] == "val" and name in nested)
        return parts
    return {}


def _refuse_parts(node: _Node) -> None:
    """Raise a DataError if the folders in a folder are no classes, by their names or contents."""
    classes = node.classes
    parts = _named_as_parts(classes)
    if parts:
        raise DataError(_told(node, parts, "are called as parts of a split are"))
    for name, child in classes.items():
        again = [other for other in child.classes if other in classes and other != name]
        if child.holds_folders_alone and len(again) >= 2:
            raise DataError(
                _told(node, [name], f"it holds {_listed(again)}, which stand beside it")
            )
        is_around = name.strip().lower() in _AROUND and len(child.classes) >= 2
        if child.holds_folders_alone and is_around and len(classes) > 1:
            held = _listed(sorted(child.classes))
            raise DataError(_told(node, [name], f"it holds folders of its own ({held})"))
    if len(classes) < 2 or not all(child.holds_folders_alone for child in classes.values()):
        return
    inner = [{n for n in child.classes if not _YEAR.fullmatch(n)} for child in classes.values()]
    common, union = set.intersection(*inner), set.union(*inner)
    is_split = any(_kind(name)[0] for name in common)
    if is_split or (len(common) >= 2 and 2 * len(common) >= len(union)):
        raise DataError(_told(node, list(classes), f"each hold {_listed(sorted(common))}"))


def _named_as_parts(classes: Mapping[str, _Node]) -> list[str]:
    """Return names of folders that are those of parts: "train" and "test", "train_cats" and
    "test_cats" beside others, or "fold1" and "fold2"; empty if there are none.
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


def _told(node: _Node, names: list[str], why: str) -> str:
    place = f" in {'/'.join(node.path)!r}" if node.path else ""
    return (
        f"the {'folders' if len(names) > 1 else 'folder'} {_listed(names)}{place} "
        f"{'stand' if len(names) > 1 else 'stands'} where classes are expected, but {why}; "
        "expected ROOT/<class>/*, or ROOT/train/<class>/* with ROOT/test/<class>/*; move the "
        "folders so, or say what each image is in a labels.csv with the columns path and label"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MOST_SHOWN])
    return f"{shown}{', ...' if len(names) > MOST_SHOWN else ''}"


def alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return classes that differ only by case or spaces, which are two to skal."""
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(labels):
        names.setdefault(" ".join(name.split()).casefold(), []).append(name)
    return [tuple(sorted(same)) for same in names.values() if len(same) > 1]
