"""A noise study: LeNet against ResNet-18, with clean and with noisy images, by two strategies.

python examples/noise_study.py [--seeds 5] [--rounds 2] [--steps 60] [--jobs 1] [--out DIR]

Stopped and begun again it goes on where it was. On a processor a run of ResNet-18 takes about a
minute where one of LeNet takes a few seconds: ten seeds take an hour.

What to conclude, of ten seeds and noise 0.3 (in `benchmarks/RESULTS.md`): on average over its
curve ResNet-18 loses 13 points by the noise with random choice and 16 with `margin`, LeNet 8 with
either. On clean images ResNet-18 ends six points above LeNet with random choice, on noisy ones
nothing can be shown at the end, and over the curve it is five to eight points below. `margin` ends
four points above random with LeNet on clean images; with ResNet-18, and on noisy images, no
difference to random could be shown.
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
