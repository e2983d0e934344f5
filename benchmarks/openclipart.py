"""Makes a folder of colour images of Debian's openclipart-png: its classes of 300 images or more.

apt-get install openclipart-png
python benchmarks/openclipart.py openclipart
python benchmarks/accuracy.py --dataset openclipart --n-init 40 --n-query 40 --n-pool 4000 \
        --seeds 3 --strategies random,clue,badge,typiclust,tcm,margin

Without the rights to install it, `apt-get download` and `dpkg -x` put it elsewhere: `--source`.
"""

from __future__ import annotations

from pathlib import Path

import click

AT_LEAST = 300


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default="/usr/share/openclipart/png",
    show_default=True,
)
def main(folder: Path, source: Path) -> None:
    """Link each of the classes into a new folder."""
    folder.mkdir(parents=True)
    for images in sorted(source.iterdir()):
        n_images = sum(path.is_file() for path in images.rglob("*.png"))
        if n_images >= AT_LEAST:
            (folder / images.name).symlink_to(images.resolve())
            click.echo(f"{images.name}: {n_images}")


if __name__ == "__main__":
    main()
