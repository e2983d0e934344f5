"""Greedy maximisation of a weighted coverage, in memory linear in the number of points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import GreedyBatch, RandomState, Rows, ToFill
from .geometry import squared_norms

SIDE = 512  # of the blocks in which all similarities are looked at, so that they stay in the cache
FIRST, MOST = 8, 64  # gains that are computed at once while bounds do not tell which is the highest
KEPT = 2**25  # bytes of similarities that are kept, in case they are asked for again
SLACK = 1e-4  # of a bound: what the rounding of float32 may have taken from it
FLOAT32 = (1e-2, 1e2)  # squared lengths in radii for which float32 is enough


class Herd:
    r"""The coverage of points by centres, and how much each point would add to it as a centre.

    The coverage is :math:`\sum_i w_i \max_j \exp(-\gamma |x_i - x_j|^2)`, over points i and centres
    j. The points are float32 of shape (n, width), best `centred`; the weights have shape (n,), are
    0 or more, and equal if not given.
    """

    def __init__(self, points: Tensor, gamma: float, weights: Tensor | None = None) -> None:
        longest = gamma * float(squared_norms(points).max())
        self._gamma = gamma
        self._exact = torch.float32 if FLOAT32[0] <= longest <= FLOAT32[1] else torch.float64
        self._points = self._sided(points)
        n = len(points)
        weights = torch.ones(n) if weights is None else weights
        self._weights = (weights.double() / n).to(self._points.device)
        self._similarity = self._points.new_zeros(n)
        self._kept: dict[int, Tensor] = {}
        self._most_kept = max(KEPT // (n * self._points.element_size()), 2 * MOST)

    def __len__(self) -> int:
        return len(self._points)

    def cover(self, centres: Tensor) -> None:
        """Add centres that are none of the points, shape (m, width)."""
        for start in range(0, len(centres), SIDE):
            some = _turned(self._sided(centres[start : start + SIDE]))
            for rows in self._blocks():
                part = self._similarity[rows]
                torch.maximum(part, self._similar(some, rows).amax(dim=0), out=part)

    def add(self, row: int) -> None:
        """Make a point a centre."""
        torch.maximum(self._similarity, self._rows([row])[0], out=self._similarity)

    def gains(self, rows: Rows) -> NDArray[np.float64]:
        """Return how much some of the points would add, shape (m,)."""
        parts = []
        for start in range(0, len(rows), MOST):
            more = self._rows(rows[start : start + MOST].tolist()) - self._similarity
            parts.append(more.clamp_(min=0).double() @ self._weights)
        return np.asarray(torch.cat(parts).cpu().numpy())

    def all_gains(self) -> NDArray[np.float64]:
        """Return how much each point would add, shape (n,), but for rounding.

        Each pair is compared once, for both.
        """
        gains = torch.zeros_like(self._weights)
        weights, similarity = self._weights.to(self._exact), self._similarity
        blocks = list(self._blocks())
        space = self._points.new_empty(2, SIDE * SIDE)
        for number, rows in enumerate(blocks):
            here = _turned(self._points[rows])
            for others in blocks[number:]:
                there = self._points[others]
                shape = len(here), len(there)
                similar, more = (part[: shape[0] * shape[1]].view(shape) for part in space)
                torch.mm(here, there.T, out=similar).exp_()
                torch.sub(similar, similarity[others], out=more).clamp_(min=0)
                gains[rows] += more @ weights[others]
                if others != rows:
                    similar.sub_(similarity[rows, None]).clamp_(min=0)
                    gains[others] += weights[rows] @ similar
        return np.asarray(gains.cpu().numpy())

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self), SIDE):
            yield slice(start, start + SIDE)

    def _sided(self, points: Tensor) -> Tensor:
        r"""Return points as :math:`(\sqrt 2 x, -|x|^2, 1)`.

        Of one such row and another that is `_turned`, the dot product is :math:`-|x - x'|^2`.
        """
        scaled = points.to(self._exact) * (2 * self._gamma) ** 0.5
        lengths = squared_norms(scaled)[:, None] / 2
        return torch.cat([scaled, -lengths, torch.ones_like(lengths)], dim=1)

    def _similar(self, turned: Tensor, rows: slice = slice(None)) -> Tensor:
        return (turned @ self._points[rows].T).clamp_(max=0).exp_()

    def _rows(self, rows: list[int]) -> Tensor:
        """Return the similarities of some points, `MOST` or fewer, to all points."""
        new = [row for row in rows if row not in self._kept]
        if len(self._kept) + len(new) > self._most_kept:
            self._kept, new = {}, rows
        if new:
            similar = self._similar(_turned(self._points[new]))
            similar[range(len(new)), new] = 1
            self._kept.update((row, similar[number]) for number, row in enumerate(new))
        return torch.stack([self._kept[row] for row in rows])


def _turned(sided: Tensor) -> Tensor:
    return torch.cat([sided[:, :-2], sided[:, -1:], sided[:, -2:-1]], dim=1)


def pick_greedily(
    herd: Herd, n_picks: int, random_state: RandomState, utilities: ToFill = None
) -> Rows:
    """Pick one by one what adds most to the coverage; the utilities are the gains.

    A gain never rises when there are more centres, so that what it once was is a bound: it is
    computed again only where it may be the highest [1]_.

    References
    ----------
    .. [1] M. Minoux. Accelerated greedy algorithms for maximizing submodular set functions. 1978.
    """
    batch = GreedyBatch(n_picks, random_state, utilities)
    bounds = herd.all_gains()
    for number in range(n_picks):
        bounds[batch.picks[:number]] = 0
        if utilities is not None:
            bounds = herd.gains(np.arange(len(herd)))
            known = np.ones(len(herd), dtype=bool)
        else:
            known = _find_highest(herd, bounds)
        herd.add(batch.pick(np.where(known, bounds, -1.0)))
    return batch.picks


def _find_highest(herd: Herd, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Compute gains, in place, until none can be above the highest; return which are computed."""
    known = bounds <= 0
    n_next = FIRST
    while True:
        best = bounds[known].max(initial=0.0)
        open_ = np.flatnonzero(~known & (bounds * (1 + SLACK) >= best))
        if not len(open_):
            return known
        if len(open_) > n_next:
            open_ = open_[np.argpartition(-bounds[open_], n_next)[:n_next]]
        bounds[open_] = herd.gains(open_)
        known[open_] = True
        n_next = min(2 * n_next, MOST)
