"""`skal query`, `skal export` and `skal import`."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..label.settings import SETTINGS
from .app import console, main, say
from .label import CLASSES, FOLDER, given_settings, opened_project
from .lists import complete
from .settings import PATH, GroupedCommand, options

if TYPE_CHECKING:
    from ..label.project import LabelProject

_log = logging.getLogger("skal")
_PAGES = replace(
    SETTINGS["pages"],
    help=f"{SETTINGS['pages'].help}; by default as in the project, in a new one the first",
    default=None,
)


@main.command(cls=GroupedCommand)
@FOLDER
@CLASSES
@options(SETTINGS.values())
@click.option(
    "--format",
    "form",
    type=click.Choice(("list", "csv", "label-studio")),
    default="list",
    show_default=True,
    help="Only paths, a table to fill in, or tasks for Label Studio.",
)
@click.option("--out", metavar="FILE", type=PATH, help="File to write to; by default stdout.")
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
    """List the images to label next, for labelling elsewhere.

    `skal import` then reads the labels.

    \b
    skal query photos --classes cat,dog --n-query 50
    skal query photos --format csv --out next.csv
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        _check_out(out)
        given = given_settings(settings)
        with opened_project(folder, classes, given, create=False, needs_classes=False) as project:
            from ..label.exporting import export_query
            from ..label.final import next_images
            from ..label.studio.tasks import export_label_studio

            picks = next_images(project, project.n_query)
            if form == "label-studio":
                text = export_label_studio(project, [image for image, _ in picks])
            else:
                text = export_query(project, picks, as_table=form == "csv")
                text = text if out or form == "csv" else _for_terminal(text)
            _write(text, out)
            if form == "label-studio":
                _show_setup(project, out)


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
    help="File or folder to write to; by default stdout, or DIR-labeled for class folders.",
)
@click.option("--copy", is_flag=True, help="Copy the files instead of hard-linking them.")
@click.option(
    "--push",
    metavar="URL",
    help="Send the tasks to a Label Studio server; its token is in $LABEL_STUDIO_API_KEY.",
)
@click.pass_context
def export_command(
    ctx: click.Context, /, folder: Path, form: str, out: Path | None, copy: bool, push: str | None
) -> None:
    """Export labels: a table, class folders, Label Studio tasks.

    \b
    skal export photos --format folder
    skal export photos --format label-studio --push http://localhost:8080
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        from ..label import FORMATS

        entry = FORMATS.resolve(form)
        if push is not None:
            _push(folder, push, entry.name, is_alone=not (out or copy))
            return
        if entry.facts.get("folder"):
            out = out or folder.resolve().with_name(f"{folder.resolve().name}-labeled")
        else:
            _check_out(out)
        with opened_project(folder, create=False) as project:
            written = entry.make(project=project, out=out, copy=copy)
            if not isinstance(written, str):
                from ..core.text import counted

                _log.info("%s in %s", counted(written, "image"), out)
                return
            _write(written, out)
            if entry.name == "label-studio":
                _show_setup(project, out)


def _push(folder: Path, url: str, form: str, *, is_alone: bool) -> None:
    from ..core.errors import UsageError
    from ..label.studio.exchange import push

    if form != "label-studio" or not is_alone:
        raise UsageError("--push takes --format label-studio, and neither --out nor --copy")
    with opened_project(folder) as project:
        say(str(push(project, url)))


@main.command(name="import")
@FOLDER
@click.argument("source", metavar="[FILE]", type=PATH, required=False)
@click.option(
    "--pull",
    metavar="URL",
    help="Import from a Label Studio server; its token is in $LABEL_STUDIO_API_KEY.",
)
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
    "--path-column",
    metavar="NAME",
    help="Column or field with the images' paths; a number if there is no header.",
)
@click.option("--label-column", metavar="NAME", help="Column or field with the labels.")
@click.option("--choice", metavar="NAME", help="Which question to read, where a tool asks several.")
@options([_PAGES])
@click.pass_context
def import_command(
    ctx: click.Context,
    /,
    folder: Path,
    source: Path | None,
    pull: str | None,
    classes: list[str],
    annotator: str,
    form: str | None,
    pages: str | None,
    **wanted: str | None,
) -> None:
    """Import labels: a table, a tool's JSON, class folders.

    \b
    skal import photos labels.csv --classes cat,dog
    skal import photos train.csv --path-column id --label-column breed
    skal import cells labels.csv --pages all --classes round,flat
    skal import photos --pull http://localhost:8080
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        from ..core.errors import UsageError
        from ..label.formats import Source
        from ..label.importing import import_into

        if (source is None) is (pull is None):
            raise UsageError("expected either FILE or --pull URL")
        if source is not None:
            done = import_into(folder, Source(source, **wanted), classes, annotator, form, pages)
        elif form or pages or wanted.pop("label_column"):
            raise UsageError("--pull takes only the file options --path-column and --choice")
        else:
            from ..label.studio.exchange import pull as pull_from

            done = pull_from(folder, str(pull), classes, annotator, **wanted)
        say(f"{source or pull}: {done}")


def _check_out(out: Path | None) -> None:
    """Raise a UsageError, before any work, if the result cannot be written to `out`."""
    from ..core.errors import RunExistsError, UsageError

    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"--out: the folder {str(out.parent)!r} does not exist")
    if out is not None and out.is_dir():
        raise UsageError(f"--out: {str(out)!r} is a folder; expected a file name")
    if out is not None and out.is_file():  # the user may have filled in labels
        raise RunExistsError(f"{str(out)!r} already exists; choose another --out")


def _for_terminal(text: str) -> str:
    """Return text safe for a terminal; for other programs it stays unchanged."""
    import sys

    from ..core.text import shown

    if not sys.stdout.isatty():
        return text
    return shown(text, keep="\n")


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
    else:
        from ..core.durable import write_atomic

        write_atomic(out, text)
        _log.info("written to %s", out)


def _show_setup(project: LabelProject, out: Path | None) -> None:
    """Show which Label Studio settings are needed, or write them to a file next to the tasks."""
    from ..label.studio.tasks import what_to_set

    text = what_to_set(project, out.name if out else "the tasks")
    if out is None:
        _log.info("%s", text)
    else:
        _write(text, out.with_name(f"{out.stem}-setup.md"))
