"""The command line: it parses, calls, and echoes."""

# each adds its commands to `main`
from . import compare, exchange, export_model, label, lists, predict, run, serve  # noqa: F401
from .app import main as main
