"""Made-up imports, of all formats: taken in whole, or refused by one line; nothing half imported.

What `tests/label/test_formats.py` writes, and tables of faults, Parquet and skal's own, is changed:
values of JSON and cells of tables become others, go, move or come twice, names of keys and columns
change places, and bytes are mutated; the options and classes are drawn, too. What is refused leaves
the project as it was, to its not being there; what is taken is there when it is opened again, and
the same file then has nothing new.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from children import one_by_one
from damage import Outcomes
from images import MUTATIONS

from skal.core.errors import DataError, SkalError
from skal.core.text import shown
from skal.label.exporting import export_csv
from skal.label.formats import OPTIONS, READERS, Source
from skal.label.importing import import_into
from skal.label.project import LabelProject

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "label"), str(TESTS)]
import test_formats  # noqa: E402
from label_server import write_images  # noqa: E402

AT_ONCE = 200
"""Imports of one child."""
DEEP: list[Any] = []
for _ in range(60):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 5, -1, 2**63, 10**400, 0.5, 1e308, float("nan"), float("-inf")),
    *("", " ", "cat", "dog", " cat", "Dog", "bird", "-1", "0", "1", "nan", "=1+1", "'=cat", "\t"),
    *("a/0012.png", "b/2.png", "0012", "1.png", "./a/1.png", "photos/b/2.png", "A/1.PNG", "/"),
    *("../../etc/passwd", "a\\1.png", "https://x/a/1.png?y=1", "b/2.png#page=2", "a//1.png", "."),
    *("\ud800", "\0", "é", "e\u0301", "\u202e", "\u2028", "x" * 3000, "a,b", 'q"q', "a\nb", "🐈"),
    *("2024-03-01T10:00:00Z", "9999999999999", "9999-12-31", "label", "path", "unsure", "bad"),
    *("skip", "test", [], {}, [[]], {"": ""}, ["cat"], ["cat", "dog"], {"cat": True}, DEEP),
)
NAMES = ("path", "label", "image", "id", "action", "annotator", "time", "seconds", "source")
ANNOTATORS = ("ann", "é", "", " ", "x" * 300, "\ud800", "a\nb")
CLASSES: tuple[tuple[str, ...], ...] = (
    *((), ("cat",), ("dog", "cat", "bird"), ("", "dog"), ("a\nb", "c"), ("\ud800", "dog")),
    *(("cat", "cat"), ("Cat", "cat")),
)
LIKELY = ("cat", "dog", "", None, *test_formats.IMAGES)
"""Values with which a file may still be taken."""


def run(n: int, seed: int = 0, only: str | None = None, place: Path | None = None) -> Outcomes:
    """Import `n` files, of formats whose name contains `only`; return how it ended."""
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        answer, work = Path(scratch) / "answer", Path(scratch) / "work"
        for start in range(0, n, AT_ONCE):
            work.mkdir()
            _begin(work)
            numbers = list(map(str, range(start, min(start + AT_ONCE, n))))
            outcome_of = partial(_outcome, work, seed, only)
            for number, outcome in one_by_one(numbers, outcome_of, work, answer):
                outcome, _, told = outcome.partition(": ")
                outcomes.take(f"import {number} of seed {seed}", "made up", outcome, told)
            shutil.rmtree(work)
    return outcomes


def _begin(work: Path) -> None:
    """Write images, once without a project and once with one in which there are labels."""
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    for name in ("none", "begun"):
        write_images(work / name / "photos", pixels, test_formats.IMAGES)
    (work / "begun/x.csv").write_text("path,label,annotator\na/1.png,cat,ann\nb/2.png,cat,me\n")
    import_into(work / "begun/photos", work / "begun/x.csv", ["cat", "dog"])
    shutil.copytree(work / "begun/photos/.skal", work / "kept")


@cache
def _whole() -> list[tuple[str, str, bytes]]:
    """Return whole files: formats, names and contents."""
    import pyarrow.parquet

    files = [(form, name, text.encode()) for form, name, text in test_formats.FILES.values()]
    table = pyarrow.table({"path": ["a/0012.png", "b/2.png"], "label": ["cat", "dog"]})
    pyarrow.parquet.write_table(table, file := io.BytesIO(), compression="none")
    own = (
        "path,label,action,annotator,source,seconds,time\n"
        "a/0012.png,cat,label,me,pool,1.5,2026-03-01T10:00:00+00:00\n"
        "b/2.png,,unsure,ann,test,,2026-03-01T10:00:00+00:00\na/1.png,,bad,me,settled,2,\n"
    )
    faults = (
        ",is_dark_issue,dark_score,is_blurry_issue,blurry_score\n"
        "a/0012.png,True,0.1,False,0.9\nb/2.png,False,0.8,True,0.05\na/1.png,False,1.0,False,1.0\n"
    )
    return [
        *files,
        ("parquet", "x.parquet", file.getvalue()),
        ("csv", "own.csv", own.encode()),
        ("cleanlab", "issues.csv", faults.encode()),
    ]


def _drawn(rng: random.Random, only: str | None) -> tuple[str, bytes]:
    """Return a made-up file's name and content."""
    whole = [file for file in _whole() if only is None or only in file[0]]
    form, name, content = rng.choice(whole)
    if form != "parquet" and rng.random() < 0.8:
        content = _changed(content.decode(), rng)
    if form == "parquet" or rng.random() < 0.2:
        mutated = bytearray(content or b"\0")
        for _ in range(rng.choice((1, 1, 2))):
            rng.choice(MUTATIONS)(mutated, rng)
            mutated = mutated or bytearray(b"\0")
        content = bytes(mutated)
    if rng.random() < 0.1:
        suffixes = ("csv", "tsv", "txt", "json", "jsonl", "manifest", "parquet", "x")
        name = f"{Path(name).stem}.{rng.choice(suffixes)}"
    return name, content


def _changed(text: str, rng: random.Random) -> bytes:
    """Change values, keys and rows of a text in JSON, of JSON lines, or of a table."""
    try:
        documents, are_lines = [json.loads(text)], False
    except ValueError:
        documents, are_lines = [], True
    if are_lines and text.startswith("{"):
        documents = list(map(json.loads, text.splitlines()))
    if not documents:
        return _changed_table(text, rng)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        _change(documents if are_lines else documents[0], rng)
    how: dict[str, Any] = {"ensure_ascii": rng.random() < 0.8}
    written = "\n".join(json.dumps(one, **how) for one in documents)
    return _encoded(written, rng)


def _value(rng: random.Random) -> Any:
    value = rng.choice(LIKELY if rng.random() < 0.4 else VALUES)
    return value if value is DEEP else copy.deepcopy(value)  # it may be changed, too


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or object in a tree with each of its keys."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list) and tree[key] is not DEEP:
            yield from _places(tree[key])


def _change(tree: Any, rng: random.Random) -> None:
    if not isinstance(tree, dict | list):
        return
    places = list(_places(tree))
    if not places:
        return
    (holder, key), (other, its) = rng.choice(places), rng.choice(places)
    kind = rng.choice(("value", "value", "value", "gone", "twice", "key", "swap"))
    if kind == "value":
        holder[key] = _value(rng)
    elif kind == "gone":
        del holder[key]
    elif kind == "twice" and isinstance(holder, list):
        holder.insert(key, json.loads(json.dumps(holder[key])))
    elif kind == "key" and isinstance(holder, dict):
        names = [*NAMES, *map(str, VALUES), *(str(k) for h, k in places if isinstance(h, dict))]
        holder[rng.choice(names)] = holder.pop(key)
    else:  # not the one in the other, which would be a ring
        one, two = (json.dumps(h[k]) for h, k in ((holder, key), (other, its)))
        holder[key], other[its] = json.loads(two), json.loads(one)


def _changed_table(text: str, rng: random.Random) -> bytes:
    separator = next((one for one in ",;\t|" if one in text), " ")
    rows = [line.split(separator) for line in text.splitlines()]
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        row = rng.choice(rows)
        kind = rng.choice(("cell", "cell", "cell", "cell", "name", "gone", "row", "twice", "swap"))
        if kind == "cell":
            row[rng.randrange(len(row))] = _cell(rng)
        elif kind == "name":
            rows[0][rng.randrange(len(rows[0]))] = rng.choice(NAMES)
        elif kind == "gone" and len(row) > 1:
            del row[rng.randrange(len(row))]
        elif kind == "row" and len(rows) > 1:
            rows.remove(row)
        elif kind == "twice":
            rows.insert(rng.randrange(len(rows)), [*row])
        else:
            other = rng.choice(rows)
            k, m = rng.randrange(len(row)), rng.randrange(len(other))
            row[k], other[m] = other[m], row[k]
    return _encoded(rng.choice(("\n", "\n", "\r\n")).join(map(separator.join, rows)), rng)


def _cell(rng: random.Random) -> str:
    text = str(_value(rng))
    return rng.choice((text, text, f'"{text}"', f'"{text}'))


def _encoded(text: str, rng: random.Random) -> bytes:
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    errors = "replace" if encoding == "latin-1" else "surrogatepass"
    return text.encode(encoding, errors)


def _outcome(work: Path, seed: int, only: str | None, number: str) -> str:
    """Tell how an import ends: "same" if it was taken, "named" if it was refused."""
    rng = random.Random(f"{seed} {number}")
    begun = rng.random() < 0.5
    folder = work / ("begun" if begun else "none")
    root = folder / "photos"
    if not (root / ".skal").is_dir() and begun:
        shutil.copytree(work / "kept", root / ".skal")
    name, content = _drawn(rng, only)
    file = folder / name
    file.write_bytes(content)
    beside = folder / "synsets.txt"
    beside.write_bytes(rng.choice((b"cat\ndog\n", b"cat\ndog\n", b"cat", b"\xff\n", b"")))
    if rng.random() < 0.3:
        beside.unlink()
    try:
        return _imported(root, file, rng)
    finally:
        file.unlink()


def _imported(root: Path, file: Path, rng: random.Random) -> str:
    options = {}
    if rng.random() < 0.1:
        options[rng.choice(OPTIONS)] = rng.choice((*NAMES, "1", "2", "-1", "choice", "pet", "x"))
    source = Source(file, **options)
    given: dict[str, Any] = {
        "classes": rng.choice(CLASSES) if rng.random() < 0.2 else ("cat", "dog"),
        "annotator": rng.choice(ANNOTATORS) if rng.random() < 0.1 else "me",
        "form": rng.choice(READERS.names()) if rng.random() < 0.05 else None,
        "pages": rng.choice(("first", "all")) if rng.random() < 0.1 else None,
    }
    was_there = (root / ".skal").is_dir()
    before = _state(root) if was_there else None
    take: Callable[[], Any] = partial(import_into, root, source, **given)
    try:
        take()
    except SkalError as error:
        return _told(error, file, root, before)
    except Exception as error:
        return f"raw: {error!r} {given} {options}"
    now = _state(root)
    again = import_into(root, Source(file, **options), **given)
    then = _state(root)
    shutil.rmtree(root / ".skal")
    if now != then or again.new or again.changed:
        return f"new again: {again} {now} {then}"
    return "same"


def _told(error: SkalError, file: Path, root: Path, before: Any) -> str:
    told = str(error)
    after = _state(root) if (root / ".skal").is_dir() else None
    if after != before:
        return f"half imported: {told} {before} {after}"
    if not told or told != shown(told):
        return f"not one line: {told!r}"
    if isinstance(error, DataError) and file.name not in told and "annotator" not in told:
        return f"without the file's name: {told}"
    return "named"


def _state(root: Path) -> Any:
    """Return all that a project says."""
    with closing(LabelProject.open(root, create=False, needs_classes=False)) as project:
        notes = {project.paths[n]: project.notes.of(n) for n in project.notes.by_image}
        return project.classes, export_csv(project), notes, project.config.as_dict()
