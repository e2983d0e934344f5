"""The command line: it parses, calls, and echoes."""

from . import compare, exchange, export_model, label, lists, predict, run, serve
from .app import main

__all__ = [
    "compare",
    "exchange",
    "export_model",
    "label",
    "lists",
    "main",
    "predict",
    "run",
    "serve",
]
