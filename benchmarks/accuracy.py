"""Test accuracy of strategies against random, paired by seed.

python benchmarks/accuracy.py --dataset digits --strategies random,margin,badge --seeds 5
python benchmarks/accuracy.py --dataset fashion-mnist --strategies random,margin --seeds 3 \
        --n-init 200 --n-query 200 --n-rounds 8
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from _report import report

import skal

NOTE = (
    "Mean ± standard deviation over seeds, which are paired: the same split, initial set and "
    "training seeds for all strategies. The area is the mean height of the learning curve. So few "
    "seeds show a spread and prove nothing."
)


@click.command()
@click.option("--dataset", required=True)
@click.option("--strategies", default="random,margin,badge", show_default=True)
@click.option("--seeds", default=5, show_default=True)
@click.option("--n-init", default=20, show_default=True)
@click.option("--n-query", default=20, show_default=True)
@click.option("--n-rounds", default=5, show_default=True)
@click.option("--n-pool", type=int, help="Take so many images of the pool, and 3,000 to test on.")
@click.option("--image-size", type=int)
@click.option("--model")
@click.option("--data-dir")
def main(
    dataset: str,
    strategies: str,
    seeds: int,
    n_init: int,
    n_query: int,
    n_rounds: int,
    n_pool: int | None,
    image_size: int | None,
    model: str | None,
    data_dir: str | None,
) -> None:
    """Run every strategy with every seed and report the last round."""
    names = strategies.split(",")
    curves: dict[str, list[list[float]]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(seeds):
        data = skal.load_dataset(dataset, image_size, data_dir, seed)
        data = data if n_pool is None else part_of(data, n_pool, seed)
        for name in names:
            result = skal.run(
                data,
                name,
                n_init=n_init,
                n_query=n_query,
                n_rounds=n_rounds,
                seed=seed,
                model=model,
            )
            accuracy = [row["accuracy"] for row in result.rounds]
            curves[name].append(accuracy)
            seconds[name].append(result.summary["seconds"])
            print(dataset, name, "seed", seed, [round(value, 4) for value in accuracy], flush=True)
    pool = "" if n_pool is None else f", pool of {n_pool:,}"
    report(
        f"{Path(dataset).name}: {n_init} + {n_rounds} x {n_query} labels{pool}, {seeds} seeds",
        [
            "strategy",
            "test accuracy",
            "points above random",
            "area (points above random)",
            "seconds a run",
        ],
        [_row(name, curves, seconds[name]) for name in names],
        NOTE,
    )


def part_of(
    data: skal.ImageDataset, n_pool: int, seed: int, n_test: int = 3000
) -> skal.ImageDataset:
    """Draw a smaller pool and test set."""

    def draw(n_images: int, n: int) -> np.ndarray:
        return np.sort(
            np.random.default_rng(seed).choice(n_images, min(n, n_images), replace=False)
        )

    pool, test = draw(len(data.X), n_pool), draw(len(data.X_test), n_test)
    return skal.ImageDataset(
        data.X[pool],
        data.y[pool],
        data.classes,
        data.X_test[test],
        data.y_test[test],
        name=data.name,
        augmentation=data.augmentation,
    )


def _row(name: str, curves: dict[str, list[list[float]]], seconds: list[float]) -> list[str]:
    last, areas = _ends_and_areas(curves[name])
    gain = of_area = ""
    if name != "random" and "random" in curves:
        random_last, random_areas = _ends_and_areas(curves["random"])
        gain, of_area = _points(last - random_last), f" ({_points(areas - random_areas)})"
    return [
        name,
        f"{last.mean():.4f} ± {_spread(last):.4f}",
        gain,
        f"{areas.mean():.4f}{of_area}",
        f"{np.mean(seconds):.0f}",
    ]


def _ends_and_areas(curves: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    areas = [np.mean(np.convolve(curve, [0.5, 0.5], "valid")) for curve in curves]
    return np.array([curve[-1] for curve in curves]), np.array(areas)


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _points(differences: np.ndarray) -> str:
    return f"{100 * differences.mean():+.2f} ± {100 * _spread(differences):.2f}"


if __name__ == "__main__":
    main()
