"""The command line: it parses, calls, and echoes."""

from . import compare, label, lists, run, score
from .app import main

__all__ = ["compare", "label", "lists", "main", "run", "score"]
