"""`skal label` and what goes with it: query, import, export, train, predict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from ..config import SETTINGS
from ..label import settings as label_settings
from .app import console, main
from .settings import options

if TYPE_CHECKING:
    from ..label.project import LabelProject

_log = logging.getLogger("skal")

FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
CLASSES = click.option(
    "--classes",
    metavar="A,B,...",
    multiple=True,
    help="The classes; later, further ones. By default those of the class folders.",
)
ANNOTATOR = click.option(
    "--as", "annotator", metavar="NAME", default="me", show_default=True, help="Who labels."
)
EXPORTS = ("csv", "folder", "label-studio")


def _project_options(names: Sequence[str]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command options for settings of a label project."""
    chosen = []
    for name in names:
        setting = copy(SETTINGS[name])
        setting.default = label_settings.DEFAULTS.get(name, setting.default)
        if name == "init_strategy":
            choices = tuple(c for c in setting.metadata["choices"] if c != "stratified")
            setting.metadata = MappingProxyType({**setting.metadata, "choices": choices})
        chosen.append(setting)
    return options(chosen)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, parameters parsed, with what costs torch checked."""
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    if "strategy_params" in given:
        from ..config import parse_params

        given["strategy_params"] = parse_params(given["strategy_params"])
    if "strategy_params" in given or ":" in given.get("strategy", ""):
        from ..strategies import resolve_strategy

        resolve_strategy(given.get("strategy", "auto"), given.get("strategy_params"))
    return given


@contextmanager
def _opened(folder: Path, *args: Any, **kwargs: Any) -> Iterator[LabelProject]:
    from ..label.project import LabelProject

    project = LabelProject.open(folder, *args, **kwargs)
    try:
        yield project
    finally:
        project.close()


def _split(classes: tuple[str, ...]) -> list[str]:
    return [name for part in classes for name in part.split(",")]


@main.command()
@FOLDER
@CLASSES
@_project_options(label_settings.SETTINGS)
@click.option(
    "--overlap", metavar="P%", help="Share of the images that two annotators are shown. [0%]"
)
@click.option("--suggest", is_flag=True, help="Let the network's guess be asked for.")
@click.option("--agreement", is_flag=True, help="Print how far annotators agree, and end.")
@click.option("--terminal", is_flag=True, help="Label here, without a browser.")
@ANNOTATOR
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="By default one that is free."
)
@click.option("--no-browser", is_flag=True, help="Do not open the page, only say where it is.")
@click.pass_context
def label(
    ctx: click.Context,
    /,
    folder: Path,
    classes: tuple[str, ...],
    overlap: str | None,
    suggest: bool,
    agreement: bool,
    terminal: bool,
    annotator: str,
    host: str,
    port: int,
    no_browser: bool,
    **settings: Any,
) -> None:
    """Label the images of a folder by hand, in the browser, while a network trains."""
    with console(ctx):
        given = _given(settings)
        if not (agreement or terminal):
            from ..label import server  # before anything is written, for it needs the extra
        with (
            _opened(folder, _split(classes), given, overlap, create=not agreement) as project,
            _alone(project, needed=not agreement),
        ):
            if agreement:
                _echo_agreement(project)
                return
            project.check_pool()
            try:
                if terminal:
                    _label_in_terminal(project, annotator, suggest)
                else:
                    server.serve(
                        project,
                        host=host,
                        port=port,
                        suggest=suggest,
                        on_ready=lambda url: _tell_address(url, annotator, not no_browser),
                    )
            finally:
                project.remember_contents()
                _tell_saved(project)


@contextmanager
def _alone(project: LabelProject, needed: bool) -> Iterator[None]:
    """Keep another process from showing the same images to people."""
    from ..errors import RunFolderError
    from ..files import locked

    if not needed:
        yield
        return
    lock = project.place / "lock"
    lock.touch()
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except RunFolderError as error:
            raise RunFolderError(
                f"{str(project.root)!r} is being labelled by another process; two people label "
                "on one page, each with ?as=NAME in its address"
            ) from error
        yield


def _tell_address(url: str, annotator: str, open_browser: bool) -> None:
    from urllib.parse import quote

    url += "" if annotator == "me" else f"&as={quote(annotator)}"
    click.echo(url)
    _log.info("open this address to label; Ctrl-C ends it, and every label is saved at once")
    if open_browser:
        click.launch(url)


def _tell_saved(project: LabelProject) -> None:
    given, folders = len(project.ledger.labels), len(project.folder_labels)
    beside = f", beside {folders} of class folders" if folders else ""
    _log.info("%d labels are saved in %s%s", given, project.store.path, beside)
    if project.accuracy:
        _log.info("accuracy of the last network: %s", project.accuracy)


def _label_in_terminal(project: LabelProject, annotator: str, suggest: bool) -> None:
    import os
    import sys

    from ..label.learning import Learner, Task
    from ..label.previews import Previews
    from ..label.rounds import Rounds
    from ..label.terminal import colours_of, label_in_terminal

    previews = Previews(project.root, project.paths)
    rounds = Rounds(project, previews)
    learner = Learner(Task.of(project), rounds.on_answer, rounds.on_failure)
    rounds.start(learner)
    try:
        colour = colours_of(sys.stdout, os.environ)
        label_in_terminal(project, rounds, annotator, suggest=suggest, colour=colour)
    except KeyboardInterrupt:
        click.echo("")
    finally:
        learner.stop()
        previews.close()


def _echo_agreement(project: LabelProject) -> None:
    from ..label.agreement import agreements, disputed

    pairs = agreements(project)
    for pair in pairs:
        click.echo(str(pair))
    if not pairs:
        click.echo("no image was labelled by two annotators; --overlap 10% shows some to both")
    images = disputed(project)
    if images:
        click.echo(f"\n{len(images)} images with different labels:")
    for path, labels in images:
        said = ", ".join(f"{who}: {name}" for who, name in labels.items())
        click.echo(f"{path}\t{said}")


@main.command()
@FOLDER
@CLASSES
@_project_options(label_settings.SETTINGS)
@click.option(
    "--format",
    "form",
    type=click.Choice(("list", "csv", "label-studio")),
    default="list",
    show_default=True,
    help="Paths alone, a table to fill in, or tasks.",
)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Not to stdout.")
@click.pass_context
def query(
    ctx: click.Context,
    /,
    folder: Path,
    classes: tuple[str, ...],
    form: str,
    out: Path | None,
    **settings: Any,
) -> None:
    """Say which images to label next, for those who label elsewhere; `skal import` brings back."""
    with console(ctx):
        given = _given(settings)
        names = _split(classes)
        with _opened(folder, names, given, create=False, needs_classes=False) as project:
            from ..label.exchange import export_label_studio, export_query
            from ..label.final import next_images

            picks = next_images(project, project.n_query)
            if form == "label-studio":
                text = export_label_studio(project, [image for image, _ in picks])
            else:
                text = export_query(project, picks, as_table=form == "csv")
            _write(text, out)


@main.command(name="export")
@FOLDER
@click.option("--format", "form", type=click.Choice(EXPORTS), required=True, help="What as.")
@click.option(
    "--out",
    metavar="FILE|DIR",
    type=click.Path(path_type=Path),
    help="By default stdout, for a folder DIR-labeled.",
)
@click.option("--copy", is_flag=True, help="Copy the files, instead of hard links to them.")
@click.pass_context
def export_command(
    ctx: click.Context, folder: Path, form: str, out: Path | None, copy: bool
) -> None:
    """Write the labels out: a table, class folders, or tasks of Label Studio."""
    with console(ctx), _opened(folder, create=False) as project:
        from ..label import exchange

        if form == "folder":
            out = out or folder.resolve().with_name(f"{folder.resolve().name}-labeled")
            n = exchange.export_folder(project, out, copy=copy)
            _log.info("%d images in %s", n, out)
        elif form == "csv":
            _write(exchange.export_csv(project), out)
        else:
            _write(exchange.export_label_studio(project), out)
            _log.info("labelling interface: %s", exchange.labeling_config(project.classes))


@main.command(name="import")
@FOLDER
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@CLASSES
@ANNOTATOR
@click.pass_context
def import_command(
    ctx: click.Context, folder: Path, source: Path, classes: tuple[str, ...], annotator: str
) -> None:
    """Take labels in: a table, a folder of class folders, or JSON of Label Studio."""
    with console(ctx):
        with _opened(folder, _split(classes)) as project:
            from ..label.exchange import import_labels
            from ..label.project import check_annotator

            done = import_labels(project, source, check_annotator(annotator))
            project.remember_contents()
        click.echo(f"{source}: {done}")


@main.command()
@FOLDER
@_project_options(label_settings.OF_TRAINING)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="The model's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.pass_context
def train(
    ctx: click.Context, /, folder: Path, out: Path | None, as_json: bool, **settings: Any
) -> None:
    """Train the final network on all labels, into a folder that `skal predict` takes."""
    with console(ctx), _opened(folder, (), _given(settings), create=False) as project:
        from ..label.final import train
        from ..label.project import Accuracy

        where, summary = train(project, out)
        if as_json:
            import json

            click.echo(json.dumps({**summary, "folder": str(where)}))
            return
        click.echo(f"{where}: {summary['model']} trained on {summary['n_labeled']} labels")
        names = ("accuracy", "accuracy_low", "accuracy_high", "n_test")
        if summary["accuracy"] is None:
            click.echo("its accuracy is not known: no image was labelled for the test")
        else:
            accuracy = Accuracy(*(summary[name] for name in names))
            click.echo(f"accuracy without the labels of the test: {accuracy}")


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--out", metavar="CSV", type=click.Path(path_type=Path), help="Not to stdout.")
@click.option("--device", default="auto", show_default=True, help="Where to compute.")
@click.pass_context
def predict(
    ctx: click.Context, run_dir: Path, images: tuple[Path, ...], out: Path | None, device: str
) -> None:
    """Classify images, and those in folders, by the network of a run or of `skal train`."""
    with console(ctx):
        import io

        from ..label.final import find_files, predict

        text = io.StringIO()
        n = predict(run_dir, find_files(images), text, device)
        _write(text.getvalue(), out)
        _log.info("%d images classified", n)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
    else:
        from ..files import write_atomic

        write_atomic(out, text)
        _log.info("written to %s", out)
