"""Prints a benchmark's table with the command and versions, and keeps it in RESULTS.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("skal", "torch", "scikit-activeml", "skorch", "numpy")


def report(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    note: str,
    keep: bool = True,
) -> None:
    """Print a section of Markdown and put it into RESULTS.md in place of the one of that title.

    Parameters
    ----------
    title : str
        Heading of the section.
    columns : sequence of str
        Heads of the table.
    rows : sequence of sequences
        Its cells.
    note : str
        What is to be known to read it.
    keep : bool, default=True
        Whether to put it into RESULTS.md, or print it only.
    """
    arguments = shlex.join(_without_places(sys.argv[1:]))
    command = f"python benchmarks/{Path(sys.argv[0]).name} {arguments}".strip()
    threads = f"{os.cpu_count()} processors, {torch.get_num_threads()} threads"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        f"## {title}",
        "",
        f"`{command}`, {datetime.date.today()}  ",
        f"{versions}; Python {platform.python_version()}, {threads}",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
        note,
        "",
    ]
    section = "\n".join(lines)
    print(section)
    if not keep:
        return
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = pattern.search(old)
    before, after = (old[: found.start()], old[found.end() :]) if found else (old, "")
    parts = [part.strip("\n") for part in (before, section, after)]
    RESULTS.write_text("\n\n".join(part for part in parts if part) + "\n")


def _without_places(arguments: Sequence[str]) -> list[str]:
    """Leave out where data lie on this machine, which is nobody else's concern."""
    kept = list(arguments)
    for place in {"--before", "--data-dir", "--folder", "--images", "--other"} & set(kept):
        start = kept.index(place)
        del kept[start : start + 2]
    return kept
