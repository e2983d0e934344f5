"""A frozen EfficientNet-Lite0 on a folder of images: embedding, one round, and what is learned.

    apt-get install openclipart-png
    python benchmarks/openclipart.py openclipart
    python benchmarks/frozen.py openclipart
    python benchmarks/frozen.py openclipart --part pass --size 224
    python benchmarks/frozen.py fashion-mnist --part heads

The bare loop is inference mode on the same network and pixels, with the best of several batch
sizes, memory layouts and precisions. The round is a fit of the head on 1,000 labels, the scores of
the whole pool, and 100 picks by BADGE, from the embeddings that are kept. For the heads, images of
a named dataset are enlarged to 112 px by repeating their pixels, and 6,000 of them are taken.
"""

from __future__ import annotations

import gc
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from _report import report

import skal
from skal.models.backbone import Backbone
from skal.models.devices import resolve_bf16
from skal.models.features import features_of
from skal.runs.metrics import evaluate
from skal.strategies import resolve_strategy, select
from skal.strategies.scores import ScoreRequest, score_pool

MODEL = {"model": "efficientnet-lite0", "pretrained": True, "freeze": True}
SIZE, LABELS, PICKS = 112, 1000, 100
N_TIMED, N_TRIED = 768, 128
MOST = 6000
BATCHES = (4, 16, 64)
LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
HEADS = [
    *(("linear", "adamw", lr) for lr in (0.0003, 0.001, 0.003, 0.01, 0.03)),
    *(("mlp", "adamw", lr) for lr in (0.0003, 0.001, 0.003, 0.01)),
    *(("linear", "sgd", lr) for lr in (0.005, 0.02, 0.05)),
]
BUDGET = {"n_init": 50, "n_query": 50, "n_rounds": 5}


def timed(action: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def bare_pass(backbone: Backbone, X: np.ndarray, batch: int, layout: str, bf16: bool) -> None:
    network, memory_format = backbone.module.network.backbone, LAYOUTS[layout]
    network._compiled_call_impl = None  # torch itself
    network.to(memory_format=memory_format)
    features = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for start in range(0, len(X), batch):
            pixels = torch.from_numpy(np.array(X[start : start + batch]))
            pixels = pixels.to(torch.float32, memory_format=memory_format)
            pixels = pixels.sub_(127).div_(128)
            features.append(network(pixels).to(torch.float16))
    torch.cat(features).numpy()


def kept_pass(backbone: Backbone, X: np.ndarray) -> None:
    backbone.module.network.backbone.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        features_of(backbone, X, Path(folder))


def measure_pass(backbone: Backbone, X: np.ndarray, repeats: int) -> None:
    precisions = (False, True) if resolve_bf16("auto", "cpu") else (False,)
    ways = list(itertools.product(BATCHES, LAYOUTS, precisions))
    tried = {way: timed(lambda w=way: bare_pass(backbone, X[:N_TRIED], *w)) for way in ways}
    best = min(tried, key=lambda way: tried[way])
    bare, ours, ratios = [], [], []
    for _ in range(repeats):
        bare.append(timed(lambda: bare_pass(backbone, X, *best)))
        ours.append(timed(lambda: kept_pass(backbone, X)))
        ratios.append(bare[-1] / ours[-1])
        print(f"bare {bare[-1]:.2f} s, skal {ours[-1]:.2f} s", flush=True)
    way = f"batch {best[0]}, {best[1]}, {'bf16' if best[2] else 'fp32'}"
    report(
        f"Embedding against a bare torch loop (EfficientNet-Lite0, {X.shape[-1]} px)",
        ["loop", "images a second", "of the bare loop"],
        [
            [f"bare: {way}", f"{len(X) / np.median(bare):,.0f}", ""],
            ["skal.embed", f"{len(X) / np.median(ours):,.0f}", f"{np.median(ratios):.2f}"],
        ],
        f"Medians of {repeats} passes over {len(X)} images in turn; the ratio is the median of "
        f"pairs, from {min(ratios):.2f} to {max(ratios):.2f}. The bare loop's way is the best of "
        f"{len(ways)} (batches of {', '.join(map(str, BATCHES))}; both layouts; bf16 where the "
        "processor has it). "
        "skal's time includes hashing the images, making the engine, and writing features to the "
        "disk, safely.",
    )


def measure_round(data: skal.ImageDataset, features: np.ndarray, repeats: int) -> None:
    y = np.full(len(data.y), -1)
    labeled = np.random.default_rng(0).choice(len(y), LABELS, replace=False)
    y[labeled] = data.y[labeled]
    strategy, n_classes = resolve_strategy("badge"), len(data.classes)
    parts: dict[str, list[float]] = {"fit": [], "score": [], "pick": [], "all": []}
    for seed in range(repeats + 1):
        classifier = skal.ImageClassifier(**MODEL, classes=range(n_classes), random_state=seed)
        done: dict[str, object] = {}
        seconds = {
            "fit": timed(lambda c=classifier: c.fit(features, y)),
            "score": timed(
                lambda c=classifier, d=done: d.update(
                    s=score_pool(c, features, ScoreRequest(embeddings=True))
                )
            ),
            "pick": timed(lambda d=done, s=seed: select(strategy, y, PICKS, scores=d["s"], seed=s)),
        }
        if seed:  # the first warms up
            for name, value in {**seconds, "all": sum(seconds.values())}.items():
                parts[name].append(value)
    report(
        "One round on a frozen EfficientNet-Lite0",
        ["part", "seconds, median", "slowest"],
        [[name, f"{np.median(v):.2f}", f"{max(v):.2f}"] for name, v in parts.items()],
        f"{len(features)} images of {data.name} at {data.X.shape[-1]} px, {n_classes} classes, "
        f"{features.shape[1]} features as {features.dtype}: the head fitted on {LABELS} labels, "
        f"the pool scored, {PICKS} picks by BADGE. Medians of {repeats} rounds, after the "
        "embeddings are kept.",
    )


def enlarged(images: np.ndarray) -> np.ndarray:
    """Bring some images to the size that is measured at, or nearly, by repeating pixels."""
    if images.shape[2] >= SIZE:
        return images
    factor = SIZE // images.shape[2]
    return images[:MOST].repeat(factor, 2).repeat(factor, 3)


def measure_heads(data: skal.ImageDataset, cache: Path, seeds: int) -> None:
    """Try heads and learning rates on labels drawn at random."""
    first = skal.ImageClassifier(**MODEL, classes=range(len(data.classes)))
    features, features_test = (skal.embed(first, enlarged(X), cache) for X in (data.X, data.X_test))
    budgets, rows = (50, 200, 1000), []
    for head, optimizer, lr in HEADS:
        cells = []
        for n_labels in budgets:
            figures = []
            for seed in range(seeds):
                y = np.full(len(features), -1)
                labeled = np.random.default_rng(seed).choice(len(y), n_labels, replace=False)
                y[labeled] = data.y[labeled]
                options = {"head": head, "optimizer": optimizer, "lr": lr, "random_state": seed}
                classifier = skal.ImageClassifier(
                    **MODEL, classes=range(len(data.classes)), **options
                ).fit(features, y)
                y_test = data.y_test[: len(features_test)]
                metrics = evaluate(y_test, classifier.predict_proba(features_test))
                figures.append([metrics["accuracy"], metrics["nll"]])
            accuracy, nll = np.mean(figures, axis=0)
            cells.append(f"{accuracy:.3f} ({nll:.2f})")
        rows.append([head, optimizer, lr, *cells])
        print(rows[-1], flush=True)
    report(
        f"Heads on a frozen EfficientNet-Lite0: {data.name}",
        ["head", "optimiser", "highest rate", *(f"{n} labels" for n in budgets)],
        rows,
        f"Test accuracy (and NLL, nats), {enlarged(data.X).shape[2]} px, labels drawn at random: "
        f"means of {seeds} seeds. The defaults are 0.003 for AdamW and 0.02 for SGD.",
    )


def measure_learning(folder: str, data_dir: Path | None, seeds: int) -> None:
    networks = {
        f"frozen EfficientNet-Lite0, {SIZE} px": {**MODEL, "image_size": SIZE},
        f"frozen EfficientNet-Lite0, {SIZE} px, mlp": {
            **MODEL,
            "image_size": SIZE,
            "head": "mlp",
        },
        "small-cnn, 48 px": {"model": "small-cnn"},
    }
    shown = (50, 100, 200, 300)
    rows = []
    for (name, options), strategy in itertools.product(networks.items(), ("random", "badge")):
        curves, seconds = [], []
        for seed in range(seeds):
            run = skal.run(folder, strategy, **options, **BUDGET, seed=seed, data_dir=data_dir)
            at = {row["n_labeled"]: row["accuracy"] for row in run.rounds}
            curves.append([at[n] for n in shown])
            seconds.append(run.summary["seconds"])
        mean, spread = np.mean(curves, axis=0), np.std(curves, axis=0, ddof=1)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
        rows.append([name, strategy, *cells, f"{np.mean(seconds):.0f}"])
        print(rows[-1], flush=True)
    report(
        "What a frozen network is worth on openclipart",
        ["network", "strategy", *(f"{n} labels" for n in shown), "seconds a run"],
        rows,
        f"Test accuracy, mean ± standard deviation of {seeds} seeds, which are paired; the "
        "same images are labelled at the start. The seconds of the frozen network's first runs "
        "include embedding. So few seeds show a spread and prove nothing.",
    )


PARTS = ("pass", "round", "heads", "learning")


@click.command()
@click.argument("dataset")
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS)
@click.option("--size", default=SIZE, show_default=True, help="Of the images, for pass and round.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--seeds", default=3, show_default=True)
def main(
    dataset: str,
    data_dir: Path | None,
    parts: tuple[str, ...],
    size: int,
    repeats: int,
    seeds: int,
) -> None:
    """Measure all of it, or parts."""
    is_folder = Path(dataset).is_dir()
    if not is_folder and set(parts) != {"heads"}:
        raise click.UsageError(f"of {dataset!r} only the heads can be measured: --part heads")
    data = skal.load_dataset(dataset, size if is_folder else None, data_dir)
    cache = skal.datasets.data_folder(data_dir) / "cache"
    first = skal.ImageClassifier(**MODEL, classes=range(len(data.classes)))
    if "pass" in parts:
        measure_pass(first.backbone(data.X.shape[1:]), data.X[:N_TIMED], repeats)
    if "round" in parts:
        measure_round(data, skal.embed(first, data.X, cache), repeats)
    if "heads" in parts:
        measure_heads(data, cache, seeds)
    if "learning" in parts:
        measure_learning(dataset, data_dir, seeds)


if __name__ == "__main__":
    main()
