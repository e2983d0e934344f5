"""What is checked before a project is opened: nothing is written where it is not valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import Any

from ..core.errors import DataError, SkalError, UsageError
from ..core.text import shown
from ..core.trust import check_trusted, foreign_names
from ..datasets.formats import page_of
from ..datasets.tables import table_of
from ..models import MODELS
from ..runs.config import RunConfig
from ..strategies.catalogue import STRATEGIES
from .copies import UNREAD, OtherFormatError
from .listing import Files
from .store import Store

MOST_CLASSES = 50
"""That are all named in an error."""


def check_config(config: RunConfig, given: Mapping[str, Any]) -> None:
    """Find out early what the process that trains would find out late."""
    if ":" not in config.strategy:
        STRATEGIES.resolve(config.strategy)
    if config.model is not None:
        MODELS.resolve(config.model)
    if given.get("pretrain"):
        from ..runs.pretraining import check_pretraining  # and torch with it

        check_pretraining(config)


def check_foreign(place: Path, config: RunConfig, given: Mapping[str, Any]) -> None:
    """Refuse code of one's own that the settings at a place name and who runs it does not."""
    kept = {n: value for n, value in foreign_names(config).items() if given.get(n) != value}
    check_trusted(place, kept, False, "; if you trust it, name it again as an option")


def check_enough(
    classes: Sequence[str], root: Path | None = None, files: Files | tuple[()] = ()
) -> None:
    """Raise a UsageError if there are fewer than two classes; it names a table in a folder, beside
    its images, that may have them.
    """
    if len(classes) >= 2:
        return
    got = f"only the class {classes[0]!r}" if classes else "no class"
    table = None if root is None else table_of(root, files)
    hint = ""
    if root is not None and table is not None:
        names = sorted({*classes, *table.labels.values()})
        places = " ".join(shown(quote(str(place))) for place in (root, table.place))
        given = as_options(names if len(names) > 1 else [*names, "..."])
        more = "" if len(names) > 1 else f", with another class, for it has only {names[0]!r}"
        hint = f"; or take those of the table that is there: skal import {places} {given}{more}"
    raise UsageError(
        f"there is {got}; name two or more by --classes daisy,rose,... or make a folder of "
        f"images for each{hint}"
    )


def as_options(names: Sequence[str]) -> str:
    """Return the options by which a command takes classes."""
    if len(names) > MOST_CLASSES:
        return "--classes A,..."
    if any("," in name for name in names):
        return " ".join(f"--class {shown(quote(name))}" for name in names)
    return f"--classes {shown(quote(','.join(names)))}"


def check_pool(files: Files, classes: Sequence[str]) -> None:
    taking_part = {label: n for (part, label), n in files.counts().items() if part != "test"}
    if taking_part and all(label in classes for label in taking_part):
        n = sum(taking_part.values())
        raise UsageError(
            f"all {n} images are in class folders: nothing is left to label; if "
            "these folders are no classes, name the classes by --classes"
        )


def check_pages(root: Path, kept: str, wanted: str, store: Store, files: Files) -> None:
    """Refuse to take each page for an image, or no longer, where it would set labels aside."""
    if (kept == "all") == (wanted == "all"):
        return
    paths, labeled = store.images(), {action.image for action in store.actions()}
    if wanted == "all":
        paged = {page_of(path)[0] for path in files.paths if page_of(path)[1] is not None}
        is_lost = any(paths.get(image) in paged for image in labeled)
    else:
        is_lost = any(page_of(paths.get(image, ""))[1] is not None for image in labeled)
    if is_lost:
        before = kept if wanted == "all" else "all"
        raise UsageError(
            f"{str(root)!r} was labelled with --pages {before}, and --pages {wanted} would set "
            "labels aside; leave it as it is, or label a copy of the folder"
        )


def check_trainable(labels: Mapping[int, int]) -> None:
    """Raise a DataError if labels are not of two classes."""
    if len(set(labels.values())) < 2:
        raise DataError("training needs labels of two classes or more; label more images")


def check_damaged(path: Path) -> None:
    """Raise a UsageError if all of a store can be read: its copy, of a day ago maybe, has less; and
    a RunFolderError if another version of skal wrote it, or nobody knows whether it is damaged.
    """
    try:
        if not path.is_file():
            return
        with closing(Store(path, read_only=True)) as store:
            if store.is_empty:
                return
            store.check_rows()
    except OtherFormatError:
        raise
    except SkalError as error:
        if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF in UNREAD:
            raise
        return
    raise UsageError(
        f"the labels in {str(path)!r} are not damaged, and nothing is restored: the copy may have "
        "fewer; if you want it none the less, give that file another name before"
    )


def store_to_read(path: Path) -> Store:
    """Return the store of a project; that of a new one where there is none, or an empty file."""
    if path.is_file():
        store = Store(path, read_only=True)
        if not store.is_empty:
            return store
        store.close()
    return Store(None)
