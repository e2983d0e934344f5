"""The command line, which only parses arguments, calls the library and prints results."""

# importing a module adds its commands to `main`
from . import compare, exchange, export_model, label, lists, predict, run, serve  # noqa: F401
from .app import main as main
