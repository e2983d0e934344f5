"""Query strategies against the packages that have them too: seconds, memory, and what is picked.

    python benchmarks/strategies.py --only badge --only bald
    python benchmarks/strategies.py --small

skal is asked as a user would ask it, by `select`. Every run has a fresh process to itself, which
has asked once for a few images before, so that imports do not count; its memory is the highest
resident set (Linux) above what it was with the inputs in place. The two sides run in turn.

The pools are made up: embeddings in clusters that overlap, behind a ReLU, and probabilities by a
random linear head. baal is measured where it is installed, `pip install baal`.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import psutil
import skactiveml.pool
import torch
from _report import report
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.preprocessing import normalize
from torch import nn

import skal
from skal.strategies import resolve_strategy, select
from skal.strategies.scores import ScoredClassifier, ScoreRequest, Scores, score_pool
from skal.strategies.uncertainty import margin
from skal.strategies.uncertainty_herding import adaptive_radius

SAMPLES = 50  # of Monte-Carlo dropout
LATENT = 32  # a network's embeddings have far fewer degrees of freedom than features
CLUSTERS_PER_CLASS = 5
BATCHES = (16, 64, 256)  # that baal is tried with
READS = 20
RADIUS = 0.5874  # that probcover finds for the embeddings made up here
MIB = 2**20

Picks = NDArray[np.int64]
Action = Callable[[Any], Any]


@dataclass(frozen=True)
class Size:
    """Of a pool, and of what is asked for."""

    n: int
    picks: int
    classes: int = 10
    features: int = 512
    labeled: int = 100

    def __str__(self) -> str:
        return f"n={self.n:,}, C={self.classes:,}, D={self.features}, b={self.picks:,}"

    @property
    def embeddings(self) -> int:
        """Bytes of the embeddings."""
        return 4 * self.n * self.features

    def tenth(self) -> Size:
        return replace(self, n=self.n // 10, picks=self.picks // 10, labeled=self.labeled // 10)

    def handful(self) -> Size:
        return replace(self, n=256, picks=min(self.picks, 4), labeled=min(self.labeled, 20))


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    small: bool
    repeats: int
    keep: bool
    other: Path | None = None
    """The checkout of another build, to compare with."""

    @property
    def devices(self) -> list[str]:
        return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

    @property
    def same(self) -> list[str]:
        """Return the head of the column that says whether a GPU picks as the CPU does, if any."""
        return ["same picks as cpu"] if len(self.devices) > 1 else []

    def same_as_on_cpu(self, side: str, runs: Mapping[str, Sequence[Outcome]]) -> list[str]:
        """Return the cell of that column, if there is one; only skal on a GPU has one to fill."""
        ours = {_side(device) for device in self.devices} - {_side("cpu")}
        return [_same(runs[side], runs[_side("cpu")]) if side in ours else "" for _ in self.same]

    @property
    def how(self) -> str:
        """Say how the figures came about."""
        if self.repeats == 1:
            return "One run."
        return (
            f"Medians of {self.repeats} runs in turn; a ratio is the median of pairs (lowest to "
            "highest). Peaks are the highest."
        )

    def everywhere(self, action: Action) -> dict[str, tuple[Action, str]]:
        """Return the sides of skal: one for every device."""
        return {_side(device): (action, device) for device in self.devices}

    def size(self, *args: int, **kwargs: int) -> Size:
        size = Size(*args, **kwargs)
        return size.tenth() if self.small else size

    def report(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        note: str,
        runs: Iterable[Sequence[Outcome]],
    ) -> None:
        others = max(outcome.others for outcomes in runs for outcome in outcomes)
        note += f" Other processes took at most {max(others, 0):.0%} of the processors' time."
        report(title, columns, rows, note, keep=self.keep)


class Pool(NamedTuple):
    """What a strategy is asked with."""

    scores: Scores
    y: Picks
    size: Size


class Images(NamedTuple):
    """What a network is asked with."""

    classifier: skal.ImageClassifier
    X: NDArray[np.uint8]
    y: Picks
    size: Size


Prepare = Callable[["Size", str], Any]


class Outcome(NamedTuple):
    """Of one run."""

    result: Any
    seconds: float
    peak: int
    others: float
    """Share of the processors' time that other processes took meanwhile."""
    notices: Sequence[str]
    used: float
    """Seconds of all processors."""


def made_up_pool(size: Size, device: str = "cpu") -> Pool:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    centres = normal(CLUSTERS_PER_CLASS * size.classes, LATENT)
    latent = centres[rng.integers(len(centres), size=size.n)] + 0.7 * normal(size.n, LATENT)
    embeddings = latent @ normal(LATENT, size.features) / np.float32(LATENT**0.5)
    embeddings += 0.1 * normal(*embeddings.shape)
    np.maximum(embeddings, 0, out=embeddings)
    proba = (embeddings - embeddings.mean(axis=0)) @ normal(size.features, size.classes)
    proba *= 3 / proba.std()  # as sure as a network that was trained a little
    proba -= proba.max(axis=1, keepdims=True)
    np.exp(proba, out=proba)
    proba /= proba.sum(axis=1, keepdims=True)
    return Pool(
        Scores(np.arange(size.classes), proba, embeddings, device=device), some_labels(size), size
    )


def made_up_images(size: Size, device: str = "cpu") -> Images:
    """Mosaics of 32 px, and ResNet-18 after two steps."""
    tiles = np.random.default_rng(0).integers(256, size=(size.n, 3, 4, 4), dtype=np.uint8)
    X, y = tiles.repeat(8, axis=2).repeat(8, axis=3), some_labels(size)
    classifier = skal.ImageClassifier(
        "resnet18", classes=range(size.classes), steps=2, device=device, random_state=0
    )
    return Images(classifier.fit(X, y), X, y, size)


def some_labels(size: Size) -> Picks:
    y = np.full(size.n, -1)
    chosen = np.random.default_rng(1).choice(size.n, size.labeled, replace=False)
    y[chosen] = np.arange(size.labeled) % size.classes
    return y


def measure(
    prepare: Prepare, actions: Sequence[Action], size: Size, device: str = "cpu"
) -> list[Outcome]:
    """Carry out actions one after the other in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        outcomes = process.submit(_measure, prepare, actions, size, device).result()
    for outcome in outcomes:
        click.echo(f"  {outcome.seconds:.2f} s, {outcome.peak / MIB:.0f} MiB ({device})", err=True)
    return outcomes


def _measure(prepare: Prepare, actions: Sequence[Action], size: Size, device: str) -> list[Outcome]:
    few = prepare(size.handful(), device)
    for action in actions:
        action(few)
    inputs, outcomes = prepare(size, device), []
    for action in actions:
        with _noticing() as notices:
            before, busy = _forget_peak(), _busy_with_others()
            start, used = time.perf_counter(), time.process_time()
            result = action(inputs)
            seconds, used = time.perf_counter() - start, time.process_time() - used
            peak = _memory("VmHWM") - before
            others = (_busy_with_others() - busy) / (seconds * psutil.cpu_count())
            outcomes.append(Outcome(result, seconds, peak, others, notices, used))
    return outcomes


def _forget_peak() -> int:
    """Start the count of the highest resident set anew; return the present one."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _busy_with_others() -> float:
    """Return the seconds that all processors have worked for other processes, from any start."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.steal - time.process_time()


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if name in line)


@contextmanager
def _noticing() -> Iterator[list[str]]:
    """Gather what skal tells its user."""
    notices: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notices.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("skal")
    logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notices
    notices += [str(warning.message) for warning in caught]
    logger.removeHandler(handler)


# The sides. Each takes what was prepared and returns the picks.


def ask_skal(name: str, pool: Pool) -> Picks:
    return select(
        resolve_strategy(name),
        pool.y,
        pool.size.picks,
        scores=pool.scores,
        seed=0,
    )


def ask_their_badge(pool: Pool) -> Picks:
    strategy = skactiveml.pool.Badge(
        clf_embedding_flag_name={"extra_outputs": "emb"}, missing_label=-1, random_state=0
    )
    rows = np.arange(pool.size.n)[:, None]
    classifier = ScoredClassifier(pool.scores)
    return strategy.query(rows, pool.y, classifier, fit_clf=False, batch_size=pool.size.picks)


def ask_their_core_set(pool: Pool) -> Picks:
    strategy = skactiveml.pool.CoreSet(missing_label=-1, random_state=0)
    return strategy.query(pool.scores.embeddings, pool.y, batch_size=pool.size.picks)


def ask_their_typiclust(pool: Pool) -> Picks:
    strategy = skactiveml.pool.TypiClust(
        cluster_algo_dict={"random_state": 0}, missing_label=-1, random_state=0
    )
    points = normalize(pool.scores.embeddings)  # as skal does, after the paper's authors
    return strategy.query(points, pool.y, batch_size=pool.size.picks)


def ask_their_clue(pool: Pool) -> Picks:
    strategy = skactiveml.pool.Clue(
        predict_dict={"extra_outputs": "emb"},
        cluster_algo_dict={"random_state": 0},
        missing_label=-1,
        random_state=0,
    )
    rows = np.arange(pool.size.n)[:, None]
    estimator = ScoredClassifier(pool.scores)
    return strategy.query(rows, pool.y, estimator, fit_estimator=False, batch_size=pool.size.picks)


def one_pass(images: Images) -> NDArray[np.float32]:
    return score_pool(images.classifier, images.X).proba


def ask_skal_bald(images: Images) -> Picks:
    strategy = resolve_strategy("bald", {"n_samples": SAMPLES})
    scores = score_pool(
        images.classifier,
        images.X,
        ScoreRequest(strategy.needs_embeddings, strategy.n_samples),
        random_state=0,
    )
    size = images.size
    return select(strategy, images.y, size.picks, scores=scores, seed=0)


class Logits(nn.Module):
    """The network on pixels that are prepared already, with one output, as baal wants it."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.network, self.bf16 = copy.deepcopy(module.network), module.bf16

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            logits, _ = self.network(pixels)
        return logits.float()


def ask_baal_bald(batch: int, images: Images) -> Picks:
    """BALD as baal's MCCachingModule has it: what comes before dropout is looked up.

    The pixels are prepared by whole batches, once and not for every sample.
    """
    import structlog
    from baal.active.heuristics import BALD
    from baal.bayesian.caching_utils import MCCachingModule
    from baal.bayesian.dropout import MCDropoutModule
    from baal.modelwrapper import ModelWrapper, TrainingArgs

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    module = images.classifier.neural_net_.module_.eval()
    device = images.classifier.neural_net_.device
    rows = np.flatnonzero(images.y == -1)

    def prepared(numbers: list[int]) -> tuple[torch.Tensor]:
        return (module.prepare(torch.from_numpy(images.X[rows[numbers]]).to(device)),)

    wrapper = ModelWrapper(
        MCCachingModule(MCDropoutModule(Logits(module))),
        TrainingArgs(
            batch_size=batch,
            workers=0,
            collate_fn=prepared,
            use_cuda=device == "cuda",
            replicate_in_memory=False,  # as its caching wants it
        ),
    )
    with torch.inference_mode():
        predictions = wrapper.predict_on_dataset(range(len(rows)), SAMPLES, verbose=False)
    return rows[BALD()(predictions)[: images.size.picks]]


def fastest_read(pool: Pool) -> float:
    """Return the seconds that one read of the embeddings takes, in the fastest way found."""
    values = torch.from_numpy(pool.scores.embeddings).to(pool.scores.device)
    row = values[0].clone()
    ways: list[Callable[[], object]] = [lambda: values.sum(), lambda: values @ row]
    if pool.scores.device == "cpu":
        array, line = values.numpy(), row.numpy()
        ways += [lambda: array @ line, lambda: values.view(-1) @ values.view(-1)]
    return min(_seconds(way, values.is_cuda) for way in ways for _ in range(READS))


def _seconds(action: Callable[[], object], cuda: bool) -> float:
    start = time.perf_counter()
    action()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


# The benchmarks, by what the command line calls them.


def badge(settings: Settings) -> None:
    size = settings.size(20_000, 50)
    sides = settings.everywhere(partial(ask_skal, "badge"))
    sides["scikit-activeml"] = ask_their_badge, "cpu"
    runs = in_turn(settings.repeats, made_up_pool, sides, size)
    settings.report(
        f"BADGE against scikit-activeml's ({size})",
        ["side", "seconds", "times faster", "peak, MiB", "of the embeddings", *settings.same],
        [
            [
                side,
                *_seconds_and_ratio(runs, side, "scikit-activeml"),
                _peak(outcomes),
                f"{max(outcome.peak for outcome in outcomes) / size.embeddings:.1f}",
                *settings.same_as_on_cpu(side, runs),
            ]
            for side, outcomes in runs.items()
        ],
        f"Targets: 40 times faster, 3 times the embeddings. {settings.how}",
        runs.values(),
    )


def badge_large_batch(settings: Settings) -> None:
    size, rows, every = settings.size(50_000, 2_000), [], []
    actions = [fastest_read, partial(ask_skal, "badge"), fastest_read]
    for device in settings.devices:
        runs = [measure(made_up_pool, actions, size, device) for _ in range(settings.repeats)]
        read = min(run.result for before, _, after in runs for run in (before, after))
        asked = [run for _, run, _ in runs]
        every.append(asked)
        seconds = np.array([run.seconds for run in asked])
        rows.append(
            [
                _place(device),
                f"{np.median(seconds):.2f}",
                f"{1000 * np.median(seconds) / size.picks:.2f}",
                f"{1000 * read:.2f} ({size.embeddings / read / 1e9:.1f} GB/s)",
                _spread(seconds / size.picks / read),
                _peak(asked),
                *settings.same_as_on_cpu(
                    _side(device), {_side("cpu"): every[0], _side(device): asked}
                ),
            ]
        )
    settings.report(
        f"BADGE in a large batch ({size})",
        [
            *("skal on", "seconds", "ms a pick", "ms one read", "reads a pick", "peak, MiB"),
            *settings.same,
        ],
        rows,
        f"One read of the float32 embeddings is the fastest of {READS} sums, dot products and "
        "products with a vector, by torch and by numpy, with all threads, before and after, in "
        f"the same process. Target: 2 reads a pick. {settings.how}",
        every,
    )


def badge_many_classes(settings: Settings) -> None:
    size = settings.size(100_000, 1_000, classes=1_000, features=768)
    runs = in_turn(1, made_up_pool, settings.everywhere(partial(ask_skal, "badge")), size)
    inputs = size.embeddings + 4 * size.n * size.classes
    settings.report(
        f"BADGE with many classes ({size})",
        ["side", "seconds", "peak, MiB", *settings.same],
        [
            [
                side,
                f"{outcomes[0].seconds:.1f}",
                _peak(outcomes),
                *settings.same_as_on_cpu(side, runs),
            ]
            for side, outcomes in runs.items()
        ],
        f"The peak is above the embeddings and probabilities, {inputs / MIB:,.0f} MiB. Target: "
        "2,048 MiB. One run.",
        runs.values(),
    )


def bald(settings: Settings) -> None:
    size, rows, every = settings.size(10_000, 100), [], []
    for device in settings.devices:
        sides = {"one pass": (one_pass, device), "with samples": (ask_skal_bald, device)}
        runs = in_turn(settings.repeats, made_up_images, sides, size)
        every += runs.values()
        ratio = _ratio(runs["with samples"], runs["one pass"])
        rows += [
            [side, _place(device), _median(outcomes), again, _peak(outcomes)]
            for (side, outcomes), again in zip(runs.items(), ("", ratio), strict=True)
        ]
    settings.report(
        f"BALD against one scoring pass (resnet18, {size.n:,} images of 32 px)",
        ["scores", "on", "seconds", "of one pass", "peak, MiB"],
        rows,
        f"{SAMPLES} samples of dropout, and {size.picks} picks by them, against probabilities "
        f"alone. Target: 1.3. {settings.how}",
        every,
    )


def bald_baal(settings: Settings) -> None:
    if find_spec("baal") is None:
        click.echo("baal is not installed")
        return
    size, rows, every = settings.size(10_000, 100), [], []
    theirs = f"baal {version('baal')}"
    for device in settings.devices:
        batch = _fastest_batch(size, device)
        sides = {
            "skal": (ask_skal_bald, device),
            f"{theirs}, batch {batch}": (partial(ask_baal_bald, batch), device),
        }
        runs = in_turn(settings.repeats, made_up_images, sides, size)
        every += runs.values()
        ours, others = runs.values()
        rows += [
            [side, _place(device), _median(outcomes), ratio, _peak(outcomes), same]
            for (side, outcomes), ratio, same in zip(
                runs.items(), (_ratio(others, ours), ""), (_same(ours, others), ""), strict=True
            )
        ]
    bf16 = skal.models.devices.resolve_bf16("auto", settings.devices[-1])
    settings.report(
        f"BALD against {theirs} (resnet18, {size.n:,} images of 32 px, {SAMPLES} samples)",
        ["side", "on", "seconds", "times faster", "peak, MiB", "same picks"],
        rows,
        "Scores and picks. baal: MCDropoutModule in MCCachingModule, evaluation and inference "
        "mode, channels last, pixels prepared by whole batches, the fastest batch of "
        f"{', '.join(map(str, BATCHES))} on a tenth of the images; bf16 is "
        f"{'on' if bf16 else 'off'} in both. baal draws a mask for every image, skal one for all, "
        f"so that the picks differ. Target: 5 times faster. {settings.how}",
        every,
    )


def _fastest_batch(size: Size, device: str) -> int:
    seconds = {
        batch: measure(made_up_images, [partial(ask_baal_bald, batch)], size.tenth(), device)
        for batch in BATCHES
    }
    return min(BATCHES, key=lambda batch: seconds[batch][0].seconds)


class Peer(NamedTuple):
    """A class of scikit-activeml that does as a strategy of skal."""

    name: str
    action: Action
    keeps_labeled: bool
    """Whether what is labelled already counts as picked."""
    unit_length: bool
    """Whether distances are those of embeddings of unit length."""


PEERS = {
    "clue": Peer("Clue", ask_their_clue, keeps_labeled=False, unit_length=False),
    "core-set": Peer("CoreSet", ask_their_core_set, keeps_labeled=True, unit_length=False),
    "typiclust": Peer("TypiClust", ask_their_typiclust, keeps_labeled=True, unit_length=True),
    "k-means": Peer("Clue", ask_their_clue, keeps_labeled=False, unit_length=False),
}


def geometry(settings: Settings) -> None:
    size, rows, every = settings.size(50_000, 100), [], []
    pool = made_up_pool(size)
    for name, peer in PEERS.items():
        sides = settings.everywhere(partial(ask_skal, name))
        theirs = f"scikit-activeml's {peer.name}"
        sides[theirs] = peer.action, "cpu"
        runs = in_turn(settings.repeats, made_up_pool, sides, size)
        every += runs.values()
        rows += [
            [
                name,
                side,
                *_seconds_and_ratio(runs, side, theirs),
                _peak(outcomes),
                "" if side == theirs else _same(outcomes, runs[theirs]),
                *settings.same_as_on_cpu(side, runs),
                *_distances(pool, outcomes[0].result, peer),
            ]
            for side, outcomes in runs.items()
        ]
    settings.report(
        f"Strategies of geometry against scikit-activeml's ({size})",
        [
            *("strategy", "side", "seconds", "times faster", "peak, MiB", "same picks as theirs"),
            *settings.same,
            *("mean distance", "farthest"),
        ],
        rows,
        f"The distances are of all images to the nearest pick, or, but for k-means, to the nearest "
        f"of the {size.labeled} labelled (of unit length for typiclust, which clusters them so): "
        "the shorter, the better; core-set is after the farthest, the others after the mean. "
        "scikit-activeml has no strategy called k-means; its Clue is k-means with the images "
        "weighted by their uncertainty. Targets: not slower; 5 times faster where theirs computes "
        f"distances anew. {settings.how}",
        every,
    )


@contextmanager
def build(place: Path | None) -> Iterator[None]:
    """Have processes that start meanwhile import skal from another checkout."""
    before = sys.path.copy()  # which a process that is spawned takes over
    if place is not None:
        sys.path.insert(0, str(place))
    yield
    sys.path[:] = before


def dense(settings: Settings) -> None:
    size, rows, every = settings.size(50_000, 100), [], []
    pool = made_up_pool(size)
    for name in ("max-herding", "uncertainty-herding", "probcover"):
        runs: dict[str, list[Outcome]] = {}
        if settings.other is not None:
            with build(settings.other):
                runs = in_turn(1, made_up_pool, {"before": (partial(ask_skal, name), "cpu")}, size)
        runs |= in_turn(
            settings.repeats, made_up_pool, settings.everywhere(partial(ask_skal, name)), size
        )
        every += runs.values()
        for side, outcomes in runs.items():
            best = min(outcomes, key=lambda run: run.seconds)
            rows.append(
                [
                    name,
                    side,
                    f"{best.seconds:.1f}",
                    f"{best.used:.1f}",
                    _peak(outcomes),
                    *(f"{value:.4f}" for value in covered(pool, best.result, name)),
                    ""
                    if side == "before" or "before" not in runs
                    else _same(outcomes, runs["before"]),
                    *settings.same_as_on_cpu(side, runs),
                    "; ".join(best.notices),
                ]
            )
    settings.report(
        f"Strategies that compare all images with all ({size})",
        [
            *("strategy", "side", "seconds", "of processors", "peak, MiB", "covered"),
            *("same picks as the first", *settings.same, "notice"),
        ],
        rows,
        f"All distances of the pool would take {4 * size.n**2 / MIB:,.0f} MiB in float32. Covered "
        "is the mean over all images of what the strategy raises: how much an image is like the "
        "nearest labelled or picked one, for uncertainty-herding weighted by its uncertainty and "
        "at the radius that 100 labels give; for probcover the share within the radius that it "
        f"found, {RADIUS}. The best of {settings.repeats}; before, one run.",
        every,
    )


def covered(pool: Pool, picks: Picks, name: str) -> list[float]:
    """Return the coverage of the whole pool by what is labelled and picked."""
    points = normalize(pool.scores.embeddings)
    known = np.flatnonzero(pool.y != -1)
    nearest = pairwise_distances_argmin_min(points, points[np.union1d(picks, known)])[1]
    if name == "probcover":
        return [float((nearest <= RADIUS).mean())]
    if name == "max-herding":
        return [float(np.exp(-(nearest**2)).mean())]
    radius = adaptive_radius(torch.from_numpy(points[known]))
    weights = margin(pool.scores.proba)
    return [float(np.average(np.exp(-((nearest / radius) ** 2)), weights=weights))]


def in_turn(
    repeats: int, prepare: Prepare, sides: Mapping[str, tuple[Action, str]], size: Size
) -> dict[str, list[Outcome]]:
    """Run all sides in turn, several times, each in a fresh process."""
    runs: dict[str, list[Outcome]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, (action, device) in sides.items():
            runs[side] += measure(prepare, [action], size, device)
    return runs


def _seconds_and_ratio(
    runs: Mapping[str, list[Outcome]], side: str, theirs: str
) -> tuple[str, str]:
    ratio = "" if side == theirs else _ratio(runs[theirs], runs[side])
    return _median(runs[side]), ratio


def _median(outcomes: Sequence[Outcome]) -> str:
    return f"{np.median([outcome.seconds for outcome in outcomes]):.3g}"


def _ratio(slow: Sequence[Outcome], fast: Sequence[Outcome]) -> str:
    return _spread(np.array([a.seconds / b.seconds for a, b in zip(slow, fast, strict=True)]))


def _spread(values: NDArray[np.float64]) -> str:
    median = f"{np.median(values):.2f}"
    return median if len(values) == 1 else f"{median} ({values.min():.2f} to {values.max():.2f})"


def _peak(outcomes: Sequence[Outcome]) -> str:
    return f"{max(outcome.peak for outcome in outcomes) / MIB:,.0f}"


def _same(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    one, other = ours[0].result, theirs[0].result
    return f"{len(np.intersect1d(one, other))} of {len(one)}"


def _distances(pool: Pool, picks: Picks, peer: Peer) -> list[str]:
    """Return the mean and the greatest distance to the nearest pick."""
    known = np.flatnonzero(pool.y != -1)
    centres = np.union1d(picks, known) if peer.keeps_labeled else picks
    points = normalize(pool.scores.embeddings) if peer.unit_length else pool.scores.embeddings
    _, distances = pairwise_distances_argmin_min(points, points[centres])
    return [f"{distances.mean():.3f}", f"{distances.max():.3f}"]


def _side(device: str) -> str:
    return f"skal, {_place(device)}"


def _place(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


BENCHMARKS = {
    "badge": badge,
    "badge-large-batch": badge_large_batch,
    "badge-many-classes": badge_many_classes,
    "bald": bald,
    "bald-baal": bald_baal,
    "geometry": geometry,
    "dense": dense,
}


@click.command()
@click.option("--only", type=click.Choice(list(BENCHMARKS)), multiple=True, help="All by default.")
@click.option("--small", is_flag=True, help="A tenth of the sizes, to try it out; only printed.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--print-only", is_flag=True, help="Leave RESULTS.md as it is.")
@click.option("--other", type=click.Path(path_type=Path), help="A checkout of an earlier build.")
def main(
    only: tuple[str, ...], small: bool, repeats: int, print_only: bool, other: Path | None
) -> None:
    """Measure strategies, each side in processes of its own, in turn."""
    settings = Settings(small, repeats, keep=not (small or print_only), other=other)
    for name in only or BENCHMARKS:
        click.echo(name, err=True)
        BENCHMARKS[name](settings)


if __name__ == "__main__":
    main()
