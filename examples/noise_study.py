"""A noise study: LeNet against ResNet-18, with clean and with noisy images, by two strategies.

python examples/noise_study.py [--seeds 5] [--rounds 2] [--steps 60] [--jobs 1] [--out DIR]

Stopped and begun again it goes on where it was. On a processor one training of ResNet-18 takes a
minute or two where one of LeNet takes two seconds: mind the time, or take a GPU.

What to conclude: no figures are given here yet, for ten seeds of ResNet-18 want a GPU. The verdicts
say how far one network loses more by noise than the other, whether `margin` survives it better
than random choice, and "too few seeds" where there are.
"""

import argparse

import skal


def main():
    """Compare, and say where the pictures are."""
    parser = argparse.ArgumentParser(description="Two networks and noise.")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each")
    parser.add_argument("--rounds", type=int, default=2, help="rounds after the first")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps a round")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", default="runs/noise-study", help="where it is kept")
    args = parser.parse_args()

    comparison = skal.compare(
        "digits",
        ["random", "margin"],
        args.seeds,
        models=["lenet", "resnet18"],
        noise_rates=[0, 0.3],
        image_size=8,  # their own size: ResNet-18 takes a minute a run where larger
        n_init=40,
        n_query=40,
        n_rounds=args.rounds,
        steps=args.steps,
        threads=1,
        jobs=args.jobs,
        out=args.out,
    )
    print(comparison.table())
    print(f"\nthe curves: {comparison.folder}/curves.png; against noise: noise.png")


if __name__ == "__main__":
    main()
