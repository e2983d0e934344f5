"""`skal export-model`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from ..core.lazy import importing
from .app import console, main
from .lists import complete
from .settings import PATH, trust_option

_log = logging.getLogger("skal")


@main.command("export-model")
@click.argument("run_dir", type=PATH)
@click.argument("images", nargs=-1, type=PATH)
@click.option(
    "--format",
    "form",
    metavar="NAME",
    default="onnx",
    show_default=True,
    shell_complete=complete("network-formats"),
    help="Format of the file, see `skal list network-formats`.",
)
@click.option("--out", metavar="FILE", type=PATH, help="File to write; by default in RUN_DIR.")
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
@click.pass_context
def export_model(
    ctx: click.Context,
    /,
    run_dir: Path,
    images: tuple[Path, ...],
    form: str,
    out: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Export a network to one file that works without skal.

    The file takes uint8 images of the network's size and returns probabilities. Its answers are
    compared with skal's own on IMAGES, by default the run's test images.

    \b
    skal export-model runs/digits-badge-small-cnn-s0
    skal export-model model photos --format torchscript --out model.pt
    """  # noqa: D301 (click wants the character)
    with console(ctx):
        from ..core.text import counted
        from ..prediction.checks import check_export

        check_export(run_dir, out, form)
        with importing():
            from ..prediction import exports

        exports.place_for(run_dir, out, form)  # fail before images are decoded
        checked = exports.images_for(run_dir, images, trust)
        done = exports.export_model(run_dir, out, format=form, images=checked, trust=trust)
        if as_json:
            click.echo(json.dumps(done.as_dict()))
        _log.info(
            "written to %s; on %s%s the largest difference from skal's own probabilities is %.1g, "
            "and %s the same class",
            done.out,
            counted(done.n_images, "image"),
            " of noise" if done.is_noise else "",
            done.largest_difference,
            counted(done.n_same_class, "has", "have"),
        )
        if done.n_same_in_bf16 is not None:
            _log.info(
                "the file computes in float32; skal predict computes in bfloat16 on this machine, "
                "by which %s the same class",
                counted(done.n_same_in_bf16, "has", "have"),
            )
