"""Labelling in a terminal, without a browser."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ..core.errors import UsageError, one_line
from ..core.text import shown
from ..datasets.decoding import reading
from ..datasets.deep import Ranges
from .classes import are_many
from .learning import Learner
from .sample import ENOUGH
from .service import LabelService, NothingToUndoError

COMMANDS = {"u": "unsure", "x": "bad image", "g": "prediction", "q": "quit"}
"""Commands by letter; a letter that is a class's key needs Shift."""
MOST_COLUMNS, MOST_ROWS = 64, 24
MOST_GUESSES = 4
"""Classes whose probabilities are shown."""
UNDO = ("\x7f", "\b")
END = ("q", "Q", "\x04", "")


@dataclass
class TerminalSession:
    """Shows one image after another and reads a key for each, until `q` or the last image.

    With `suggest`, `g` shows the network's prediction. `colour` is "256", "full", or empty to show
    no images. `read_key` and `prompt` wait for a key and for a line.
    """

    service: LabelService
    annotator: str
    suggest: bool = False
    colour: str = ""
    clock: Callable[[], float] = time.monotonic
    read_key: Callable[[], str] = click.getchar
    prompt: Callable[..., str] = click.prompt

    def run(self) -> None:
        click.echo(self._help())
        is_over = False
        while not is_over:
            queue = self.service.next(self.annotator)
            if queue:
                is_over = not self._label(queue[0])
            else:
                click.echo("no images left to label; Backspace undoes the last answer")
                is_over = self._key() not in UNDO or not self._undo()

    @property
    def _classes(self) -> list[str]:
        return self.service.project.classes

    def _label(self, image: int) -> bool:
        """Show an image and read keys until one answers or undoes; return False to quit."""
        click.echo(self._shown(image))
        started, guess = self.clock(), None
        while (key := self._key()) not in END or self._class_of(key) is not None:
            if answer := self._answer(key):
                self._act(image, *answer, started, guess)
                return True
            if key == "?":
                click.echo(self._help())
            elif key in ("g", "G") and self.suggest:
                guess = self._tell_guess(image)
            elif key in UNDO:
                self._undo()
                return True
            elif not self._begins_name(key):
                click.echo("  unknown key; press ? for help")
        return False

    def _act(
        self, image: int, action: str, label: int | None, started: float, guess: int | None
    ) -> None:
        number = self.service.project.class_list.number_of
        answer = {"action": action, "image": image, "label": number(label), "guess": number(guess)}
        seconds = round(self.clock() - started, 3)
        self.service.act(self.annotator, [{**answer, "seconds": seconds}])
        click.echo(f"  {action if label is None else self._classes[label]}: saved")

    def _key(self) -> str:
        """Wait for a key; return "" at the end of the input."""
        try:
            return self.read_key()
        except EOFError:
            return ""
        except OSError as error:  # there is no /dev/tty
            raise UsageError("--terminal needs a terminal to read keys from") from error

    def _class_of(self, key: str) -> int | None:
        """Return the id of the class with this key, if any."""
        keys = self.service.project.class_list.keys
        return keys.index(key) if key and key in keys else None

    def _begins_name(self, key: str) -> bool:
        """Return whether a key begins to type a name: "/", or a digit that begins one."""
        is_first = any(len(name) > 1 and name.startswith(key) for name in self._classes)
        return key == "/" or (key.isdecimal() and are_many(self._classes) and is_first)

    def _answer(self, key: str) -> tuple[str, int | None] | None:
        """Return the answer of a key: an action, and a class id if it is a label."""
        if (label := self._class_of(key)) is not None:
            return "label", label
        actions = {" ": "skip", "u": "unsure", "x": "bad"}
        if key.lower() in actions:
            return actions[key.lower()], None
        if self._begins_name(key):
            begun = key.strip("/")
            rest = self.prompt(f"class: {begun}", default="", show_default=False, prompt_suffix="")
            label = self._named(f"{begun}{rest}".strip().casefold())
        return None if label is None else ("label", label)

    def _named(self, text: str) -> int | None:
        """Return the class with this name, or the only one that contains it; else list matches."""
        names = [name.casefold() for name in self._classes]
        near = [n for n, name in enumerate(names) if text and text in name]
        found = [n for n in near if names[n] == text] or near
        if len(found) == 1:
            return found[0]
        known = ", ".join(self._classes[n] for n in near) or "none"
        click.echo(f"  classes that contain {text!r}: {known}")
        return None

    def _undo(self) -> bool:
        try:
            undone = self.service.undo(self.annotator)
        except NothingToUndoError as error:
            click.echo(f"  {error}")
            return False
        paths = self.service.project.paths
        names = ", ".join(shown(paths.get(action.image, "an image")) for action in undone)
        click.echo(f"  undone: {names}")
        return True

    def _tell_guess(self, image: int) -> int | None:
        proba = self.service.guess(image)
        if proba is None:
            click.echo("  no prediction yet: the model needs more labels")
            return None
        label = int(proba.argmax())
        by_probability = sorted(zip(proba.tolist(), self._classes, strict=True), reverse=True)
        others = ", ".join(f"{name} {share:.0%}" for share, name in by_probability[1:MOST_GUESSES])
        click.echo(f"  prediction: {self._classes[label]} ({proba[label]:.0%}); {others}")
        click.echo(f"  {self.service.why(image, named=True)}".rstrip())
        return label

    def _help(self) -> str:
        keys = self.service.project.class_list.keys
        classes = (f"{key or '/'} {name}" for key, name in zip(keys, self._classes, strict=True))
        letters = {
            letter: f"{letter.upper() if letter in keys else letter} {what}"
            for letter, what in COMMANDS.items()
            if letter != "g" or self.suggest
        }
        end = letters.pop("q")
        others = "   ".join(["Space skip", *letters.values(), "Backspace undo", "? help", end])
        return f"{'   '.join(classes)}\n/ type a class   {others}"

    def _shown(self, image: int) -> str:
        state = self.service.state(self.annotator)
        accuracy, known = state["accuracy"], ""
        if accuracy is not None and accuracy["n"] >= ENOUGH:
            interval = f"{accuracy['low']:.2f} to {accuracy['high']:.2f}"
            known = f", accuracy {interval} on {accuracy['n']}"
        where = f"round {state['round']}" if state["round"] else "starting round"
        return (
            f"{self._picture(image)}{shown(self.service.project.paths[image])}  "
            f"({state['done_in_round'] + 1} of {state['round_size']}, "
            f"{where}; {state['n_labeled']} labelled{known})\n"
            f"  {self.service.why(image)}"
        ).rstrip()

    def _picture(self, image: int) -> str:
        size = shutil.get_terminal_size()
        columns, lines = min(size.columns, MOST_COLUMNS), min(size.lines - 6, MOST_ROWS)
        if not self.colour or lines < 2:
            return ""
        path = self.service.project.root / self.service.project.paths[image]
        try:
            project = self.service.project
            drawn = half_blocks(
                path, (columns, lines), self.colour, lambda: project.ranges, project.config.pages
            )
            return drawn + "\n"
        except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
            return f"cannot draw the image: {shown(one_line(error))}\n"


def run_in_terminal(service: LabelService, annotator: str, *, suggest: bool = False) -> None:
    """Label in this terminal while a network trains, until the last image, `q` or Ctrl-C."""
    learner = Learner(service.project.learner_setup())
    service.start(learner.ask)
    try:
        colour = colours_of(sys.stdout, os.environ)
        TerminalSession(service, annotator, suggest, colour).run()
    except (KeyboardInterrupt, click.Abort):  # the latter while a class is typed
        click.echo("")
        raise KeyboardInterrupt from None
    finally:
        learner.stop()
        service.previews.close()


def half_blocks(
    path: Path,
    size: tuple[int, int],
    colour: str = "full",
    ranges: Callable[[], Ranges] = Ranges,
    pages: str = "first",
) -> str:
    """Draw an image in a `size` of at most columns and lines, with two pixels per character."""
    columns, lines = size
    with reading(path, 2 * columns, ranges, pages) as image:
        scale = min(columns / image.width, 2 * lines / image.height)
        width, height = max(1, round(image.width * scale)), max(2, round(image.height * scale))
        height += height % 2
        method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        drawn = image.resize((width, height), method).convert("RGB")
    pixels = np.asarray(drawn).tolist()
    paint = _PAINT[colour]
    rows = []
    for above, below in zip(pixels[::2], pixels[1::2], strict=True):
        cells = (f"\x1b[38;{paint(a)};48;{paint(b)}m▀" for a, b in zip(above, below, strict=True))
        rows.append("".join(cells) + "\x1b[0m")
    return "\n".join(rows)


def _of_256(pixel: list[int]) -> str:
    """Return the nearest colour of the 6x6x6 cube."""
    red, green, blue = (round(value / 255 * 5) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


_PAINT = {"full": lambda pixel: "2;{};{};{}".format(*pixel), "256": _of_256}


def colours_of(stream: object, environment: os._Environ[str] | dict[str, str]) -> str:
    """Return the colours of a terminal: "full", "256" or "" for none."""
    is_terminal = getattr(stream, "isatty", lambda: False)()
    term = environment.get("TERM", "")
    if not is_terminal or environment.get("NO_COLOR") or term in ("", "dumb"):
        return ""
    if environment.get("COLORTERM", "") in ("truecolor", "24bit") or "direct" in term:
        return "full"
    return "256"
