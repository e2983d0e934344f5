"""``python -m skal``."""

from .cli import main

main(prog_name="skal")
