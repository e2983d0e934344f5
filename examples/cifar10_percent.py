"""CIFAR-10: 10% of the labels at the start, 5% more each round, five strategies, one picture.

python examples/cifar10_percent.py [--seeds 3] [--steps N] [--jobs 1] [--out DIR]

If CIFAR-10 is not in the data folder, the script uses the digits with the same shares. Run it again
to resume a stopped comparison.

What to conclude: read the verdicts. Three seeds can never show that a strategy beats random, so use
ten before you conclude anything. There are no figures for CIFAR-10 here.
"""

import argparse

import skal
from skal.datasets import data_folder

STRATEGIES = ("random", "entropy", "margin", "badge", "bald")
PLACES = ("cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar-10-python.tar.gz")


def choose_dataset() -> str:
    """Return cifar10, if no download is needed for it, else digits."""
    if any((data_folder() / place).exists() for place in PLACES):
        return "cifar10"
    print(f"CIFAR-10 is not in {data_folder()}: the digits take its place")
    return "digits"


def main() -> None:
    """Compare, and print where the plot is."""
    parser = argparse.ArgumentParser(description="Five strategies by shares of a dataset.")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each strategy")
    parser.add_argument("--steps", type=int, help="optimiser steps a round; by default 20 epochs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", help="by default runs/<dataset>-percent")
    args = parser.parse_args()

    dataset = choose_dataset()
    comparison = skal.compare(
        dataset,
        STRATEGIES,
        args.seeds,
        n_init="10%",
        n_query="5%",
        n_rounds=5,
        steps=args.steps,
        jobs=args.jobs,
        out=args.out or f"runs/{dataset}-percent",
    )
    print(comparison.table())
    print(f"\nthe curves: {comparison.folder}/curves.png")


if __name__ == "__main__":
    main()
