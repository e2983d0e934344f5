"""The command line: it parses, calls, and echoes."""

from . import compare, label, lists, predict, run
from .app import main

__all__ = ["compare", "label", "lists", "main", "predict", "run"]
