"""A disk that is full or fails, and a kill, at each file operation of what skal does, one by one.

The operations below a folder are counted by a small library that is loaded before all others
(`disk.c`, made by the system's compiler); it lets the one of a number fail, or kills the process
there. Each trial is a forked child; after it the same command must give what an undisturbed one
gives, and what failed must have said so in one line of skal's own that names a file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import damage  # noqa: E402
import kills  # noqa: E402
import preloaded  # noqa: E402
from children import begin, end, is_one_line, undisturbed  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from preloaded import Points, Trial  # noqa: E402

FAULTS = {
    "kill": -1,
    "short write": -2,
    **{name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EDQUOT")},
}


def _import(folder: Path) -> Any:
    from skal.label.importing import import_into
    from skal.label.project import LabelProject

    root = folder / "images"
    import_into(root, folder / "labels.csv", ["dark", "light"])
    project = LabelProject.open(root)
    try:
        return sorted((project.paths[n], project.classes[y]) for n, y in project.labels.items())
    finally:
        project.close()


def _to_import(folder: Path) -> None:
    damage.write_folder(folder / "classes", 4)
    (folder / "images").mkdir()
    rows = []
    for path in sorted((folder / "classes").rglob("*.png")):
        name = f"{path.parent.name}-{path.name}"
        path.rename(folder / "images" / name)
        rows.append(f"{name},{path.parent.name}\n")
    (folder / "labels.csv").write_text("path,label\n" + "".join(rows))


def _compare(folder: Path) -> Any:
    return damage.compare(folder, 1, n_rounds=0)


def _cache(folder: Path) -> Any:
    return damage.cache(folder, "lenet", False)


SCENES = {
    **{name: scene for name, scene in kills.SCENES.items() if not scene.has_processes},
    "run": kills.Scene(kills.nothing, kills.run_of(n_rounds=1)),
    # steps of training write nothing
    "run, further trained": kills.Scene(kills.nothing, kills.run_of(warm_start="on", steps=2)),
    "pretrain": kills.Scene(kills.nothing, partial(kills.pretrain, steps=2)),
    # further runs do what the first do, rounds what they do in "run", and networks nothing here
    "compare": kills.Scene(kills.nothing, _compare),
    "decode and embed": kills.Scene(kills.SCENES["decode and embed"].there, _cache),
    "import labels": kills.Scene(_to_import, _import),
}


def _blank(figure: Figure, file: BinaryIO, **how: object) -> None:
    """Do not draw: that is most of the time, and what is written is one file all the same."""
    file.write(b"drawn")


run = partial(preloaded.run, "disk")
"""Try each fault at `n` operations of each scene; see `preloaded.run`."""


def _tried(points_of: Points, place: Path, only: str | None) -> Iterator[Trial]:
    Figure.savefig = _blank  # type: ignore[method-assign,assignment]
    before, work = place / "before", place / "work"
    for name, scene in SCENES.items():
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(dir=place) as warm_up:
            scene.there(Path(warm_up))
            scene.do(Path(warm_up))  # here, so that nothing is imported for the first time
        work.mkdir()
        undisturbed(_in_child(scene.there, work, place))
        work.rename(before)
        shutil.copytree(before, work)
        expected, n_seen = undisturbed(_in_child(scene.do, work, place))
        for fault, number in FAULTS.items():
            for point in points_of(n_seen):
                damage.copy_anew(before, work)
                status, found, where = _in_child(scene.do, work, place, point, number)
                outcome, told = _judged(status, found, expected, work)
                if outcome in ("same", "named"):
                    kills.an_hour_passes(work)
                    again, found, _ = _in_child(scene.do, work, place)
                    wrong = kills.found_again(work, again, found, expected)
                    outcome, told = wrong or (outcome, told)
                yield name, f"{fault} at {point} of {n_seen} ({where})", outcome, told
        shutil.rmtree(work)
        shutil.rmtree(before)


def _judged(status: str, found: Any, expected: Any, work: Path) -> tuple[str, str]:
    if status == "killed":
        return "same", ""
    if status == "done":
        return ("same", "") if found == expected else ("other", "")
    if status == "named":
        return ("named" if is_one_line(found, work) else "without a file's name"), found
    return status, str(found)


def _in_child(
    do: Callable[[Path], Any], work: Path, place: Path, point: int = -1, fault: int = 0
) -> tuple[str, Any, Any]:
    """Let a child do it; return how it ended, what it found or said, and where the fault was or, if
    none, how many operations there were.
    """
    disk = ctypes.CDLL(None)
    disk.disk_last.restype = ctypes.c_char_p

    def where() -> Any:
        return disk.disk_last().decode().replace(f"{work}/", "") if point > 0 else disk.disk_seen()

    def arm() -> None:
        disk.disk_arm(os.fsencode(work), point, fault)

    answer = place / "answer"
    return end(begin(do, work, answer, arm, where), answer)


if __name__ == "__main__":
    preloaded.main(_tried)
