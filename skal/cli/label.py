"""`skal label` and what goes with it: query, import, export, train."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..label.settings import OF_TRAINING, SETTINGS
from .app import console, main
from .lists import complete
from .settings import PATH, options

if TYPE_CHECKING:
    from ..label.project import LabelProject

_log = logging.getLogger("skal")

FOLDER = click.argument("folder", metavar="DIR", type=PATH)
CLASSES = click.option(
    "--classes",
    metavar="A,B,...",
    multiple=True,
    callback=lambda _ctx, _option, parts: [name for part in parts for name in part.split(",")],
    help="The classes; later, further ones. By default those of the class folders.",
)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, parameters parsed, with what costs torch checked."""
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    if "strategy_params" in given:
        from ..core.registry import parse_params

        given["strategy_params"] = parse_params(given["strategy_params"], "strategy-param")
    if "strategy_params" in given or ":" in given.get("strategy", ""):
        from ..strategies import resolve_strategy

        resolve_strategy(given.get("strategy", "auto"), given.get("strategy_params"))
    return given


@contextmanager
def _opened(folder: Path, *args: Any, **kwargs: Any) -> Iterator[LabelProject]:
    from ..label.project import LabelProject

    with closing(LabelProject.open(folder, *args, **kwargs)) as project:
        yield project


def _end_as_by_interrupt() -> None:
    """Let a terminal that is closed end the command as Ctrl-C does."""
    with suppress(ValueError, AttributeError):  # not in the main thread; not on Windows
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGINT))


@main.command()
@FOLDER
@CLASSES
@options(SETTINGS.values())
@click.option(
    "--overlap", metavar="P%", help="Share of the images that two annotators are shown. [0%]"
)
@click.option("--suggest", is_flag=True, help="Let the network's guess be asked for.")
@click.option("--agreement", is_flag=True, help="Print how far annotators agree, and exit.")
@click.option(
    "--keys",
    metavar="CLASS=KEY,...",
    multiple=True,
    help="Keys of classes, kept; by default a class that is called as a key has that one, and the "
    "first nine others have 1 to 9.",
)
@click.option(
    "--rename-class",
    "renamings",
    metavar="OLD=NEW",
    multiple=True,
    help="Give a class another name, its labels with it, and exit.",
)
@click.option(
    "--merge-class",
    "mergers",
    metavar="OLD=OTHER",
    multiple=True,
    help="Make a class a part of another, its labels with it, and exit.",
)
@click.option(
    "--remove-class",
    "removals",
    metavar="NAME",
    multiple=True,
    help="Remove a class and its labels, whose images come again, and exit.",
)
@click.option("--terminal", is_flag=True, help="Label here, without a browser.")
@click.option(
    "--as",
    "annotators",
    metavar="NAME",
    multiple=True,
    help="Name of the annotator; several, for an address each. [me]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="By default that of the last time, if it is free.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the page, only say where it is.")
@click.pass_context
def label(
    ctx: click.Context,
    /,
    folder: Path,
    classes: list[str],
    overlap: str | None,
    suggest: bool,
    agreement: bool,
    keys: tuple[str, ...],
    renamings: tuple[str, ...],
    mergers: tuple[str, ...],
    removals: tuple[str, ...],
    terminal: bool,
    annotators: tuple[str, ...],
    host: str,
    port: int,
    no_browser: bool,
    **settings: Any,
) -> None:
    """Label the images of a folder by hand, in the browser, while a network trains."""
    with console(ctx):
        _end_as_by_interrupt()
        from ..label.agreement import report
        from ..label.names import check_annotator
        from ..label.project import HOME
        from ..label.service import LabelService

        names = [check_annotator(name) for name in annotators or ("me",)]
        opened = partial(_opened, folder, classes, _given(settings), overlap)
        if agreement:
            with opened(create=False) as project:
                click.echo("\n".join(report(project)))
        elif renamings or mergers or removals:
            with _opened(folder, alone=True) as project:
                project.change_classes(renamings, mergers, removals)
                click.echo(f"classes: {', '.join(project.classes)}")
        elif terminal:
            from ..label.terminal import run_in_terminal

            with _labelling(opened, keys) as project:
                ctx.obj["go_on"] = "all answers are kept; the same command continues"
                run_in_terminal(LabelService(project), names[0], suggest=suggest)
        else:
            from ..label.web.address import claim, open_browser
            from ..label.web.server import serve

            # the port before the project: where that is taken, nothing is begun
            with (
                claim(folder / HOME, host, port) as address,
                _labelling(opened, keys) as project,
            ):
                address.keep(project.home)
                urls = address.urls(names)
                click.echo("\n".join(urls))
                for notice in address.notices:
                    _log.warning(notice)
                _log.info(
                    "open this address to label; Ctrl-C ends it, and every label is saved at once"
                )
                if not no_browser:
                    open_browser(project.home, urls[0])
                serve(LabelService(project), address, suggest=suggest)


@contextmanager
def _labelling(
    opened: Callable[..., AbstractContextManager[LabelProject]], keys: Sequence[str]
) -> Iterator[LabelProject]:
    """Open a project for people, with the keys that they want."""
    with opened(needs_pool=True, alone=True) as project:
        project.choose_keys(keys)
        with _telling_saved(project):
            yield project


@contextmanager
def _telling_saved(project: LabelProject) -> Iterator[None]:
    """Say at the end what is saved, how good the network is, and what comes next."""
    from shlex import quote

    from ..label.names import shown

    try:
        yield
    finally:
        given, folders = len(project.ledger.labels), len(project.folder_labels)
        beside = f", beside {folders} of class folders" if folders else ""
        _log.info("%d labels are saved in %s%s", given, project.store.path, beside)
        if project.accuracy:
            _log.info("accuracy of the last network: %s", project.accuracy)
        folder = shown(quote(str(project.root)))
        _log.info(
            "next: skal train %s --out model (the final network); "
            "skal export %s --format folder (the images by class)",
            folder,
            folder,
        )


@main.command()
@FOLDER
@CLASSES
@options(SETTINGS.values())
@click.option(
    "--format",
    "form",
    type=click.Choice(("list", "csv", "label-studio")),
    default="list",
    show_default=True,
    help="Only paths, a table to fill in, or tasks.",
)
@click.option("--out", metavar="FILE", type=PATH, help="A file; by default stdout.")
@click.pass_context
def query(
    ctx: click.Context,
    /,
    folder: Path,
    classes: list[str],
    form: str,
    out: Path | None,
    **settings: Any,
) -> None:
    """Say which images to label next, for those who label elsewhere; `skal import` brings back."""
    with console(ctx):
        _check_out(out)
        given = _given(settings)
        with _opened(folder, classes, given, create=False, needs_classes=False) as project:
            from ..label.exporting import export_label_studio, export_query
            from ..label.final import next_images

            picks = next_images(project, project.n_query)
            if form == "label-studio":
                text = export_label_studio(project, [image for image, _ in picks])
            else:
                text = export_query(project, picks, as_table=form == "csv")
                text = text if out or form == "csv" else _for_eyes(text)
            _write(text, out)


@main.command(name="export")
@FOLDER
@click.option(
    "--format",
    "form",
    metavar="NAME",
    shell_complete=complete("formats"),
    required=True,
    help="A table (csv), class folders (folder), tasks (label-studio), or module:Name.",
)
@click.option(
    "--out",
    metavar="FILE|DIR",
    type=PATH,
    help="By default stdout, for a folder DIR-labeled.",
)
@click.option("--copy", is_flag=True, help="Copy the files, instead of hard links to them.")
@click.pass_context
def export_command(
    ctx: click.Context, folder: Path, form: str, out: Path | None, copy: bool
) -> None:
    """Write the labels out: a table, class folders, or tasks of Label Studio."""
    with console(ctx):
        from ..label import FORMATS
        from ..label.exporting import labeling_config

        entry = FORMATS.resolve(form)
        if entry.facts.get("folder"):
            out = out or folder.resolve().with_name(f"{folder.resolve().name}-labeled")
        else:
            _check_out(out)
        with _opened(folder, create=False) as project:
            written = entry.make(project=project, out=out, copy=copy)
            if not isinstance(written, str):
                _log.info("%d images in %s", written, out)
                return
            _write(written, out)
            if entry.name == "label-studio":
                _log.info("labelling interface: %s", labeling_config(project.classes))


@main.command(name="import")
@FOLDER
@click.argument("source", metavar="FILE", type=PATH)
@CLASSES
@click.option(
    "--as",
    "annotator",
    metavar="NAME",
    default="me",
    show_default=True,
    help="Name of the annotator.",
)
@click.option(
    "--format",
    "form",
    metavar="NAME",
    help="Format of FILE, see `skal list import-formats`; by default it is recognised.",
)
@click.option(
    "--path-column", metavar="NAME", help="Column of the images; a number if there is no header."
)
@click.option("--label-column", metavar="NAME", help="Column of the labels.")
@click.option("--choice", metavar="NAME", help="Of several questions of a tool the one to read.")
@click.pass_context
def import_command(
    ctx: click.Context,
    /,
    folder: Path,
    source: Path,
    classes: list[str],
    annotator: str,
    form: str | None,
    **wanted: str | None,
) -> None:
    r"""Take labels in: a table, JSON of some tool, or a folder of class folders.

    \b
    skal import photos labels.csv --classes cat,dog
    skal import photos train.csv --path-column id --label-column breed
    """
    with console(ctx):
        from ..label.formats import Source
        from ..label.importing import import_into

        done = import_into(folder, Source(source, **wanted), classes, annotator, form)
        click.echo(f"{source}: {done}")


@main.command()
@FOLDER
@options(SETTINGS[name] for name in OF_TRAINING)
@click.option("--out", metavar="DIR", type=PATH, help="The model's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.pass_context
def train(
    ctx: click.Context, /, folder: Path, out: Path | None, as_json: bool, **settings: Any
) -> None:
    """Train the final network on all labels, into a folder that `skal predict` takes."""
    with console(ctx), _opened(folder, (), _given(settings), create=False) as project:
        from ..label.final import train
        from ..label.sample import Accuracy

        where, summary = train(project, out)
        if as_json:
            import json

            click.echo(json.dumps({**summary, "folder": str(where)}))
            return
        click.echo(f"{where}: {summary['model']} trained on {summary['n_labeled']} labels")
        if summary["accuracy"] is None:
            click.echo(
                "its accuracy is not known: no image was labelled for the test, and the labels are "
                "too few for cross-validation"
            )
        else:
            names = ("accuracy", "accuracy_low", "accuracy_high", "n_accuracy")
            accuracy = Accuracy(*(summary[name] for name in names))
            if summary["accuracy_from"] == "test":
                click.echo(f"accuracy without the labels of the test: {accuracy}")
            else:
                click.echo(
                    f"accuracy by cross-validation over the labels: {accuracy.value:.3f} "
                    f"({accuracy.low:.3f} to {accuracy.high:.3f} at 95 % confidence, {accuracy.n} "
                    "images); it is biased if a strategy chose these images, which are not like "
                    "the others then: only images drawn at random and kept out of training tell"
                )


def _check_out(out: Path | None) -> None:
    """Find out before the work that its result could not be written."""
    from ..core.errors import UsageError

    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"--out: the folder {str(out.parent)!r} does not exist")
    if out is not None and out.is_dir():
        raise UsageError(f"--out: {str(out)!r} is a folder; expected the name of a file")


def _for_eyes(text: str) -> str:
    """Return text as a terminal may show it; to another program it goes as it is."""
    import sys

    from ..label.names import shown

    if not sys.stdout.isatty():
        return text
    return "".join(f"{shown(line)}\n" for line in text.split("\n")[:-1])


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
    else:
        from ..core.durable import write_atomic

        write_atomic(out, text)
        _log.info("written to %s", out)
