"""Batches of images, to train on and to score: on the device before they are needed there."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset
from torch import Tensor

from ..core.memory import let_go_of_pages, take_mapped
from ..datasets.base import Images

MIN_STEPS = 200
MIN_EPOCHS = 20
BYTES_AT_ONCE = 2**26

Result = TypeVar("Result")
Span = tuple[int, int]
Send = Callable[[Tensor], Callable[[], Tensor]]

_log = logging.getLogger("skal")


class TrainBatches:
    """Whole shuffled batches for a number of optimiser steps, an epoch at each iteration.

    Every batch is full: what is left of one pass over the images goes into the same batch as the
    start of the next, so there is no last batch of one image, which batch norm could not take. An
    epoch ends with the batch that completes a pass; the last one ends when the steps are done.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset
        With arrays `X` and `y`.
    batch_size : int
        At most; never more than the images there are, but at least two, for batch norm.
    steps, epochs : int, optional
        Number of batches, or of passes over the images; with neither, `MIN_STEPS` batches or
        `MIN_EPOCHS` passes, whichever is more.
    balanced : bool, default=False
        Whether all classes that have an image take turns, however many each has.
    mixup : float, default=0
        Alpha of mixup [1]_: each image is to be mixed with another of its batch, to shares that
        are drawn for each batch from Beta(alpha, alpha), and so are the labels; 0 is not at all.
    n_classes : int, optional
        How many classes there are; needed for mixup.
    device : str, default="cpu"
        A GPU holds all images from the start, if they fit.
    ended : callable, optional
        Says before each batch whether the training is over.

    Notes
    -----
    A batch is `X` and `y`, or with mixup a dict of `images`, `partners` (which image of the batch
    each is mixed with) and `shares` (its own), as `ImageModule.forward` takes them, and the shares
    of all classes, float32 of shape (batch_size, n_classes).

    References
    ----------
    .. [1] H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz. mixup: Beyond Empirical Risk
       Minimization. ICLR 2018.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        steps: int | None = None,
        epochs: int | None = None,
        *,
        balanced: bool = False,
        mixup: float = 0.0,
        n_classes: int = 0,
        device: str = "cpu",
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self.X, self.y = dataset.X, torch.as_tensor(dataset.y)
        self.batch_size = max(min(batch_size, len(self.y)), 2)
        passes = MIN_EPOCHS if epochs is None else epochs
        by_passes = math.ceil(passes * len(self.y) / self.batch_size)
        self.steps = steps or (max(MIN_STEPS, by_passes) if epochs is None else by_passes)
        self.balanced = balanced
        self.mixup = mixup
        self.n_classes = n_classes
        self.device = torch.device(device)
        self.ended = ended
        self._done = 0

    @property
    def left(self) -> int:
        """How many steps there are to come."""
        return 0 if self.ended() else self.steps - self._done

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield the batches of the next epoch."""
        passes = self._done * self.batch_size // len(self.y) + 1
        stop = min(self.steps, math.ceil(passes * len(self.y) / self.batch_size))
        while self._done < stop and not self.ended():
            rows = next(self._draws)
            self._done += 1
            if self._pool is None:
                images = torch.from_numpy(self.X[rows.numpy()])
            else:
                images = self._pool[rows.to(self._pool.device)]
            yield self._mixed(images, self.y[rows]) if self.mixup else (images, self.y[rows])

    @cached_property
    def _draws(self) -> Iterator[Tensor]:
        return self._taking_turns() if self.balanced else shuffled(len(self.y), self.batch_size)

    @cached_property
    def _pool(self) -> Tensor | None:
        return _copy_to(self.device, self.X) if _has_room(self.device, self.X) else None

    def _taking_turns(self) -> Iterator[Tensor]:
        labels = sorted(set(self.y.tolist()))
        decks = [_dealt(torch.nonzero(self.y == label)[:, 0]) for label in labels]
        turns = _dealt(torch.arange(len(decks)))
        while True:
            yield torch.tensor([next(decks[turn]) for turn in islice(turns, self.batch_size)])

    def _mixed(self, images: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        share = torch.distributions.Beta(self.mixup, self.mixup).sample()
        partners = torch.randperm(len(y))
        ones = torch.nn.functional.one_hot(y, self.n_classes).float()
        shares = share.expand(len(y))
        mixed = {"images": images, "partners": partners, "shares": shares}
        return mixed, share * ones + (1 - share) * ones[partners]


def shuffled(n: int, batch_size: int) -> Iterator[Tensor]:
    """Yield batches of row numbers without end, shuffled anew in each pass over all `n`."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(n)])
        rows, queue = queue[:batch_size], queue[batch_size:]
        yield rows


def _dealt(cards: Tensor) -> Iterator[int]:
    """Yield all, shuffled, and shuffle anew when through."""
    while True:
        yield from cards[torch.randperm(len(cards))].tolist()


class SliceBatches:
    """Whole batches in order, for predictions; of no images, one empty batch.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset
        With an array `X`.
    batch_size : int
        Images a batch.
    rows : ndarray of int64, shape (n,), optional
        Which images of `X`; by default all.
    device : str, default="cpu"
        Where the batches are wanted. To a GPU the next batch is copied while the last one is
        computed on; or, see `resident`, all images are there already.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        rows: NDArray[np.int64] | None = None,
        device: str = "cpu",
    ) -> None:
        self.X, self.rows = dataset.X, rows
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._n = len(self.X) if rows is None else len(rows)
        self._span: Span = (0, 0)
        self._unreleased = 0

    def __len__(self) -> int:
        return max(math.ceil(self._n / self.batch_size), 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        nothing = torch.empty(0)
        for images in self._images():
            yield images, nothing

    def halve(self) -> None:
        """Give the last batch again, in two, and smaller ones from then on."""
        start, stop = self._span
        self.batch_size = math.ceil((stop - start) / 2)
        self._span = (start, start)

    def _images(self) -> Iterator[Tensor]:
        pool = resident(self.X, self.device)
        if pool is not None:
            return (self._of_pool(pool, span) for span in self._spans())
        if self.device.type == "cuda":
            return self._ahead(sender(self.device))
        return map(self._pixels, self._spans())

    def _spans(self) -> Iterator[Span]:
        """Yield from where to where each batch goes; `halve` may be called between any two."""
        self._span = self._after((0, 0))
        yield self._span
        while self._span[1] < self._n:
            self._span = self._after(self._span)
            yield self._span

    def _after(self, span: Span) -> Span:
        return span[1], min(span[1] + self.batch_size, self._n)

    def _ahead(self, send: Send) -> Iterator[Tensor]:
        """Yield batches, of which each is sent while the one before it is computed on."""
        with ThreadPoolExecutor(1) as threads:
            coming: tuple[Span, Future[Callable[[], Tensor]]] | None = None
            for span in self._spans():
                if coming is None or coming[0] != span:  # the first, or another after `halve`
                    coming = span, threads.submit(self._sent, send, span)
                try:
                    arrive = coming[1].result()
                except torch.OutOfMemoryError:  # beside what was computed then; alone it may fit
                    arrive = self._sent(send, span)
                following = self._after(span)
                coming = None
                if following[0] < self._n:
                    coming = following, threads.submit(self._sent, send, following)
                yield arrive()

    def _sent(self, send: Send, span: Span) -> Callable[[], Tensor]:
        return send(self._pixels(span))

    def _pixels(self, span: Span) -> Tensor:
        start, stop = span
        if self.rows is not None:
            pixels = take_mapped(self.X, self.rows[start:stop])
        else:  # a copy, since torch will not take a read-only memmap
            pixels = np.array(self.X[start:stop])
        self._unreleased += pixels.nbytes
        if self._unreleased >= BYTES_AT_ONCE:
            let_go_of_pages(self.X)
            self._unreleased = 0
        return torch.from_numpy(pixels)

    def _of_pool(self, pool: Tensor, span: Span) -> Tensor:
        start, stop = span
        if self.rows is None:
            return pool[start:stop]
        return pool[torch.from_numpy(self.rows[start:stop]).to(pool.device)]


def run_batches(batches: SliceBatches, compute: Callable[[Tensor], Result]) -> Iterator[Result]:
    """Yield what `compute` makes of each batch; where memory runs out, of smaller ones.

    Raises
    ------
    torch.OutOfMemoryError
        If it does not suffice for one image.
    """
    for images, _ in batches:
        result = None
        try:
            result = compute(images)
        except torch.OutOfMemoryError:
            if len(images) < 2:
                raise
        if result is None:  # only here has the error let go of what it held
            batches.halve()
            say_smaller(str(batches.device), batches.batch_size)
        else:
            yield result


@cache
def say_smaller(device: str, batch_size: int) -> None:
    """Say it once, and not in each round."""
    _log.warning("out of memory on %s: scoring continues in batches of %d", device, batch_size)


_RESIDENT: dict[tuple[torch.device, int], tuple[weakref.ref[Images], Tensor]] = {}


def resident(X: Images, device: torch.device) -> Tensor | None:
    """Return all images on a GPU, if they fit into half of its free memory; None on a CPU.

    They stay there as long as the array lives, so that each round of a run finds them. An array
    that can be written to is not kept, for the GPU would not be told.
    """
    if X.flags.writeable:
        return None
    key = (device, id(X))
    kept = _RESIDENT.get(key)
    if kept is not None and kept[0]() is X:
        return kept[1]
    if not _has_room(device, X):
        return None
    images = _copy_to(device, X)
    _RESIDENT[key] = weakref.ref(X, lambda _: _RESIDENT.pop(key, None)), images
    return images


def _has_room(device: torch.device, X: Images) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return bool(X.nbytes <= free / 2)


def _copy_to(device: torch.device, X: Images) -> Tensor:
    """Copy part by part: a memmap need not fit into memory."""
    images = torch.empty(X.shape, dtype=torch.from_numpy(np.empty(0, X.dtype)).dtype, device=device)
    at_once = max(1, BYTES_AT_ONCE // max(X[:1].nbytes, 1))
    for start in range(0, len(X), at_once):
        images[start : start + at_once] = torch.from_numpy(np.array(X[start : start + at_once]))
    return images


def sender(device: torch.device) -> Send:
    """Return a function that starts to copy pixels to a GPU, beside what it computes.

    What that returns is to be called where the pixels are needed: from then on computations there
    wait for them.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(pixels: Tensor) -> Callable[[], Tensor]:
        with torch.cuda.stream(stream):
            images = pixels.pin_memory().to(device, non_blocking=True)
            copied = stream.record_event()

        def arrive() -> Tensor:
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            images.record_stream(current)  # its memory is not given away before it was used
            return images

        return arrive

    return send
