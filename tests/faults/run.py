"""Faults, as many as one likes: what CI tries in small numbers.

    python tests/faults/run.py damage --n 20000

The figures of large numbers are in benchmarks/RELIABILITY.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import damage  # noqa: E402
import disk  # noqa: E402
import images  # noqa: E402
import kills  # noqa: E402
import memory  # noqa: E402
import pairs  # noqa: E402
import torch  # noqa: E402

FAULTS = {
    "damage": damage.run,
    "kills": kills.run,
    "disk": disk.run,
    "memory": memory.run,
    "pairs": pairs.run,
    "images": images.run,
}


@click.command()
@click.argument("fault", type=click.Choice(list(FAULTS)))
@click.option("--n", default=1000, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", help="One scene.")
@click.option("--show", default=20, show_default=True, help="How many failures are printed.")
def main(fault: str, n: int, seed: int, only: str | None, show: int) -> None:
    """Try a kind of fault, and count how it ends."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    outcomes = FAULTS[fault](n, seed, only)
    for line in outcomes.bad[:show]:
        click.echo(line)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.counts.items()))
    click.echo(f"{fault}: {counts} ({time.perf_counter() - started:.0f} s)")
    sys.exit(bool(outcomes.bad))


if __name__ == "__main__":
    main()
