"""Export of labels: tables, manifests and class folders."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.durable import new_folder
from ..core.errors import DataError, RunExistsError, UsageError
from ..core.text import plain_text, shown
from ..datasets.formats import file_of, page_of
from ..datasets.layout import is_part, is_unlabeled
from ..datasets.paging import save_page
from .doubts import Doubts
from .formats import COLUMNS
from .ledger import SETTLED, TEST
from .names import guarded
from .project import LabelProject

_SPLIT_WORD = re.compile(
    r"(?<![^\W_])(train|training|test|testing|val|valid|validation|dev|eval|evaluation)(?![^\W_])",
    re.IGNORECASE,
)

_log = logging.getLogger("skal")


def export_csv(project: LabelProject) -> str:
    """Return CSV with a row for each annotator's verdict on each image, and for class folders.

    The columns are `COLUMNS`, and `note` if there are notes of other tools. `label` is empty if the
    action is "unsure" or "bad", and the annotator is empty for labels of class folders.
    """
    by_path = sorted(project.paths.items(), key=lambda item: item[1])
    notes = project.notes.told()
    rows = [
        [path, *row, *([notes.get(image, "")] if notes else ())]
        for image, path in by_path
        for row in _verdict_rows(project, image)
    ]
    return _table([(*COLUMNS, *(["note"] if notes else ())), *rows])


def _table(rows: Sequence[Sequence[Any]], guard: Callable[[str], str] = guarded) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [guard(plain_text(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return out.getvalue()


def _verdict_rows(project: LabelProject, image: int) -> Iterator[tuple[Any, ...]]:
    verdicts = project.ledger.verdicts(image)
    # the settling label comes last, because an import takes the first source of an image
    for who, a in sorted(verdicts.items(), key=lambda item: (item[1].source == SETTLED, item[0])):
        name = "" if a.label is None else project.classes[a.label]
        settles = a.source == SETTLED and len(verdicts) > 1
        source = TEST if project.is_test(image) and not settles else a.source
        yield name, a.action, who, source, a.seconds, a.time
    if not verdicts and image in project.folder_labels:
        yield project.classes[project.folder_labels[image]], "label", "", "folder", "", ""


def _labelled(project: LabelProject) -> Iterator[tuple[str, int]]:
    """Yield path and class of each labelled image, sorted by path."""
    for image in sorted(project.labels, key=project.paths.__getitem__):
        yield plain_text(project.paths[image]), project.labels[image]


def check_files(project: LabelProject, what: str) -> None:
    """Raise a UsageError if images are pages of files, for formats that must name files."""
    page = next((p for p in project.paths.values() if page_of(p)[1] is not None), None)
    if page is not None:
        raise UsageError(
            f"{what} needs files, but images such as {shown(page)} are pages of a file; use "
            "--format folder, which writes each page to a file, or --format csv"
        )


def _lines(objects: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(one)}\n" for one in objects)


def export_json_lines(project: LabelProject) -> str:
    """Return a JSON object with path and label for each labelled image, one per line."""
    return _lines({"path": path, "label": project.classes[k]} for path, k in _labelled(project))


def export_huggingface(project: LabelProject) -> str:
    """Return the ``metadata.csv`` that Hugging Face's ImageFolder reads next to the images."""
    check_files(project, "metadata.csv for Hugging Face")
    rows = [(path, project.classes[k]) for path, k in _labelled(project)]
    return _table([("file_name", "label"), *rows], guard=str)  # a program reads it


def export_ground_truth(project: LabelProject) -> str:
    """Return an augmented manifest for SageMaker Ground Truth, with relative paths."""
    check_files(project, "a manifest for Ground Truth")
    about = {
        "job-name": f"labeling-job/{project.name}",
        "confidence": 1,
        "type": "groundtruth/image-classification",
        "human-annotated": "yes",
        "creation-date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return _lines(
        {
            "source-ref": path,
            "label": k,
            "label-metadata": {"class-name": project.classes[k], **about},
        }
        for path, k in _labelled(project)
    )


def export_query(
    project: LabelProject, picks: Sequence[tuple[int, str]], *, as_table: bool = False
) -> str:
    """Return images to label, one per line: paths, or a CSV table.

    The table has the columns `path`, `label` (to be filled in) and `source` (why it was picked).
    """
    if as_table:
        rows = [(project.paths[image], "", kind) for image, kind in picks]
        return _table([("path", "label", "source"), *rows])
    return "".join(f"{plain_text(project.paths[image])}\n" for image, _ in picks)


DOUBT_COLUMNS = (
    *("path", "label", "guess", "label_probability", "guess_probability", "contradicted"),
    "note",
)


def describe_doubts(
    project: LabelProject, doubts: Doubts, noted: bool = False
) -> list[dict[str, Any]]:
    """Return a dict with `DOUBT_COLUMNS` for each label, the least probable first.

    If `noted`, images with notes of other tools come before all others.
    """
    names, notes = project.classes, project.notes.told()
    described = [
        {
            "path": project.paths[doubt.image],
            "label": names[doubt.label],
            "guess": names[doubt.guess],
            "label_probability": round(doubt.label_probability, 6),
            "guess_probability": round(doubt.guess_probability, 6),
            "contradicted": doubt.contradicted,
            "note": notes.get(doubt.image, ""),
        }
        for doubt in doubts.ranked
    ]
    return sorted(described, key=lambda row: not row["note"]) if noted else described


def export_doubts(described: Sequence[dict[str, Any]]) -> str:
    """Return doubts as CSV."""
    rows = [[*(row | {"contradicted": int(row["contradicted"])}).values()] for row in described]
    return _table([DOUBT_COLUMNS, *rows])


def export_folder(
    project: LabelProject,
    out: Path,
    *,
    copy: bool = False,
    link: Callable[[Path, Path], None] = os.link,
) -> int:
    """Make a folder of class folders, and return how many images are in it.

    Images are hard links, unless `copy` is set or the file system has no links. Unlabelled, unsure
    and bad images are left out. Raise a RunExistsError, UsageError or DataError if the folder
    exists, is inside the project's folder, or cannot be written.
    """
    if out.exists():
        raise RunExistsError(f"{str(out)!r} exists; name another folder with --out")
    if out.resolve().is_relative_to(project.root.resolve()):
        raise UsageError(
            f"{str(out)!r} is inside {str(project.root)!r} and would add to its images; name "
            "another folder with --out"
        )
    _check_parts({project.classes[label] for label in project.labels.values()})
    transfer = shutil.copy2 if copy else partial(_link, link=link)
    taken: set[str] = set()
    try:
        with new_folder(out) as folder:
            for image, label in sorted(project.labels.items()):
                target = folder / _path_in_export(project, image, label, taken)
                target.parent.mkdir(parents=True, exist_ok=True)
                source = project.root / project.paths[image]
                if file_of(source) == source:
                    transfer(source, target)
                else:
                    save_page(source, target)
    except OSError as error:
        raise DataError(f"cannot write {str(out)!r}: {error.strerror or error}") from error
    return len(taken)


def _check_parts(classes: Iterable[str]) -> None:
    """Refuse classes that all readers take for a split, and warn of those that Hugging Face does.

    Hugging Face leaves their images out.
    """
    for name in sorted(classes):
        if is_part(name):
            raise UsageError(
                f"a folder for the class {name!r} would be read as a split of the data; rename the "
                f"class with skal label --rename-class, or use another format, such as csv"
            )
        if _SPLIT_WORD.search(name):
            _log.warning("Hugging Face will read the folder of the class %r as a split", name)


def _path_in_export(project: LabelProject, image: int, label: int, taken: set[str]) -> str:
    """Return ``<class>/<name>``, with a name that all tools read the same way.

    Names are not nested, not hidden, unique without suffix and case, and contain no word that
    Hugging Face takes for a split.
    """
    place, page = page_of(project.paths[image])
    path = PurePosixPath(place)
    if page is not None:
        path = path.with_name(f"{path.stem}-page{page}.tif")
    folders = path.parts[:-1]
    if folders and (image in project.folder_labels or is_unlabeled(folders[0])):
        folders = folders[1:]
    plain = _SPLIT_WORD.sub(r"x\1", path.stem.lstrip(".")) or "image"
    inner = "_".join((*folders, plain))
    numbered = (f"{inner}-{number}" for number in count(2))
    stem = next(s for s in chain((plain, inner), numbered) if s.casefold() not in taken)
    taken.add(stem.casefold())
    return str(PurePosixPath(project.classes[label], f"{stem}{path.suffix}"))


def _link(source: Path, target: Path, link: Callable[[Path, Path], None]) -> None:
    try:
        link(source.resolve(), target)
    except OSError as error:  # another file system, or one without links
        _log.debug("copied instead of linked: %s", error)
        shutil.copy2(source, target)
