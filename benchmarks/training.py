"""How networks are best trained on few labels: the default, and each option alone.

    python benchmarks/training.py --dataset digits --first FIRST
    python benchmarks/training.py --dataset fashion-mnist --first FIRST --budgets 100,1000
    python benchmarks/training.py --dataset openclipart --only "default,mixup 0.2"
    python benchmarks/training.py --dataset digits --pretrain 250,1000,4000
    python benchmarks/training.py --bare --repeats 5

Labels are drawn at random, each set within the next larger one, and a network is trained on each:
with warm starts from the one before, else anew. The accuracy is that on all test images. Sides
take turns within each seed, in one process; but for the first version, which has its own:
FIRST is a folder with its package, as ``git archive 8052bd6 skal | tar -x -C FIRST`` makes it.

With ``--pretrain`` the networks start from a backbone that was trained for so many steps without
labels, and ``--freeze`` trains their heads alone. With ``--bare`` the time of a training is
compared with that of a loop in torch alone: the same network, optimiser, schedule and precision.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from _report import report

import skal

BUDGETS = "50,200,500,1000"
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "sgd": {"optimizer": "sgd"},
    "warm start": {"warm_start": "on"},
    "warm start, shrink": {"warm_start": "shrink"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "ema": {"average": "ema"},
    "swa": {"average": "swa"},
    "clip norm 1": {"clip_norm": 1.0},
    "balanced": {"balanced": True},
    "mixup 0.2": {"mixup": 0.2},
    "patience 3": {"patience": 3},
    "dropout 0.5": {"dropout": 0.5},
    "unchanged images": {"augmentation": ()},
    "flip": {"augmentation": ("flip",)},
    "shift": {"augmentation": ("shift",)},
    "flip and shift": {"augmentation": ("flip", "shift")},
}
FIRST = "first version"
Curve = Sequence[tuple[float, float]]  # accuracy and seconds, budget by budget


@click.command()
@click.option("--dataset", default="digits", show_default=True)
@click.option("--only", help="Of the options, by name; by default all.")
@click.option("--budgets", default=BUDGETS, show_default=True, help="Numbers of labels.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--first", type=click.Path(exists=True, path_type=Path))
@click.option("--pretrain", help="Steps, one or several: compare with and without.")
@click.option("--image-size", type=int)
@click.option("--data-dir")
@click.option("--bare", is_flag=True, help="Time 1,000 images of 28 px against torch alone.")
@click.option("--repeats", default=5, show_default=True, help="Of --bare.")
@click.option("--worker", type=int, hidden=True, help="Print the curve of one seed as JSON.")
def main(
    dataset: str,
    only: str | None,
    budgets: str,
    seeds: int,
    first: Path | None,
    pretrain: str | None,
    image_size: int | None,
    data_dir: str | None,
    bare: bool,
    repeats: int,
    worker: int | None,
) -> None:
    """Train every side with every seed and report accuracy and seconds."""
    if bare:
        against_bare(repeats)
        return

    labels = [int(n) for n in budgets.split(",")]

    def load(seed: int) -> skal.ImageDataset:
        return skal.load_dataset(dataset, image_size, data_dir, seed)

    if worker is not None:
        print(json.dumps(curve(load(worker), worker, labels, {})))
        return
    sides: dict[str, Callable[[skal.ImageDataset, int], Curve]]
    if pretrain:
        sides = sides_of_pretraining([int(steps) for steps in pretrain.split(",")], labels)
    else:
        names = only.split(",") if only else list(OPTIONS)
        sides = {name: _with(OPTIONS[name], labels) for name in names}
    if first:
        sides = {FIRST: lambda data, seed: of_first_version(first, dataset, budgets, seed), **sides}
    curves: dict[str, list[Curve]] = {name: [] for name in sides}
    for seed in range(seeds):
        data = load(seed)
        for name, side in sides.items():
            curves[name].append(side(data, seed))
            print(seed, name, [f"{a:.4f} {s:.1f}s" for a, s in curves[name][-1]], flush=True)
    about = ", pretrained or not" if pretrain else ""
    report(
        f"Training on few labels{about}: {Path(dataset).name}, {seeds} seeds",
        ["training", *(f"{n} labels" for n in labels), "seconds, all", f"at {labels[-1]}"],
        [_row(name, np.array(curves[name]), np.array(curves[next(iter(sides))])) for name in sides],
        "Test accuracy, mean ± standard deviation over seeds, which share split and labels; in "
        "brackets the points above the first row's at the most labels, in pairs. Seconds of the "
        "trainings alone, the mean: of all together, and of the last."
        + (" The pretraining's are not among them." if pretrain else ""),
    )


def _with(
    options: Mapping[str, Any], budgets: Sequence[int]
) -> Callable[[skal.ImageDataset, int], Curve]:
    return lambda data, seed: curve(data, seed, budgets, options)


def curve(
    data: skal.ImageDataset, seed: int, budgets: Sequence[int], options: Mapping[str, Any]
) -> Curve:
    """Train on more and more labels; return accuracies and seconds."""
    order = np.random.default_rng(seed).permutation(len(data.X))
    classifier: skal.ImageClassifier | None = None
    warm_up(data)
    points = []
    for n in budgets:
        y = np.full(len(data.y), -1)
        y[order[:n]] = data.y[order[:n]]
        if classifier is None or not options.get("warm_start"):
            settings = {"augmentation": data.augmentation, **options}
            classifier = skal.ImageClassifier(classes=range(len(data.classes)), **settings)
        classifier.set_params(random_state=1000 * seed + n)
        start = time.perf_counter()
        classifier.fit(data.X, y)
        seconds = time.perf_counter() - start
        accuracy = float((classifier.predict(data.X_test) == data.y_test).mean())
        points.append((accuracy, seconds))
    return points


def warm_up(data: skal.ImageDataset) -> None:
    """Let a process have its first training, which is slower, before one is timed."""
    y = np.where(np.arange(len(data.y)) < 64, data.y, -1)
    skal.ImageClassifier(classes=range(len(data.classes)), steps=10).fit(data.X, y)


def of_first_version(folder: Path, dataset: str, budgets: str, seed: int) -> Curve:
    """Let a process of its own run what the first version does by default."""
    command = [sys.executable, __file__, "--dataset", dataset, "--budgets", budgets]
    command += ["--worker", str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    points: Curve = json.loads(done.stdout.splitlines()[-1])
    return points


def sides_of_pretraining(
    all_steps: Sequence[int], budgets: Sequence[int]
) -> dict[str, Callable[[skal.ImageDataset, int], Curve]]:
    """Return the sides that start from nothing and from pretrained backbones."""
    from skal.models.devices import Device
    from skal.models.self_supervision import SimCLR, pretrain

    known: dict[tuple[int, int], Any] = {}

    def weights(data: skal.ImageDataset, seed: int, steps: int) -> Any:
        if (seed, steps) not in known:
            start = time.perf_counter()
            plan = SimCLR("small-cnn", steps, seed, flip="flip" in data.augmentation)
            known[seed, steps] = pretrain(plan, [data.X], Device.resolve("cpu", "auto"))
            seconds = time.perf_counter() - start
            losses = known[seed, steps].losses
            print(f"{steps} steps: {seconds:.0f} s, loss {losses[0]:.3f} to {losses[-1]:.3f}")
        return known[seed, steps].weights

    sides = {"from nothing": _with({}, budgets)}
    for steps in all_steps:
        for name, options in (
            ("trained on", {}),
            ("frozen", {"freeze": True}),
        ):
            sides[f"simclr, {steps} steps, {name}"] = lambda data, seed, s=steps, o=options: curve(
                data, seed, budgets, {**o, "weights": weights(data, seed, s)}
            )
    return sides


def against_bare(repeats: int, steps: int = 100, size: int = 28) -> None:
    """Compare a fit with a loop of bare torch on random images."""
    from skal.models.devices import Device

    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (1000, 1, size, size), np.uint8), rng.integers(0, 10, 1000)
    bf16 = Device.resolve("cpu", "auto").bf16
    options: dict[str, Any] = {"augmentation": (), "steps": steps, "device": "cpu"}
    fit = lambda: skal.ImageClassifier(classes=range(10), **options).fit(X, y)  # noqa: E731
    taken = []
    for _ in range(repeats + 1):
        taken.append([_cpu_seconds(lambda: bare_loop(X, y, steps, bf16)), _cpu_seconds(fit)])
        print(taken[-1], flush=True)
    times = np.array(taken[1:])
    least, ratios = times.min(axis=0), times[:, 1] / times[:, 0]
    report(
        f"Training small-cnn on 1,000 images of {size} px against a bare torch loop",
        ["", "processor's milliseconds a step"],
        [
            ["bare torch", f"{1000 * least[0] / steps:.1f}"],
            ["skal, all of a fit", f"{1000 * least[1] / steps:.1f}"],
            ["ratio", f"{least[1] / least[0]:.3f} ({ratios.min():.3f} to {ratios.max():.3f})"],
        ],
        f"{steps} steps of 64 images, {'bf16' if bf16 else 'float32'} (what skal takes on this "
        f"processor), fused AdamW, one cycle; the best of {repeats}, in turn. Target: 1.05.",
    )


def bare_loop(X: np.ndarray, y: np.ndarray, steps: int, bf16: bool) -> None:
    """Train as skal does by default, without augmentation."""
    import torch
    from torch.nn.functional import cross_entropy

    from skal.models.build import build_network

    of = skal.ImageClassifier(classes=range(10))
    net: Any = build_network(
        "small-cnn", n_classes=10, in_channels=1, image_size=X.shape[2], dropout=of.dropout
    )
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=steps + 1)
    images, labels, left = torch.from_numpy(X), torch.from_numpy(y), torch.empty(0, dtype=int)
    for _ in range(steps):
        if len(left) < of.train_batch_size:
            left = torch.cat([left, torch.randperm(len(y))])
        rows, left = left[: of.train_batch_size], left[of.train_batch_size :]
        pixels = images[rows].to(torch.float32, memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits, _ = net(pixels.div_(255).sub_(0.5).div_(0.25))
        cross_entropy(logits.float(), labels[rows]).backward()
        optimizer.step()
        schedule.step()


def _cpu_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _row(name: str, points: np.ndarray, base: np.ndarray) -> list[str]:
    accuracy, seconds = points[..., 0], points[..., 1]
    cells = [
        f"{mean:.4f} ± {spread:.4f}"
        for mean, spread in zip(accuracy.mean(0), accuracy.std(0, ddof=1), strict=True)
    ]
    gains = 100 * (accuracy[:, -1] - base[:, -1, 0])
    cells[-1] += f" ({gains.mean():+.2f})" if gains.any() else ""
    return [name, *cells, f"{seconds.sum(1).mean():.1f}", f"{seconds[:, -1].mean():.1f}"]


if __name__ == "__main__":
    main()
