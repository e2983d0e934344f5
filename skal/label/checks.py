"""Checks before a project is opened, so that nothing invalid is written."""

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
"""Classes to name in an error."""


def check_config(config: RunConfig, given: Mapping[str, Any]) -> None:
    """Check early what the training process would find out late."""
    if ":" not in config.strategy:
        STRATEGIES.resolve(config.strategy)
    if config.model is not None:
        MODELS.resolve(config.model)
    if given.get("pretrain"):
        from ..runs.pretraining import check_pretraining  # imports torch

        check_pretraining(config)


def check_foreign(place: Path, config: RunConfig, given: Mapping[str, Any]) -> None:
    """Refuse custom code that the saved settings name, unless the caller named it again."""
    kept = {n: value for n, value in foreign_names(config).items() if given.get(n) != value}
    check_trusted(place, kept, False, "; if you trust it, name it again as an option")


def check_enough(
    classes: Sequence[str], root: Path | None = None, files: Files | tuple[()] = ()
) -> None:
    """Raise a UsageError if there are fewer than two classes.

    The message names a table in the folder, next to its images, that may have classes.
    """
    if len(classes) >= 2:
        return
    got = f"there is only the class {classes[0]!r}" if classes else "there are no classes"
    table = None if root is None else table_of(root, files)
    hint = ""
    if root is not None and table is not None:
        names = sorted({*classes, *table.labels.values()})
        places = " ".join(shown(quote(str(place))) for place in (root, table.place))
        given = as_options(names if len(names) > 1 else [*names, "..."])
        more = "" if len(names) > 1 else f", with another class, as it has only {names[0]!r}"
        hint = f"; or import the table in the folder: skal import {places} {given}{more}"
    raise UsageError(
        f"{got}; expected at least two: name them with --classes daisy,rose,..., or make a folder "
        f"of images for each{hint}"
    )


def as_options(names: Sequence[str]) -> str:
    """Return the command-line options that name some classes."""
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
            f"all {n} images are in class folders: nothing is left to label; if these folders are "
            "not the classes, name the classes with --classes"
        )


def check_pages(root: Path, kept: str, wanted: str, store: Store, files: Files) -> None:
    """Refuse to switch between files and pages as images if this would discard labels."""
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
            f"{str(root)!r} was labelled with --pages {before}, and --pages {wanted} would discard "
            f"labels; use --pages {before}, or label a copy of the folder"
        )


def check_trainable(labels: Mapping[int, int]) -> None:
    """Raise a DataError if the labels have fewer than two classes."""
    if len(set(labels.values())) < 2:
        raise DataError("training needs labels of at least two classes; label more images")


def check_damaged(path: Path) -> None:
    """Raise a UsageError if a store is readable, because its backup may have fewer labels.

    Raise a RunFolderError if another version of skal wrote it, or if it is locked or cannot be
    opened, so that damage is unknown.
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
        f"the labels in {str(path)!r} are not damaged, so nothing was restored: the backup may "
        "have fewer labels; to restore it anyway, rename that file first"
    )


def store_to_read(path: Path) -> Store:
    """Return the store of a project; an empty one in memory if its file is missing or empty."""
    if path.is_file():
        store = Store(path, read_only=True)
        if not store.is_empty:
            return store
        store.close()
    return Store(None)
