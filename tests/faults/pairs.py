"""Two processes that do the same in one folder: both right, or one is told.

The second begins after a random part of the time that the first takes. Afterwards the same command
gives what an undisturbed one gives.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

import damage
import disk
import kills
from children import begin, end, undisturbed
from damage import Outcomes

SCENES = kills.SCENES | disk.SCENES


def run(n: int, seed: int = 0, only: str | None = None, place: Path | None = None) -> Outcomes:
    """Try `n` pairs, as many in each scene; return how they ended."""
    rng, outcomes = random.Random(seed), Outcomes()
    scenes = {name: scene for name, scene in SCENES.items() if only in (None, name)}
    with tempfile.TemporaryDirectory(dir=place) as scratch, damage.quiet():
        before, work = Path(scratch) / "before", Path(scratch) / "work"
        answers = [Path(scratch) / name for name in ("one", "other")]
        for name, scene in scenes.items():
            work.mkdir()
            undisturbed(end(begin(scene.there, work, answers[0]), answers[0]))
            shutil.copytree(work, before)
            start = time.perf_counter()
            expected, _ = undisturbed(end(begin(scene.do, work, answers[0]), answers[0]))
            took = time.perf_counter() - start
            for _ in range(-(-n // len(scenes))):
                damage.copy_anew(before, work)
                after = rng.uniform(0, took)
                one = begin(scene.do, work, answers[0])
                time.sleep(after)
                pair = [one, begin(scene.do, work, answers[1])]
                ended = [end(*both)[:2] for both in zip(pair, answers, strict=True)]
                again, found, _ = end(begin(scene.do, work, answers[0]), answers[0])
                what = f"the second after {after:.2f} of {took:.2f} s"
                wrong = kills.found_again(work, again, found, expected)
                outcome = wrong or _judged(ended, expected)
                outcomes.take(name, what, *outcome)
            shutil.rmtree(work)
            shutil.rmtree(before)
    return outcomes


def _judged(ended: list[tuple[str, object]], expected: object) -> tuple[str, str]:
    """Tell how a pair ended: "same" if both found what was expected, "named" if one was told."""
    right = [found == expected for status, found in ended if status == "done"]
    told = [str(found) for status, found in ended if status == "named"]
    if len(right) + len(told) < 2 or not all(right) or any("\n" in line for line in told):
        return "other", "; ".join(f"{status} {str(found)[:300]}" for status, found in ended)
    return ("named" if told else "same"), "; ".join(told)
