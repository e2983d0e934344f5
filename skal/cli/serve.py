"""`skal serve`."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import click

from .app import console, main
from .label import CLASSES, opened_project
from .settings import PATH, trust_option


@main.command()
@click.argument("folder", metavar="RUN_DIR|DIR", type=PATH)
@CLASSES
@click.option(
    "--images",
    metavar="DIR",
    type=PATH,
    help="Folder of the images, for a run; by default the run's own.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9090,
    show_default=True,
    help="Port to listen on; 0 for any that is free.",
)
@trust_option
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    folder: Path,
    classes: list[str],
    images: Path | None,
    trust: bool,
    host: str,
    port: int,
) -> None:
    """Serve predictions and the next tasks to Label Studio.

    With a run, use the run's network. With a folder of images, train a network on its labels, and
    retrain it as labels arrive from Label Studio.

    \b
    skal serve photos --classes cat,dog
    skal serve model --images photos
    """  # noqa: D301 (click wants the character)
    with console(ctx), ExitStack() as stack:
        from ..core.errors import UsageError
        from ..label.studio import backend, models
        from ..label.web.address import listen

        is_run = (folder / "model.json").is_file()
        if not folder.is_dir():
            raise UsageError(f"{str(folder)!r} is not a folder; expected a run or an image folder")
        if (is_run and classes) or (images and not is_run):
            what = "a run" if is_run else "not a finished run (it has no model.json)"
            raise UsageError(
                f"{str(folder)!r} is {what}; --images is for a run, and --classes for a folder of "
                "images"
            )
        # listen first, so that nothing is trained if the port is taken
        listening = stack.enter_context(listen(host, port))
        model: models.Model
        if is_run:
            model = models.model_of_run(folder, images, trust)
        else:
            project = stack.enter_context(opened_project(folder, classes, {}, create=False))
            model = stack.enter_context(closing(models.LearningModel(project)))
        backend.serve(model, listening, host)
