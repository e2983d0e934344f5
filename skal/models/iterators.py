"""Batches of images to score, copied to the device ahead of time."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import repeat
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset
from torch import Tensor

from ..core.errors import is_out_of_memory
from ..core.memory import let_go_of_pages, take_mapped
from ..datasets.base import Images
from .devices import computing_on

BYTES_AT_ONCE = 2**26
FREE_BYTES: dict[str, Callable[[torch.device], int]] = {
    "cuda": lambda device: torch.cuda.mem_get_info(device)[0]
}
"""Devices with a memory of their own, which may hold all images."""

Result = TypeVar("Result")
Span = tuple[int, int]
Send = Callable[[Tensor], Callable[[], Tensor]]

_log = logging.getLogger("skal")


class SliceBatches:
    """Batches of all images, or of some `rows`, in order; one empty batch if there are none.

    On a GPU the next batch is copied while the current one is processed, unless all images are
    already there, see `resident`.
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
        images: Iterator[Tensor] = map(self._pixels, self._spans())
        pool = resident(self.X, self.device) if self.device.type in FREE_BYTES else None
        if pool is not None:
            images = (self._of_pool(pool, span) for span in self._spans())
        elif self.device.type == "cuda":
            images = self._ahead(sender(self.device))
        return zip(images, repeat(torch.empty(0)))

    def halve(self) -> None:
        """Repeat the last batch in two halves, and continue with the smaller batch size."""
        start, stop = self._span
        self.batch_size = math.ceil((stop - start) / 2)
        self._span = (start, start)

    def _spans(self) -> Iterator[Span]:
        """Yield the start and stop of each batch; `halve` may be called in between."""
        self._span = self._after((0, 0))
        yield self._span
        while self._span[1] < self._n:
            self._span = self._after(self._span)
            yield self._span

    def _after(self, span: Span) -> Span:
        return span[1], min(span[1] + self.batch_size, self._n)

    def _ahead(self, send: Send) -> Iterator[Tensor]:
        """Yield batches, each copied to the device while the one before is processed."""
        with ThreadPoolExecutor(1) as threads:
            coming: tuple[Span, Future[Callable[[], Tensor]]] | None = None
            for span in self._spans():
                if coming is None or coming[0] != span:  # the first batch, or `halve` was called
                    coming = span, threads.submit(self._sent, send, span)
                try:
                    arrive = coming[1].result()
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    # the batch before still used memory; without it this one may fit
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
        else:  # a copy, since torch does not support read-only memmaps
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


def run_batches(
    batches: SliceBatches,
    compute: Callable[[Tensor], Result],
    on_smaller: Callable[[int], None] = lambda size: None,
) -> Iterator[Result]:
    """Yield the result of `compute` for each batch on the device.

    Out of memory, batches shrink, and `on_smaller` is called with their size; the error is raised
    if a single image does not fit.
    """
    settings = computing_on(str(batches.device))
    for images, _ in batches:
        result = None
        try:
            with settings:
                result = compute(images.to(batches.device))
        except Exception as error:
            if len(images) < 2 or not is_out_of_memory(error):
                raise
        if result is None:  # outside `except`, where the error no longer holds memory
            batches.halve()
            on_smaller(batches.batch_size)
            say_smaller(str(batches.device), batches.batch_size)
        else:
            yield result


@cache
def say_smaller(device: str, batch_size: int) -> None:
    """Warn once per device and batch size, not in each round."""
    _log.warning("out of memory on %s: scoring continues in batches of %d", device, batch_size)


_RESIDENT: dict[tuple[torch.device, int], tuple[weakref.ref[Images], Tensor]] = {}


def resident(X: Images, device: torch.device) -> Tensor | None:
    """Return all images on a GPU if they fit into half of its free memory; else None.

    They stay on the GPU as long as the array exists, so that each round of a run can reuse them.
    Writeable arrays return None, since the copy would not follow changes.
    """
    if X.flags.writeable:
        return None
    key = (device, id(X))
    kept = _RESIDENT.get(key)
    if kept is not None and kept[0]() is X:
        return kept[1]
    images = copied(X, device)
    if images is None:
        return None
    _RESIDENT[key] = weakref.ref(X, lambda _: _RESIDENT.pop(key, None)), images
    return images


def copied(X: Images, device: torch.device) -> Tensor | None:
    """Return a copy of all images on a GPU if they fit into half of its free memory; else None."""
    return _copy_to(device, X) if X.nbytes <= FREE_BYTES[device.type](device) / 2 else None


def _copy_to(device: torch.device, X: Images) -> Tensor:
    """Copy in parts, since a memmap need not fit into memory."""
    images = torch.empty(X.shape, dtype=torch.from_numpy(np.empty(0, X.dtype)).dtype, device=device)
    at_once = max(1, BYTES_AT_ONCE // max(X[:1].nbytes, 1))
    for start in range(0, len(X), at_once):
        images[start : start + at_once] = torch.from_numpy(np.array(X[start : start + at_once]))
    return images


def sender(device: torch.device) -> Send:
    """Return a function that starts to copy pixels to a GPU while it computes.

    It returns a function to call when the pixels are needed, which makes later computations wait
    for the copy.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(pixels: Tensor) -> Callable[[], Tensor]:
        with torch.cuda.stream(stream):
            images = pixels.pin_memory().to(device, non_blocking=True)
            copied = stream.record_event()

        def arrive() -> Tensor:
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            images.record_stream(current)  # or its memory could be reused too early
            return images

        return arrive

    return send
