"""`skal label`, `skal train` and `skal doubts`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..label.settings import OF_TRAINING, SETTINGS
from .app import console, main, say
from .settings import PATH, GroupedCommand, Option, options

if TYPE_CHECKING:
    from ..label.project import LabelProject
    from ..label.web.address import Address

_log = logging.getLogger("skal")

FOLDER = click.argument("folder", metavar="DIR", type=PATH)
CHANGES = ("--rename-class", "--merge-class", "--remove-class")
EXITING = (*CHANGES, "--restore")
"""Options that exclude all others, except that the changes can be combined."""
PAGE_OPTIONS = ("--host", "--port", "--no-browser")
WITHOUT_EFFECT = {
    "--terminal": PAGE_OPTIONS,
    "--status": (*PAGE_OPTIONS, "--as", "--keys", "--suggest"),
    "--agreement": (*PAGE_OPTIONS, "--as", "--keys", "--suggest"),
}
"""Options that have no effect with another one."""

_of_classes = partial(click.option, cls=Option, group="classes")
_of_labelling = partial(click.option, cls=Option, group="labelling")
_of_page = partial(click.option, cls=Option, group="page")
_instead = partial(click.option, cls=Option, group="instead of labelling")


def CLASSES(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--classes``, and ``--class`` for names with a comma."""

    def taken(ctx: click.Context, _option: Any, names: tuple[str, ...]) -> None:
        ctx.meta["classes"] = list(names)

    def split(ctx: click.Context, _option: Any, parts: tuple[str, ...]) -> list[str]:
        single: list[str] = ctx.meta.get("classes", [])
        return [name for part in parts for name in part.split(",")] + single

    one = _of_classes(
        "--class",
        metavar="NAME",
        multiple=True,
        expose_value=False,
        is_eager=True,  # processed before --classes, whose callback reads it
        callback=taken,
        help="One class, whose name may have a comma; may be repeated.",
    )
    several = _of_classes(
        "--classes",
        metavar="A,B,...",
        multiple=True,
        callback=split,
        help="The classes, later further ones; by default the class folders'.",
    )
    return several(one(command))


def given_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given settings, with parameters parsed; import torch only if they need a check."""
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    if "strategy_params" in given:
        from ..core.registry import parse_params

        given["strategy_params"] = parse_params(given["strategy_params"], "strategy-param")
    if "strategy_params" in given or ":" in given.get("strategy", ""):
        from ..strategies import resolve_strategy

        resolve_strategy(given.get("strategy", "auto"), given.get("strategy_params"))
    return given


@contextmanager
def opened_project(folder: Path, *args: Any, **kwargs: Any) -> Iterator[LabelProject]:
    from ..label.project import LabelProject

    with closing(LabelProject.open(folder, *args, **kwargs)) as project:
        yield project


@main.command(cls=GroupedCommand)
@FOLDER
@CLASSES
@_of_classes(
    "--keys",
    metavar="CLASS=KEY,...",
    multiple=True,
    help="Keys of the classes, remembered; by default a class with a name of one character has "
    "that key, and the first nine others have 1 to 9.",
)
@_of_labelling(
    "--as",
    "annotators",
    metavar="NAME",
    multiple=True,
    help="Name of the annotator; repeat it to give each an address. [me]",
)
@_of_labelling(
    "--overlap", metavar="P%", help="Share of the images to show to two annotators. [0%]"
)
@_of_labelling(
    "--until",
    metavar="P%",
    help="Target accuracy, remembered; the page says how far it is. 0% removes it.",
)
@_of_labelling("--suggest", is_flag=True, help="Show the network's prediction on request.")
@_of_labelling("--terminal", is_flag=True, help="Label in the terminal, without a browser.")
@options(SETTINGS.values())
@_of_page("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@_of_page(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to listen on; by default the last one, if it is free.",
)
@_of_page("--no-browser", is_flag=True, help="Print the address of the page, but do not open it.")
@_instead("--status", is_flag=True, help="Print the progress of the labelling, and exit.")
@_instead("--agreement", is_flag=True, help="Print the agreement of the annotators, and exit.")
@_instead(
    "--rename-class",
    "renamings",
    metavar="OLD=NEW",
    multiple=True,
    help="Rename a class, which keeps its labels, and exit.",
)
@_instead(
    "--merge-class",
    "mergers",
    metavar="OLD=OTHER",
    multiple=True,
    help="Merge a class and its labels into another, and exit.",
)
@_instead(
    "--remove-class",
    "removals",
    metavar="NAME",
    multiple=True,
    help="Remove a class and its labels, and exit; its images are shown again.",
)
@_instead(
    "--restore",
    "is_restored",
    is_flag=True,
    help="Replace a damaged file of labels by its daily copy, and exit.",
)
@click.pass_context
def label(
    ctx: click.Context,
    /,
    folder: Path,
    classes: list[str],
    overlap: str | None,
    until: str | None,
    status: bool,
    suggest: bool,
    agreement: bool,
    keys: tuple[str, ...],
    renamings: tuple[str, ...],
    mergers: tuple[str, ...],
    removals: tuple[str, ...],
    is_restored: bool,
    terminal: bool,
    annotators: tuple[str, ...],
    host: str,
    port: int,
    no_browser: bool,
    **settings: Any,
) -> None:
    """Label the images of a folder, while a network trains.

    \b
    skal label photos --classes cat,dog
    skal label photos --as anna --as ben --overlap 10%
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        from ..label import status as how_far
        from ..label.agreement import report
        from ..label.names import check_annotator
        from ..label.project import HOME, STORE
        from ..label.service import LabelService

        names = [check_annotator(name) for name in annotators or ("me",)]
        opened = partial(
            opened_project, folder, classes, given_settings(settings), overlap, until=until
        )
        changes = bool(renamings or mergers or removals)
        _check_exclusive(
            {
                "--restore": is_restored,
                "--agreement": agreement,
                "--status": status,
                "a change of classes": changes,
                "--terminal": terminal,
            }
        )
        _check_effective(ctx)
        if is_restored:
            say(_restored(folder / HOME / STORE))
        elif agreement or status:
            with opened(create=False) as project:
                say("\n".join((report if agreement else how_far.report)(project)))
        elif changes:
            with _changing(folder) as project:
                project.change_classes(renamings, mergers, removals)
                say(f"classes: {', '.join(project.classes)}")
        elif terminal:
            from ..label.terminal import run_in_terminal

            with _labelling(opened, keys) as project:
                ctx.obj["go_on"] = "all answers are kept; the same command continues"
                run_in_terminal(LabelService(project), names[0], suggest=suggest)
        else:
            from ..label.web.address import claim
            from ..label.web.server import serve

            # claim the port first, so that nothing is created if it is taken or an extra is missing
            with (
                claim(folder / HOME, host, port) as address,
                _labelling(opened, keys) as project,
            ):
                _show_addresses(address, names, project.home, not no_browser)
                serve(LabelService(project), address, suggest=suggest)


def _show_addresses(address: Address, names: list[str], home: Path, opens: bool) -> None:
    """Print the addresses of the page, and open it if `opens`."""
    from ..label.web.address import open_browser

    address.keep(home)
    urls = address.urls(names)
    click.echo("\n".join(urls))
    for notice in address.notices:
        _log.warning(notice)
    _log.info("open this address to label; every label is saved at once; Ctrl-C stops the server")
    if opens:
        open_browser(home, urls[0])


def _check_exclusive(wanted: Mapping[str, bool]) -> None:
    """Raise a UsageError if several of these exclusive options are given."""
    from ..core.errors import UsageError

    given = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(given) > 1:
        raise UsageError(f"got {' and '.join(given)}; expected one of them")


def _check_effective(ctx: click.Context) -> None:
    """Raise a UsageError if an option is given that has no effect with another one."""
    from ..core.errors import UsageError

    options = [option for option in ctx.command.params if isinstance(option, click.Option)]
    given = [
        option.opts[0]
        for option in options
        if ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]
    if ctx.params["terminal"] and len(ctx.params["annotators"]) > 1:
        raise UsageError("--terminal is for one annotator; expected one --as")
    for wanted in given:
        acting = CHANGES if wanted in CHANGES else (wanted,)
        idle = WITHOUT_EFFECT.get(wanted, ()) if wanted not in EXITING else {*given} - {*acting}
        if ignored := [name for name in given if name in idle]:
            raise UsageError(f"{ignored[0]} has no effect with {wanted}; leave it out")


def _restored(store: Path) -> str:
    """Replace a damaged store by its copy, and return a message."""
    from ..label.checks import check_damaged
    from ..label.copies import restore

    check_damaged(store)
    return restore(store)


@contextmanager
def _changing(folder: Path) -> Iterator[LabelProject]:
    """Open a project exclusively, to change its classes."""
    from ..label.holding import HeldError

    with ExitStack() as stack:
        try:
            project = stack.enter_context(opened_project(folder, alone=True))
        except HeldError as error:
            raise HeldError(
                f"{str(folder)!r} is being labelled by another process: stop that with Ctrl-C, "
                "repeat this command, then start it again; open browser pages reconnect"
            ) from error
        yield project


@contextmanager
def _labelling(
    opened: Callable[..., AbstractContextManager[LabelProject]], keys: Sequence[str]
) -> Iterator[LabelProject]:
    """Open a project for labelling, with the chosen keys."""
    with opened(needs_pool=True, alone=True) as project:
        project.choose_keys(keys)
        try:
            yield project
        finally:
            _log_saved(project)


def _log_saved(project: LabelProject) -> None:
    """Report what is saved, how accurate the network is, and the next commands."""
    from shlex import quote

    from ..core.text import counted, shown

    given, folders = len(project.ledger.labels), len(project.folder_labels)
    more = f", in addition to {folders} from class folders" if folders else ""
    labels = counted(given, "label is", "labels are")
    _log.info("%s saved in %s%s", labels, project.store.path, more)
    if project.accuracy:
        _log.info("accuracy of the last network: %s", project.accuracy)
    if verdict := project.verdict:
        _log.info("target %g%%: %s", 100 * verdict.wanted, verdict.text)
    _log.info(
        "next: skal train %(folder)s --out model (final network); skal export %(folder)s "
        "--format folder (images by class)",
        {"folder": shown(quote(str(project.root)))},
    )


@main.command(cls=GroupedCommand)
@FOLDER
@options(SETTINGS[name] for name in OF_TRAINING)
@click.option("--out", metavar="DIR", type=PATH, help="Folder to write the model to.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.pass_context
def train(
    ctx: click.Context, /, folder: Path, out: Path | None, as_json: bool, **settings: Any
) -> None:
    """Train the final network on all labels, for `skal predict`.

    \b
    skal train photos --out model
    skal train photos --model resnet18 --pretrained --finetune --out model
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        from ..label.checks import check_trainable
        from ..runs.record import check_free

        if out is not None:
            check_free(out)
        with opened_project(folder, (), given_settings(settings), create=False) as project:
            check_trainable(project.labels)
            from ..label.final import describe, train

            where, summary = train(project, out)
            if as_json:
                import json

                click.echo(json.dumps({**summary, "folder": str(where)}))
            else:
                say("\n".join(describe(where, summary)))


@main.command(cls=GroupedCommand)
@FOLDER
@options(SETTINGS[name] for name in OF_TRAINING)
@click.option("--json", "as_json", is_flag=True, help="Print all labels as a JSON list.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all labels as a table.")
@click.option(
    "--noted", is_flag=True, help="List images with notes of cleanlab or cleanvision first."
)
@click.pass_context
def doubts(
    ctx: click.Context, /, folder: Path, as_json: bool, as_csv: bool, noted: bool, **settings: Any
) -> None:
    """List the labels that are probably wrong.

    They are labels that a network trained on the other images (by cross-validation) contradicts,
    the least probable first.

    \b
    skal doubts photos
    skal doubts photos --csv
    """  # noqa: D301 (click wants the character)
    with (
        console(ctx),
        opened_project(folder, (), given_settings(settings), create=False) as project,
    ):
        from ..core.errors import UsageError
        from ..core.text import counted, plural, shown
        from ..label.doubts import doubts_of
        from ..label.exporting import describe_doubts, export_doubts

        if as_json and as_csv:
            raise UsageError("got --json and --csv; expected one of them")
        described = describe_doubts(project, doubts_of(project), noted)
        if as_json:
            import json

            click.echo(json.dumps(described))
        elif as_csv:
            click.echo(export_doubts(described), nl=False)
        else:
            for row in described:
                if row["contradicted"] or (noted and row["note"]):
                    doubt = "?" if row["contradicted"] else ""
                    guess = f"{row['guess']}{doubt} ({row['guess_probability']:.0%})"
                    note = f"\t{shown(row['note'])}" if row["note"] else ""
                    click.echo(f"{shown(row['path'])}\t{shown(row['label'])}\t{shown(guess)}{note}")
            n = sum(row["contradicted"] for row in described)
            of = counted(len(described), "label")
            _log.info("%d of %s %s contradicted", n, of, plural(n, "is", "are"))
