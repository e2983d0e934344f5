"""Labelling in a terminal, for those without a browser."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ..core.errors import UsageError
from ..datasets.base import one_line
from ..datasets.decoding import read_rgb
from .accuracy import ENOUGH
from .learning import Learner
from .names import shown
from .previews import Previews
from .project import LabelProject
from .rounds import NothingToUndoError, Rounds

HELP = (
    "1-9 label   / type the class   Space skip   u unsure   x bad image   Backspace undo{guess}   "
    "? help   q end"
)
BLOCK = "▀"
MOST_COLUMNS, MOST_ROWS = 64, 24
UNDO = ("\x7f", "\b")
END = ("q", "\x04", "")


def label_in_terminal(
    project: LabelProject,
    rounds: Rounds,
    annotator: str,
    *,
    suggest: bool = False,
    colour: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Show one image after the other and take a key for each, until `q` or nothing is left.

    Parameters
    ----------
    project : LabelProject
        What is labelled.
    rounds : Rounds
        What is shown.
    annotator : str
        Who labels.
    suggest : bool, default=False
        Whether the network's guess is shown when `g` is pressed.
    colour : {"", "256", "full"}, default=""
        What the terminal has; without any there is no picture.
    clock : callable
        Seconds.
    """
    click.echo(_help(project, suggest))
    is_over = False
    while not is_over:
        queue = rounds.queue(annotator)
        if queue:
            is_over = not _label_one(project, rounds, queue[0], annotator, suggest, colour, clock)
        else:
            click.echo("nothing is left to label; Backspace takes the last answer back")
            is_over = _key() not in UNDO or not _undo(project, rounds, annotator)


def run_in_terminal(project: LabelProject, annotator: str, *, suggest: bool = False) -> None:
    """Label in this terminal while a network trains, until the end.

    Parameters
    ----------
    project, annotator, suggest
        See `label_in_terminal`.

    Raises
    ------
    KeyboardInterrupt
        By Ctrl-C; all answers are kept.
    """
    previews = Previews(project.root, project.paths)
    rounds = Rounds(project, previews)
    learner = Learner(project.learner_setup(), rounds.on_answer, rounds.on_failure)
    rounds.start(learner)
    try:
        colour = colours_of(sys.stdout, os.environ)
        label_in_terminal(project, rounds, annotator, suggest=suggest, colour=colour)
    except (KeyboardInterrupt, click.Abort):  # the latter while a class was typed
        click.echo("")
        raise KeyboardInterrupt from None
    finally:
        learner.stop()
        previews.close()


def _label_one(
    project: LabelProject,
    rounds: Rounds,
    image: int,
    annotator: str,
    suggest: bool,
    colour: str,
    clock: Callable[[], float],
) -> bool:
    """Show an image and take keys until one answers it or takes something back; else it ends."""
    click.echo(_shown(project, rounds, image, annotator, colour))
    started, guess = clock(), None
    while (key := _key()) not in END:
        if key == "?":
            click.echo(_help(project, suggest))
        elif key == "g" and suggest:
            guess = _tell_guess(project, rounds, image)
        elif key in UNDO:
            _undo(project, rounds, annotator)
            return True
        elif answer := _answer(project, key):
            action, label = answer
            seconds = round(clock() - started, 3)
            told = {"action": action, "image": image, "label": label, "seconds": seconds}
            rounds.act(annotator, [{**told, "guess": guess}])
            click.echo(f"  {action if label is None else project.classes[label]}: saved")
            return True
        elif key != "/":
            click.echo("  no such key; ? tells which there are")
    return False


def _key() -> str:
    """Wait for a key; none is left where the input ends."""
    try:
        return click.getchar()
    except EOFError:
        return ""
    except OSError as error:  # there is no /dev/tty
        raise UsageError("--terminal needs a terminal, to read keys from") from error


def _answer(project: LabelProject, key: str) -> tuple[str, int | None] | None:
    """Return what a key says of an image: an action, and a class id if that is a label."""
    actions = {" ": "skip", "u": "unsure", "x": "bad"}
    if key in actions:
        return actions[key], None
    if key.isdecimal() and 0 < int(key) <= len(project.classes):
        return "label", int(key) - 1
    if key == "/":
        text = click.prompt("class", default="", show_default=False).strip().casefold()
        exact = [n for n, name in enumerate(project.classes) if name.casefold() == text]
        near = [n for n, name in enumerate(project.classes) if text and text in name.casefold()]
        if len(exact or near) == 1:
            return "label", (exact or near)[0]
        known = ", ".join(project.classes[n] for n in near) or "none"
        click.echo(f"  classes with {text!r}: {known}")
    return None


def _undo(project: LabelProject, rounds: Rounds, annotator: str) -> bool:
    try:
        undone = rounds.undo(annotator)
    except NothingToUndoError as error:
        click.echo(f"  {error}")
        return False
    paths = [shown(project.paths.get(action.image, "an image")) for action in undone]
    click.echo(f"  taken back: {', '.join(paths)}")
    return True


def _tell_guess(project: LabelProject, rounds: Rounds, image: int) -> int | None:
    proba = rounds.guess(image)
    if proba is None:
        click.echo("  there is no guess yet")
        return None
    label = int(proba.argmax())
    click.echo(f"  guess: {project.classes[label]} ({proba[label]:.0%})")
    return label


def _help(project: LabelProject, suggest: bool) -> str:
    keys = [f"{n if n < 10 else '/'} {name}" for n, name in enumerate(project.classes, start=1)]
    return f"{'   '.join(keys)}\n{HELP.format(guess='   g guess' if suggest else '')}"


def _shown(project: LabelProject, rounds: Rounds, image: int, annotator: str, colour: str) -> str:
    state = rounds.state(annotator)
    path = project.paths[image]
    size = shutil.get_terminal_size()
    columns, lines = min(size.columns, MOST_COLUMNS), min(size.lines - 6, MOST_ROWS)
    picture = ""
    if colour and lines > 1:
        try:
            picture = half_blocks(project.root / path, columns, lines, colour) + "\n"
        except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
            picture = f"cannot be drawn: {shown(one_line(error))}\n"
    accuracy = project.accuracy
    known = ""
    if accuracy is not None and accuracy.n >= ENOUGH:
        known = f", accuracy {accuracy.low:.2f} to {accuracy.high:.2f} on {accuracy.n}"
    where = f"round {state['round']}" if state["round"] else "starting round"
    return (
        f"{picture}{shown(path)}  ({state['done_in_round'] + 1} of {state['round_size']}, "
        f"{where}; {state['n_labeled']} labelled{known})"
    )


def half_blocks(path: Path, columns: int, lines: int, colour: str = "full") -> str:
    """Draw an image in characters, two pixels each, one above the other.

    Parameters
    ----------
    path : Path
        The file.
    columns, lines : int
        The size at most, in characters.
    colour : {"full", "256"}
        Which colours the terminal has.

    Returns
    -------
    str
    """
    image = read_rgb(path, 2 * columns)
    scale = min(columns / image.width, 2 * lines / image.height)
    width, height = max(1, round(image.width * scale)), max(2, round(image.height * scale))
    height += height % 2
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    pixels = np.asarray(image.resize((width, height), method)).tolist()
    paint = _PAINT[colour]
    rows = []
    for y in range(0, height, 2):
        cells = [
            f"\x1b[38;{paint(pixels[y][x])};48;{paint(pixels[y + 1][x])}m{BLOCK}"
            for x in range(width)
        ]
        rows.append("".join(cells) + "\x1b[0m")
    return "\n".join(rows)


def _full(pixel: list[int]) -> str:
    return "2;{};{};{}".format(*pixel)


def _of_256(pixel: list[int]) -> str:
    """Return the nearest of the 6x6x6 cube."""
    red, green, blue = (round(value / 255 * 5) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


_PAINT = {"full": _full, "256": _of_256}


def colours_of(stream: object, environment: os._Environ[str] | dict[str, str]) -> str:
    """Return which colours a terminal has: "full", "256" or none, ""."""
    is_terminal = getattr(stream, "isatty", lambda: False)()
    term = environment.get("TERM", "")
    if not is_terminal or environment.get("NO_COLOR") or term in ("", "dumb"):
        return ""
    if environment.get("COLORTERM", "") in ("truecolor", "24bit") or "direct" in term:
        return "full"
    return "256"
