"""Faults, as many as one likes: what CI tries in small numbers.

    python tests/faults/run.py damage --n 20000
    python tests/faults/run.py disk --n 100000 --only pretrain --from 1 --to 60

The figures of large numbers are in benchmarks/RELIABILITY.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import damage  # noqa: E402
import disk  # noqa: E402
import images  # noqa: E402
import imports  # noqa: E402
import kills  # noqa: E402
import memory  # noqa: E402
import pairs  # noqa: E402
import torch  # noqa: E402
from damage import Outcomes  # noqa: E402
from preloaded import ALL  # noqa: E402

FAULTS: dict[str, Callable[..., Outcomes]] = {
    "damage": damage.run,
    "kills": kills.run,
    "disk": disk.run,
    "memory": memory.run,
    "pairs": pairs.run,
    "images": images.run,
    "imports": imports.run,
}
NUMBERED = ("disk", "memory")
"""Those whose calls are counted, so that some of these can be tried today and the others later."""


@click.command()
@click.argument("fault", type=click.Choice(list(FAULTS)))
@click.option("--n", default=1000, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", help="One scene.")
@click.option("--from", "first", default=ALL[0], help="The first call that fails.")
@click.option("--to", "last", default=ALL[1], help="The last one.")
@click.option("--show", default=20, show_default=True, help="How many failures are printed.")
def main(fault: str, n: int, seed: int, only: str | None, first: int, last: int, show: int) -> None:
    """Try a kind of fault, and count how it ends."""
    if (first, last) != ALL and fault not in NUMBERED:
        raise click.UsageError(f"--from and --to are of {' and '.join(NUMBERED)}")
    torch.set_num_threads(1)
    started = time.perf_counter()
    of_calls: dict[str, Any] = {"span": (first, last)} if fault in NUMBERED else {}
    outcomes = FAULTS[fault](n, seed, only, **of_calls)
    for line in outcomes.bad[:show]:
        click.echo(line)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.counts.items()))
    click.echo(f"{fault}: {counts} ({time.perf_counter() - started:.0f} s)")
    sys.exit(bool(outcomes.bad))


if __name__ == "__main__":
    main()
