"""kill -9 at random times, then the same command again: as if nothing had happened.

A child process is forked for each trial, does the work of a scene, and is killed after a random
part of the time that the work takes; what a scene makes then is compared with the undisturbed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import damage
from children import begin, end
from damage import Outcomes
from made_up import bars

import skal

RUN: dict[str, Any] = {"model": "lenet", "steps": 20, "n_init": 6, "n_query": 4, "n_rounds": 4}


@dataclass(frozen=True)
class Scene:
    """What is `there` before, what is done and may be killed, and the same again, which returns
    what came out.
    """

    there: Callable[[Path], None]
    do: Callable[[Path], Any]


def nothing(folder: Path) -> None:
    """Need nothing."""


def run_of(**settings: Any) -> Callable[[Path], Any]:
    def do(folder: Path) -> Any:
        if (folder / "run/journal.jsonl").is_file():
            try:
                return damage.figures(skal.resume(folder / "run", data=bars()))
            except skal.SkalError as error:
                if "begin the run anew" not in str(error) and "is not a run folder" not in str(
                    error
                ):
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


SCENES = {
    "run": Scene(nothing, run_of()),
    "run, further trained": Scene(nothing, run_of(warm_start="on")),
    "compare": Scene(nothing, damage.compare),
    "predict": Scene(_trained, damage.predict),
    "decode and embed": Scene(_images, damage.cache),
}
STRAY = (".tmp", ".partial")


def run(n: int, seed: int = 0, only: str | None = None, place: Path | None = None) -> Outcomes:
    """Kill `n` processes, as many in each scene; return how it ended."""
    random.seed(seed)
    outcomes = Outcomes()
    scenes = {name: scene for name, scene in SCENES.items() if only in (None, name)}
    with tempfile.TemporaryDirectory(dir=place) as scratch, damage.quiet():
        work, before = Path(scratch) / "work", Path(scratch) / "before"
        for name, scene in scenes.items():
            shutil.rmtree(before, ignore_errors=True)
            work.mkdir()
            scene.there(work)
            shutil.copytree(work, before)
            scene.do(work)  # so that nothing is done for the first time
            damage.copy_anew(before, work)
            start = time.perf_counter()
            expected = scene.do(work)
            took = time.perf_counter() - start
            for _ in range(-(-n // len(scenes))):
                damage.copy_anew(before, work)
                after = random.uniform(0, took)
                _killed(scene.do, work, after)
                outcomes.take(
                    name, f"after {after:.3f} of {took:.3f} s", *_again(scene, work, expected)
                )
            shutil.rmtree(work)
    return outcomes


def _killed(do: Callable[[Path], Any], work: Path, after: float) -> None:
    """Let a child do it, and kill it."""
    answer = work.with_name("answer")
    child = begin(do, work, answer)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    end(child, answer)


def _again(scene: Scene, work: Path, expected: Any) -> tuple[str, str]:
    try:
        found = scene.do(work)
    except Exception as error:
        return "raw", repr(error)
    return found_again(work, "done", found, expected) or ("same", "")


def an_hour_passes(work: Path) -> None:
    """Let temporary files look as if nobody had written to them for an hour."""
    for path in work.rglob(".*"):
        if ".tmp" in path.name and path.is_file():
            os.utime(path, (time.time() - 4000,) * 2)


def found_again(work: Path, status: str, found: Any, expected: Any) -> tuple[str, str] | None:
    """Return what is wrong after the same command again, None if nothing is."""
    if (status, found) != ("done", expected):
        return "then other", f"{status} {str(found)[:300]}"
    stray = [path.name for path in work.rglob("*") if path.name.endswith(STRAY)]
    return ("stray files", ", ".join(stray)) if stray else None
