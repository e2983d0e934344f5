"""One round of active learning against the plain stack, and pool scoring against a bare loop.

    python benchmarks/round.py

The round: fit on 1,000 labels, score the 60,000 images of Fashion-MNIST, pick 100 by BADGE. The
plain stack is scikit-activeml's SkorchClassifier with skorch's defaults and its Badge, on the same
network and number of steps. The bare loop is inference mode, channels last, bfloat16
and the best of several batch sizes, on the same network.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable

import click
import numpy as np
import skactiveml.pool
import torch
from _report import report
from skactiveml.classifier import SkorchClassifier
from torch import nn

import skal
from skal.models import build_network
from skal.models.devices import resolve_bf16
from skal.strategies import resolve_strategy, select
from skal.strategies.scores import ScoreRequest, score_pool

LABELS, PICKS = 1000, 100
KEPT_BY_SKORCH = LABELS * 4 // 5  # its default train_split validates on a fifth
BUDGETS = {
    # name: epochs, batch size, settings of the plain stack's network
    "skorch's defaults": (10, 128, {}),
    "a training that learns": (25, 64, {"optimizer": torch.optim.AdamW, "lr": 0.001}),
}


def timed(action: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class PlainNetwork(nn.Module):
    """The same network as skal's, on float32 pixels in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build_network(
            "small-cnn", n_classes=10, in_channels=1, image_size=28, dropout=0.25
        )

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network((pixels - 0.5) / 0.25)


def our_round(data: skal.ImageDataset, y: np.ndarray, steps: int, batch: int) -> np.ndarray:
    classifier = skal.ImageClassifier(
        classes=range(10), steps=steps, train_batch_size=batch, random_state=0
    ).fit(data.X, y)
    strategy = resolve_strategy("badge")
    return select(
        strategy,
        y,
        PICKS,
        scores=score_pool(classifier, data.X, ScoreRequest(embeddings=True)),
        seed=0,
    )


def plain_round(
    pixels: np.ndarray, y: np.ndarray, epochs: int, batch: int, settings: dict[str, object]
) -> np.ndarray:
    classifier = SkorchClassifier(
        PlainNetwork,
        classes=list(range(10)),
        missing_label=-1,
        random_state=0,
        forward_outputs={"proba": (0, nn.Softmax(dim=-1)), "emb": (1, None)},
        criterion_output_keys="proba",
        neural_net_param_dict={
            "max_epochs": epochs,
            "batch_size": batch,
            "verbose": 0,
            "iterator_train__shuffle": True,
            **settings,
        },
    ).fit(pixels, y)
    strategy = skactiveml.pool.Badge(
        clf_embedding_flag_name={"extra_outputs": "emb"}, missing_label=-1, random_state=0
    )
    return strategy.query(pixels, y, clf=classifier, fit_clf=False, batch_size=PICKS)


def bare_pass(network: nn.Module, X: np.ndarray, batch: int, bf16: bool) -> None:
    outputs = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for start in range(0, len(X), batch):
            pixels = torch.from_numpy(np.array(X[start : start + batch]))
            pixels = pixels.to(torch.float32, memory_format=torch.channels_last).div_(255)
            logits, embeddings = network(pixels.sub_(0.5).div_(0.25))
            outputs.append((logits.float().softmax(-1), embeddings.float()))
    for part in zip(*outputs, strict=True):
        torch.cat(part).numpy()


@click.command()
@click.option("--data-dir")
@click.option("--repeats", default=3, show_default=True)
def main(data_dir: str | None, repeats: int) -> None:
    """Time both, in turn, in this process."""
    data = skal.load_dataset("fashion-mnist", data_dir=data_dir)
    y = np.full(len(data.y), -1)
    labeled = np.random.default_rng(0).choice(len(y), LABELS, replace=False)
    y[labeled] = data.y[labeled]
    pixels = data.X.astype(np.float32) / 255

    classifier = skal.ImageClassifier(classes=range(10), steps=20, random_state=0).fit(data.X, y)
    bf16 = resolve_bf16("auto", "cpu")
    network = classifier.neural_net_.module_.network.eval()
    sizes = {
        batch: min(timed(lambda b=batch: bare_pass(network, data.X, b, bf16)) for _ in range(2))
        for batch in (64, 128, 256, 512, 1024)
    }
    best = min(sizes, key=lambda batch: sizes[batch])
    ratios, bare, ours = [], [], []
    for _ in range(2 * repeats):
        bare.append(timed(lambda: bare_pass(network, data.X, best, bf16)))
        ours.append(timed(lambda: score_pool(classifier, data.X, ScoreRequest(embeddings=True))))
        ratios.append(bare[-1] / ours[-1])
    report(
        "Pool scoring against a bare torch loop (60,000 images, small-cnn)",
        ["loop", "images a second", "of the bare loop"],
        [
            [f"bare, batch {best} (best of {', '.join(map(str, sizes))})", _rate(bare), ""],
            ["skal.strategies.scores.score_pool", _rate(ours), f"{np.median(ratios):.2f}"],
        ],
        f"Medians of {2 * repeats} passes in turn; the ratio is the median of pairs, from "
        f"{min(ratios):.2f} to {max(ratios):.2f}. Both return probabilities and embeddings of all "
        f"images as float32 arrays; bf16 is {'on' if bf16 else 'off'} in both.",
    )

    rows = []
    for name, budget in BUDGETS.items():
        epochs, batch, _ = budget
        steps = epochs * -(-KEPT_BY_SKORCH // batch)
        plain, mine = [], []
        for _ in range(repeats):
            plain.append(timed(lambda: plain_round(pixels, y, *budget)))  # noqa: B023
            mine.append(timed(lambda: our_round(data, y, steps, batch)))  # noqa: B023
            print(f"{name}: plain {plain[-1]:.1f} s, skal {mine[-1]:.1f} s", flush=True)
        ratios = [a / b for a, b in zip(plain, mine, strict=True)]
        rows.append(
            [
                f"{name}: {steps} steps of {batch}",
                _median(plain),
                _median(mine),
                f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
            ]
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report(
        "One round on Fashion-MNIST against the plain stack",
        ["network's training", "plain stack, seconds", "skal, seconds", "times faster"],
        rows,
        f"Fit on {LABELS} labels, score 60,000 images, pick {PICKS} by BADGE. The plain stack is "
        "SkorchClassifier with skorch's defaults and skactiveml.pool.Badge, on the same network "
        f"and as many steps. Medians of {repeats} rounds in turn; the ratio is the median of "
        f"pairs. Peak memory of the process with both: {peak:.1f} GiB.",
    )


def _rate(seconds: list[float]) -> str:
    return f"{60_000 / np.median(seconds):,.0f}"


def _median(seconds: list[float]) -> str:
    return f"{np.median(seconds):.1f}"


if __name__ == "__main__":
    main()
