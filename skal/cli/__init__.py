"""The command line: it parses, calls, and echoes."""

from . import lists, run
from .app import main

__all__ = ["lists", "main", "run"]
