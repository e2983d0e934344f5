"""What comparisons come to, and what a second job saves.

python benchmarks/compare.py efficiency DIR...   label efficiency of finished comparisons
python benchmarks/compare.py jobs                one grid with one job, with two, and with two again
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from _report import report

from skal.comparisons.config import read_config

SECONDS = ("fit_seconds", "score_seconds", "query_seconds")


@click.group()
def main() -> None:
    """Measure comparisons."""


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
def efficiency(folders: Sequence[Path]) -> None:
    """Put what `skal compare` found into RESULTS.md; its command stands in each title."""
    for folder in folders:
        analysis = json.loads((folder / "comparison.json").read_text())
        if len(analysis["groups"]) != 1:
            raise click.UsageError(f"{folder} has several settings; expected one")
        (group,) = analysis["groups"]
        entries = {
            name: analysis["strategies"][label] for name, label in group["strategies"].items()
        }
        report(
            f"Does it beat random? {group['dataset']}, {len(group['seeds'])} seeds",
            [
                "strategy",
                "final accuracy",
                "area",
                "area above random, points",
                "seeds won",
                "p",
                "final accuracy above random, points",
                "p",
                "labels random needs over its own",
            ],
            [row_of(name, entry) for name, entry in entries.items()],
            f"`{command_of(folder)}` made the runs. Mean ± standard deviation over seeds; 95% "
            "bootstrap intervals, which of ten seeds hold the mean in about 90% of cases; exact "
            "Wilcoxon test over pairs, corrected after Holm for all strategies. Last column: for "
            "the accuracy that random ends with, read off the lines between the numbers of labels "
            "that networks were trained with.",
        )


def command_of(folder: Path) -> str:
    """Return the command that makes a comparison again."""
    settings = read_config(folder / "compare.toml")
    grid = settings["compare"]
    told = {
        "dataset": settings["dataset"],
        "strategies": ",".join(grid["strategies"]),
        "seeds": grid["seeds"],
        **{name: settings[name] for name in ("n_init", "n_query", "n_rounds")},
        "threads": grid["threads"],
    }
    flags = (f"--{name.replace('_', '-')} {value}" for name, value in told.items())
    return f"skal compare {' '.join(flags)}"


def row_of(name: str, entry: Mapping[str, Any]) -> list[str]:
    last, difference = entry["accuracy"], entry["difference"]
    row = [name, f"{last['mean']:.4f} ± {last['sd']:.4f}", f"{entry['aulc']['mean']:.4f}"]
    if difference is None:
        return [*row, *[""] * 6]
    area, final = difference["aulc"], difference["accuracy"]
    low, high = 100 * area["low"], 100 * area["high"]
    points = f"{100 * area['mean']:+.2f} ({low:+.2f} to {high:+.2f})"
    saved = "not reached"
    if entry["efficiency"] and entry["efficiency"][-1]["ratio"] is not None:
        end = entry["efficiency"][-1]
        saved = f"{end['ratio']:.2f} ({end['low']:.2f} to {end['high']:.2f})"
    return [
        *row,
        points,
        f"{area['wins']} of {area['n_pairs']}",
        f"{area['p_holm']:.4f}",
        f"{100 * final['mean']:+.2f}",
        f"{final['p_holm']:.4f}",
        saved,
    ]


@main.command()
@click.option("--seeds", default=10, show_default=True)
@click.option("--strategies", default="random,margin,entropy,least-confidence", show_default=True)
def jobs(seeds: int, strategies: str) -> None:
    """Time one grid of 20 + 5 x 20 labels on the digits; each job has its share of the threads."""
    import skal

    names, times, tables = strategies.split(","), [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number, n_jobs in enumerate((1, 2, 2)):
            start = time.perf_counter()
            folder = Path(scratch) / str(number)
            skal.compare("digits", names, seeds, jobs=n_jobs, out=folder)
            times.append(time.perf_counter() - start)
            with (folder / "results.csv").open() as file:
                rows = list(csv.DictReader(file))
            tables.append([{k: v for k, v in row.items() if k not in SECONDS} for row in rows])
    assert tables[1] == tables[2], "the same grid came to something else"
    one, *two = times
    report(
        f"A grid of {len(names)} strategies x {seeds} seeds on the digits",
        ["jobs", "seconds", "times faster"],
        [["1", f"{one:.0f}", ""], *(["2", f"{s:.0f}", f"{one / s:.2f}"] for s in two)],
        "One after the other in one run. The two grids with two jobs have the same results.csv, "
        "but for the seconds. Target: 1.6.",
    )


if __name__ == "__main__":
    main()
