"""kill -9 at random times, then the same command again: as if nothing had happened.

A child process is forked for each trial, does the work of a scene, and is killed after a random
part of the time that the work takes; what a scene makes then is compared with the undisturbed.
Where it has started processes, either it alone is killed, or one of them, or all; none may be left.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import damage
import numpy as np
import psutil
from children import begin, end, undisturbed
from damage import Outcomes
from made_up import bars

import skal
from skal.label.final import train
from skal.label.learning import Learner
from skal.label.project import LabelProject
from skal.label.service import LabelService

LABELS: dict[str, Any] = {"model": "lenet", "steps": 2, "image_size": 12, "n_query": 4, "n_init": 4}
RUN: dict[str, Any] = {"model": "lenet", "steps": 20, "n_init": 6, "n_query": 4, "n_rounds": 4}


@dataclass(frozen=True)
class Scene:
    """What is `there` before, what is done and may be killed, and the same again, which returns
    what came out.
    """

    there: Callable[[Path], None]
    do: Callable[[Path], Any]
    has_processes: bool = False


def nothing(folder: Path) -> None:
    """Need nothing."""


def run_of(**settings: Any) -> Callable[[Path], Any]:
    def do(folder: Path) -> Any:
        if (folder / "run/journal.jsonl").is_file():
            try:
                return damage.figures(skal.resume(folder / "run", data=bars()))
            except skal.SkalError as error:
                if not re.search("damaged; start a new run|is not a run folder", str(error)):
                    raise
        shutil.rmtree(folder / "run", ignore_errors=True)
        wanted = {**RUN, **settings, "out": folder / "run"}
        return damage.figures(skal.run(bars(), "margin", **wanted))

    return do


def _images(folder: Path) -> None:
    damage.write_folder(folder / "images")


def _trained(folder: Path) -> None:
    _images(folder)
    data = skal.load_dataset(folder / "images", image_size=12, data_dir=folder / "data")
    skal.run(data, "random", out=folder / "run", **{**RUN, "n_rounds": 0})


def pretrain(folder: Path, steps: int = 20) -> Any:
    """Run with weights that are trained without labels before."""
    settings = {"pretrain": "simclr", "pretrain_steps": steps, "data_dir": folder / "data"}
    return run_of(**settings, steps=steps, n_rounds=1)(folder)


def _compare_in_two(folder: Path) -> Any:
    return damage.compare(folder, jobs=2)


def _train(folder: Path) -> Any:
    out = folder / "model"
    if not out.exists():
        project = LabelProject.open(folder / "images", settings=LABELS | {"data_dir": folder / "d"})
        try:
            train(project, out)
        finally:
            project.close()
    model = skal.load_classifier(out)
    X = np.random.default_rng(0).integers(0, 256, (9, *model.image_shape_), np.uint8)
    return model.predict_proba(X).tobytes(), (out / "summary.json").read_text()


def _to_label(folder: Path) -> None:
    damage.write_folder(folder / "classes", 8)
    (folder / "images").mkdir()
    for path in sorted((folder / "classes").rglob("*.png")):
        path.rename(folder / "images" / f"{path.parent.name}-{path.name}")


def _label(folder: Path) -> Any:
    """Label all, waiting for each batch of the network; what was taken is written down."""
    told = folder / "told.txt"
    before = set(told.read_text().split()) if told.exists() else set()
    settings = LABELS | {"data_dir": folder / "data"}
    project = LabelProject.open(folder / "images", ["dark", "light"], settings)
    service = LabelService(project)
    learner = Learner(project.learner_setup())
    try:
        labelled = {project.paths[image] for image in project.labels}
        if not before <= labelled:
            raise AssertionError("a label that was taken is gone")
        service.start(learner.ask)
        while images := service.next("me", 1):
            while service.learner_state == "training":
                time.sleep(0.01)
            path = project.paths[images[0]]
            label = project.classes.index(path.partition("-")[0])
            service.act("me", [{"action": "label", "image": images[0], "label": label}])
            with told.open("a") as file:
                file.write(f"{path}\n")
        return sorted((project.paths[n], project.classes[y]) for n, y in project.labels.items())
    finally:
        learner.stop()
        service.previews.close()
        project.close()


SCENES = {
    "run": Scene(nothing, run_of()),
    "run, further trained": Scene(nothing, run_of(warm_start="on")),
    "compare": Scene(nothing, damage.compare),
    "predict": Scene(_trained, damage.predict),
    "decode and embed": Scene(_images, damage.cache),
    "pretrain": Scene(nothing, pretrain),
    "train on labels": Scene(damage.label, _train),
    "compare in two processes": Scene(nothing, _compare_in_two, has_processes=True),
    "label beside a network": Scene(_to_label, _label, has_processes=True),
}
WHO = ("it", "one of its processes", "all")
SECONDS = 60
"""For which processes may go on after the one that started them."""
STRAY = (".tmp", ".partial")


def run(n: int, seed: int = 0, only: str | None = None, place: Path | None = None) -> Outcomes:
    """Kill `n` processes, as many in each scene; return how it ended."""
    draw = random.Random(seed)
    outcomes = Outcomes()
    scenes = {name: scene for name, scene in SCENES.items() if only in (None, name)}
    with tempfile.TemporaryDirectory(dir=place) as scratch, damage.quiet():
        work, before = Path(scratch) / "work", Path(scratch) / "before"
        for name, scene in scenes.items():
            shutil.rmtree(before, ignore_errors=True)
            work.mkdir()
            scene.there(work)
            shutil.copytree(work, before)
            do = _in_child if scene.has_processes else _here
            if not scene.has_processes:
                do(scene, work)  # so that nothing is imported for the first time
                damage.copy_anew(before, work)
            start = time.perf_counter()
            expected = do(scene, work)
            took = time.perf_counter() - start
            for _ in range(-(-n // len(scenes))):
                damage.copy_anew(before, work)
                after = draw.uniform(0, took)
                what, wrong = _killed(scene, work, after, draw, expected)
                outcome = wrong or _again(scene, do, work, expected)
                outcomes.take(name, f"{what} after {after:.3f} of {took:.3f} s", *outcome)
            shutil.rmtree(work)
    return outcomes


def _here(scene: Scene, work: Path) -> Any:
    return scene.do(work)


def _in_child(scene: Scene, work: Path) -> Any:
    answer = work.with_name("answer")
    return undisturbed(end(begin(scene.do, work, answer), answer))[0]


def _killed(
    scene: Scene, work: Path, after: float, draw: random.Random, expected: Any
) -> tuple[str, tuple[str, str] | None]:
    """Let a child do it, and kill it, one of its processes, or all; return which, and what was
    wrong then.
    """
    answer = work.with_name("answer")
    child = begin(scene.do, work, answer, os.setsid)
    time.sleep(after)
    who = draw.choice(WHO) if scene.has_processes else WHO[0]
    others = psutil.Process(child).children(recursive=True)
    try:
        if who == WHO[2]:
            os.killpg(child, signal.SIGKILL)
        else:
            chosen = draw.choice(others).pid if others and who == WHO[1] else child
            os.kill(chosen, signal.SIGKILL)
    except ProcessLookupError:  # it has ended meanwhile, or is not in a group of its own yet
        os.kill(child, signal.SIGKILL)
    status, found, _ = end(child, answer)
    wrong = None
    if status not in ("killed", "named", "done"):
        wrong = status, str(found)
    elif status == "done" and found != expected:
        wrong = "other", str(found)[:300]
    return who, wrong or _orphans(child)


def _orphans(session: int) -> tuple[str, str] | None:
    """Return what is left of the processes of a session, if they do not end soon."""
    left = [process for process in psutil.process_iter() if _session_of(process) == session]
    _, left = psutil.wait_procs(left, timeout=SECONDS)
    left = [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    return ("orphans", "; ".join(map(str, left))) if left else None


def _session_of(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return -1


def _again(
    scene: Scene, do: Callable[[Scene, Path], Any], work: Path, expected: Any
) -> tuple[str, str]:
    an_hour_passes(work)
    try:
        found = do(scene, work)
    except Exception as error:
        return "raw", repr(error)
    return found_again(work, "done", found, expected) or ("same", "")


def an_hour_passes(work: Path) -> None:
    """Let what is temporary look as if nobody had written to it for an hour."""
    for path in work.rglob("*"):
        if any(part[0] == "." and ".tmp" in part for part in path.relative_to(work).parts):
            os.utime(path, (time.time() - 4000,) * 2)


def found_again(work: Path, status: str, found: Any, expected: Any) -> tuple[str, str] | None:
    """Return what is wrong after the same command again, None if nothing is."""
    if (status, found) != ("done", expected):
        return "then other", f"{status} {str(found)[:300]}"
    stray = [path.name for path in work.rglob("*") if path.name.endswith(STRAY)]
    return ("stray files", ", ".join(stray)) if stray else None
