"""An append-only journal, of which a crash can damage only the last line."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.durable import append
from ..core.errors import RunFolderError

_log = logging.getLogger("skal")


@dataclass
class Journal:
    """An append-only file of JSON lines, each preceded by its CRC-32. `size` is the size in bytes
    when this object last read or wrote it; None skips the check for other writers.
    """

    path: Path
    size: int | None = None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append an entry and wait until it is on disk. Raise a `RunFolderError`, and write
        nothing, if another process has written to the file since.
        """
        text = json.dumps(entry, allow_nan=True)
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        if self.size is not None and self.size != self.path.stat().st_size:
            raise RunFolderError(
                f"another process has written to {str(self.path.parent)!r} since it was opened; "
                "open it again"
            )
        self.size = append(self.path, line)

    def last(self, most: int) -> dict[str, Any] | None:
        """Return the last entry; None if it is incomplete or longer than `most` bytes."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - most, 0))
                lines = file.read().split(b"\n")
        except OSError:
            return None
        return _parse_line(lines[-2]) if len(lines) > 1 and not lines[-1] else None

    def read(self, cut: bool = True) -> list[dict[str, Any]]:
        """Return all complete entries. A torn last line, left by a crash, is skipped, and with
        `cut` removed from the file. Raise a `RunFolderError` if the file is missing, or another
        line does not match its checksum.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError as error:
            raise RunFolderError(f"the run's journal {str(self.path)!r} is missing") from error
        rest = lines.pop()  # empty, or an incomplete line
        entries: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            entry = _parse_line(line)
            if entry is None:
                if rest or number + 1 < len(lines):
                    raise RunFolderError(f"{self.path}, line {number + 1}: damaged")
                rest = line
                break
            entries.append(entry)
        if rest:
            _log.warning("%s: skipped the incomplete last line", self.path)
        self.size = sum(len(line) + 1 for line in lines[: len(entries)])
        if rest and cut:
            os.truncate(self.path, self.size)
        return entries


def _parse_line(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    return dict(json.loads(text))
