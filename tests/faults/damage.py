"""Damage at rest: files that were cut, flipped, emptied, removed, or replaced by a folder.

Whatever skal wrote and reads again must then be noticed, by a word that names the file, or made
again: never is another result given without a word, and never is there an error that is not skal's.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from made_up import bars
from PIL import Image

import skal
from skal.comparisons.results import read_results
from skal.core.errors import SkalError
from skal.label.exporting import export_csv
from skal.label.project import LabelProject

TINY: dict[str, Any] = {"model": "lenet", "steps": 2, "n_init": 6, "n_query": 4, "n_rounds": 2}
STEP = 64
"""Files are cut at every so many bytes."""


class Stop(Exception):
    """Ends a run in the middle."""


class StopAt(skal.Tracker):
    """Stops a run when it begins something."""

    def __init__(self, phase: str, number: int) -> None:
        self.where = (phase, number)

    def on_phase(self, round: int, phase: str) -> None:
        if (phase, round) == self.where:
            raise Stop


@dataclass(frozen=True)
class Scene:
    """Files, and what is made of them: `make` writes into a folder, `use` returns what it gives."""

    make: Callable[[Path], None]
    use: Callable[[Path], Any]
    passed_over: tuple[str, ...] = ()
    """Ends of names of files that people look at and skal does not read again."""


FOR_PEOPLE = ("log.txt", ".png", ".svg", ".html", ".lock", "lock", "CACHEDIR.TAG", ".tmp")


def figures(run: skal.Run) -> Any:
    """Return what must be equal of two runs."""
    rounds = [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in run.rounds]
    return (
        rounds,
        run.queries,
        {k: v for k, v in run.summary.items() if k != "seconds"},
        run.config.as_dict(),
        run.classifier.predict_proba(bars().X_test).tobytes(),
    )


def _stopped(**settings: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with contextlib.suppress(Stop):
            stop = StopAt("training", 2)
            skal.run(bars(), "margin", out=folder / "run", trackers=[stop], **TINY, **settings)

    return make


def _resume(folder: Path) -> Any:
    return figures(skal.resume(folder / "run", data=bars()))


def _finished(folder: Path) -> None:
    skal.run(bars(), "margin", out=folder / "run", **TINY)


def _report(folder: Path) -> Any:
    results = read_results([folder])
    return [(r.config.as_dict(), r.rounds, r.queries, r.summary, r.evaluation) for r in results]


def _compared(folder: Path) -> None:
    compare(folder)


def compare(folder: Path, repetitions: int = 2, **settings: Any) -> Any:
    """Compare two strategies, or continue that."""
    settings = {"threads": 1, **TINY, **settings, "out": folder / "c"}
    done = skal.compare(bars(), ["random", "margin"], repetitions, **settings)
    return [(r.config.as_dict(), _without_seconds(r.rounds), r.queries) for r in done.results]


def _without_seconds(rows: Any) -> Any:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def write_folder(folder: Path, n: int = 12) -> None:
    """Write a small folder of colour images, of two classes."""
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / label).mkdir(parents=True)
        for number in range(n):
            pixels = rng.integers(0, 90, (40, 40, 3)) + (150 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")


def _predicted(folder: Path) -> None:
    write_folder(folder / "images")
    data = skal.load_dataset(folder / "images", image_size=12, data_dir=folder / "data")
    skal.run(data, "random", out=folder / "run", **TINY)
    predict(folder)


def predict(folder: Path) -> Any:
    """Classify a folder, to a file and to parts, or continue that."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "out.csv").unlink()
    skal.predict(folder / "run", [folder / "images"], folder / "out.csv", threads=1)
    skal.predict(folder / "run", [folder / "images"], folder / "parts", shard_size=8, threads=1)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "parts")
    return (folder / "out.csv").read_text(), table.to_pylist()


def _cached(folder: Path) -> None:
    write_folder(folder / "images")
    cache(folder)


def cache(folder: Path, model: str = "efficientnet-lite0", pretrained: bool = True) -> Any:
    """Decode and embed a folder, or continue that."""
    data = skal.load_dataset(folder / "images", image_size=32, data_dir=folder / "data")
    classifier = skal.ImageClassifier(
        model, pretrained=pretrained, freeze=True, classes=[0, 1], random_state=0
    )
    features = skal.embed(classifier, data.X, folder / "data/cache")
    return data.X.tobytes(), data.y.tobytes(), tuple(data.paths), np.asarray(features).tobytes()


def label(folder: Path) -> None:
    """Begin a labelling project of a small folder, in which most labels are imported."""
    from skal.label.importing import import_into

    write_folder(folder / "images")
    rows = [f"{label}/{n}.png,{label}" for label in ("dark", "light") for n in range(8)]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    (folder / "images").rename(folder / "all")
    (folder / "images").mkdir()
    (folder / "all").rename(folder / "images/unlabeled")
    import_into(folder / "images", folder / "labels.csv", ["dark", "light"])
    with contextlib.suppress(FileNotFoundError):
        (folder / "labels.csv").unlink()


def _export(folder: Path) -> Any:
    project = LabelProject.open(folder / "images")
    try:
        return export_csv(project)
    finally:
        project.close()


SCENES = {
    "resume": Scene(_stopped(), _resume),
    "resume, further trained": Scene(_stopped(warm_start="on"), _resume),
    "finished": Scene(_finished, _resume),
    "report": Scene(_finished, _report, ("model.json", ".safetensors", "config.toml")),
    "compare": Scene(_compared, compare, ("results.csv", "comparison.json")),
    "predict": Scene(
        _predicted, predict, ("out.csv", "queries.csv", "rounds.csv", "summary.json", ".jsonl")
    ),
    "caches": Scene(_cached, cache),
    "labels": Scene(label, _export),
}


@dataclass
class Outcomes:
    """How damages ended: "same" result, or "named"; `bad` tells of those that ended badly."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def take(self, scene: str, what: str, outcome: str, told: str = "") -> None:
        self.counts[outcome] += 1
        if outcome not in ("same", "named"):
            self.bad.append(f"{scene}: {what}: {outcome} {told}")


def run(n: int, seed: int = 0, only: str | None = None, place: Path | None = None) -> Outcomes:
    """Damage `n` files, one at a time, in each scene as often; return how it ended."""
    import tempfile

    rng, outcomes = np.random.default_rng(seed), Outcomes()
    scenes = {name: scene for name, scene in SCENES.items() if only in (None, name)}
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        for name, scene in scenes.items():
            whole = Path(scratch) / "whole"
            work = Path(scratch) / "work"
            whole.mkdir()
            # where it will be used: some files hold their own place
            whole.rename(work)
            with quiet():
                scene.make(work)
            work.rename(whole)
            copy_anew(whole, work)
            with quiet():
                expected = scene.use(work)
            for _ in range(-(-n // len(scenes))):
                copy_anew(whole, work)
                path, damage = _damage(work, scene, rng)
                outcomes.take(name, damage, *_outcome(scene, work, path, expected))
            shutil.rmtree(whole)
            shutil.rmtree(work)
    return outcomes


def copy_anew(whole: Path, work: Path) -> None:
    """Let `work` be what `whole` is."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(whole, work)


def _files(work: Path, scene: Scene) -> list[Path]:
    """Return the files that skal wrote and may read again."""
    return sorted(
        path
        for path in work.rglob("*")
        if path.is_file()
        and not path.name.endswith((*FOR_PEOPLE, *scene.passed_over))
        and not {"dark", "light"} & set(path.relative_to(work).parts)
        and path.stat().st_size
    )


def _damage(work: Path, scene: Scene, rng: np.random.Generator) -> tuple[Path, str]:
    files = _files(work, scene)
    path = files[rng.integers(len(files))]
    content = path.read_bytes()
    kind = ("cut", "flip", "flip", "flip", "empty", "gone", "folder")[rng.integers(7)]
    told = f"{path.relative_to(work)} {kind}"
    if kind == "cut":
        at = int(rng.integers(-(-len(content) // STEP))) * STEP
        path.write_bytes(content[:at])
        told += f" at {at} of {len(content)}"
    elif kind == "flip":
        at, bit = int(rng.integers(len(content))), int(rng.integers(8))
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        path.write_bytes(flipped)
        told += f" bit {bit} of byte {at} of {len(content)}"
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
    return path, told


def _outcome(scene: Scene, work: Path, path: Path, expected: Any) -> tuple[str, str]:
    with quiet() as told:
        try:
            found = scene.use(work)
        except SkalError as error:
            names = (path.name, path.name.strip(".").removesuffix(".seal"))
            is_named = any(name in f"{error} {told.getvalue()}" for name in names)
            return ("named" if is_named else "without the file's name", str(error))
        except OSError as error:
            is_named = path.name in str(error)
            return ("named" if is_named else "raw", repr(error))
        except Exception as error:
            return "raw", repr(error)
    if found == expected:
        return "same", ""
    if path.name in told.getvalue():
        return "named", ""
    return "silent", told.getvalue()


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what skal logs, instead of showing it."""
    log, text = logging.getLogger("skal"), io.StringIO()
    handler = logging.StreamHandler(text)
    level, handlers, propagate = log.level, log.handlers[:], log.propagate
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stderr(text):
            yield text
    finally:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
