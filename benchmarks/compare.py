"""What comparisons come to, and what a second job saves.

python benchmarks/compare.py efficiency DIR...   label efficiency of finished comparisons
python benchmarks/compare.py jobs                one grid with one job, with two, and with two again
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from _report import report

from skal.results import find_runs, read_result

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
        config = read_result(find_runs([folder])[0]).config
        (group,) = analysis["groups"]
        asked = (
            f"skal compare --dataset {group['dataset']} --strategies "
            f"{','.join(group['strategies'])} --seeds {len(group['seeds'])} --n-init "
            f"{config.n_init} --n-query {config.n_query} --n-rounds {config.n_rounds}"
        )
        rows = []
        for name, label in group["strategies"].items():
            entry = analysis["strategies"][label]
            last = entry["accuracy"]
            row = [name, f"{last['mean']:.4f} ± {last['sd']:.4f}", f"{entry['aulc']['mean']:.4f}"]
            difference, reached = entry["difference"], entry["efficiency"]
            if difference is None:
                rows.append([*row, "", "", "", ""])
                continue
            area, at_end = difference["aulc"], reached[-1]
            rows.append(
                [
                    *row,
                    f"{100 * area['mean']:+.2f} ({100 * area['low']:+.2f} to "
                    f"{100 * area['high']:+.2f})",
                    f"{area['wins']} of {area['n_pairs']}",
                    f"{area['p_holm']:.4f}",
                    "not reached"
                    if at_end["ratio"] is None
                    else f"{at_end['ratio']:.2f} ({at_end['low']:.2f} to {at_end['high']:.2f})",
                ]
            )
        report(
            f"Does it beat random? {group['dataset']}, {len(group['seeds'])} seeds",
            [
                "strategy",
                "final accuracy",
                "area",
                "area above random, points",
                "seeds won",
                "p",
                "labels random needs over its own",
            ],
            rows,
            f"`{asked}` made the runs. Mean ± standard deviation over seeds; 95% bootstrap "
            "intervals; exact Wilcoxon test over pairs, corrected after Holm. Last column: for the "
            "accuracy that random ends with.",
        )


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
