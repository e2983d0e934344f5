"""Greedy maximisation of a weighted coverage, of all points or, where they are many, of a sample.

Of any centres, the coverage of m draws, in proportion to the weights, is off that of all points by
more than sqrt(ln(2 / p) / 2 m) of all weights with a probability of p at most (W. Hoeffding,
Probability Inequalities for Sums of Bounded Random Variables, JASA 1963, theorem 2): for 4,096
draws by 2.5% in one of a hundred cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import GreedyBatch, RandomState, Rows, ToFill
from .geometry import SMALL, squared_norms

SAMPLE = 4096  # draws of what is covered, where there are more than `SMALL` points
SIDE = 512  # of the blocks in which all similarities are looked at, so that they stay in the cache
FIRST, MOST = 8, 64  # gains that are computed at once while bounds do not tell which is the highest
FINAL = 24  # of many points, those that are compared with all before one is picked
KEPT = 2**25  # bytes of similarities that are kept, in case they are asked for again
SLACK = 1e-4  # of a bound: what the rounding of float32 may have taken from it
FLOAT32 = (1e-2, 1e2)  # squared lengths in radii for which float32 is enough


class Herd:
    r"""The coverage of points by centres, and how much each point would add to it as a centre.

    The coverage is :math:`\sum_i w_i \max_j \exp(-\gamma |x_i - x_j|^2)`, over points i and centres
    j. The points are float32 of shape (n, width), best `centred`; the weights have shape (n,), are
    0 or more, and equal if not given. Of more than `small` points `sample` are drawn that stand for
    all, by the weights; what a point adds to its own coverage is known without.
    """

    def __init__(
        self,
        points: Tensor,
        gamma: float,
        weights: Tensor | None = None,
        random_state: RandomState | None = None,
        *,
        small: int = SMALL,
        sample: int = SAMPLE,
    ) -> None:
        longest = gamma * float(squared_norms(points).max())
        self._gamma = gamma
        self._exact = torch.float32 if FLOAT32[0] <= longest <= FLOAT32[1] else torch.float64
        self._points = self._sided(points)
        n = len(points)
        weights = torch.ones(n) if weights is None else weights
        self._of_all = self._weights = (weights.double() / n).to(self._points.device)
        self._similarity = self._points.new_zeros(n)
        self._covered: Tensor | slice = slice(None)
        self._own: Tensor | None = None
        if n > small and random_state is not None:
            self._draw(sample, random_state)
        self._there = self._points[self._covered]
        self._kept: dict[int, Tensor] = {}
        row_bytes = len(self._there) * self._points.element_size()
        self._most_kept = max(KEPT // row_bytes, 2 * MOST)

    def _draw(self, sample: int, random_state: RandomState) -> None:
        """Draw points that stand for all."""
        weights = self._weights.cpu().numpy()
        total = weights.sum()
        drawn = random_state.choice(len(weights), sample, p=weights / total)
        rows, counts = np.unique(drawn, return_counts=True)
        self._covered = torch.from_numpy(rows).to(self._points.device)
        self._weights = torch.from_numpy(counts * (total / sample)).to(self._of_all)
        self._own = self._of_all.index_add(0, self._covered, self._weights, alpha=-1)

    def __len__(self) -> int:
        return len(self._points)

    @property
    def is_sampled(self) -> bool:
        """Whether a sample stands for all points."""
        return self._own is not None

    def cover(self, centres: Tensor) -> None:
        """Add centres that are none of the points, shape (m, width)."""
        for start in range(0, len(centres), SIDE):
            some = _turned(self._sided(centres[start : start + SIDE]))
            for rows in self._blocks():
                part = self._similarity[rows]
                torch.maximum(part, self._similar(some, rows).amax(dim=0), out=part)

    def add(self, row: int) -> None:
        """Make a point a centre."""
        if self._own is None:
            similar = self._rows([row])[0]
        else:
            similar = self._similar(_turned(self._points[row : row + 1]))[0]
            similar[row] = 1
        torch.maximum(self._similarity, similar, out=self._similarity)

    def gains(self, rows: Rows) -> NDArray[np.float64]:
        """Return how much some of the points would add, shape (m,)."""
        parts = [
            self._gains(rows[start : start + MOST], self._rows)
            for start in range(0, len(rows), MOST)
        ]
        return np.asarray(torch.cat(parts).cpu().numpy())

    def exact_gains(self, rows: Rows) -> NDArray[np.float64]:
        """Return how much some of the points would add to the coverage of all, shape (m,)."""
        similar = self._similar(_turned(self._points[rows]))
        similar[range(len(rows)), rows] = 1
        more = similar.sub_(self._similarity).clamp_(min=0)
        return np.asarray((more @ self._of_all.to(more)).double().cpu().numpy())

    def _gains(self, rows: Rows, similar: Callable[[Any], Tensor]) -> Tensor:
        more = (similar(rows.tolist()) - self._similarity[self._covered]).clamp_(min=0)
        if self._own is None:
            return more.double() @ self._weights
        gains = (more @ self._weights.to(more)).double()
        gains += self._own[rows] * (1 - self._similarity[rows])
        return gains.clamp_(min=0)

    def all_gains(self) -> NDArray[np.float64]:
        """Return how much each point would add, shape (n,), but for rounding."""
        if self._own is None:
            return self._all_pairs()
        everything = np.arange(len(self))
        gains = torch.empty_like(self._of_all)  # small parts that are kept would scatter the heap
        for rows in self._blocks(4 * MOST):
            gains[rows] = self._gains(everything[rows], self._compared)
        return np.asarray(gains.cpu().numpy())

    def _all_pairs(self) -> NDArray[np.float64]:
        """Return `all_gains` where all is covered: each pair is compared once, for both."""
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

    def _blocks(self, height: int = SIDE) -> Iterator[slice]:
        for start in range(0, len(self), height):
            yield slice(start, start + height)

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
        """Return the similarities of some points, `MOST` or fewer, to what is covered."""
        new = [row for row in rows if row not in self._kept]
        if len(self._kept) + len(new) > self._most_kept:
            self._kept, new = {}, rows
        if new:
            similar = self._compared(new)
            if self._own is None:
                similar[range(len(new)), new] = 1
            self._kept.update((row, similar[number]) for number, row in enumerate(new))
        return torch.stack([self._kept[row] for row in rows])

    def _compared(self, rows: list[int]) -> Tensor:
        return (_turned(self._points[rows]) @ self._there.T).clamp_(max=0).exp_()


def _turned(sided: Tensor) -> Tensor:
    return torch.cat([sided[:, :-2], sided[:, -1:], sided[:, -2:-1]], dim=1)


def pick_greedily(
    herd: Herd, n_picks: int, random_state: RandomState, utilities: ToFill = None
) -> Rows:
    """Pick one by one what adds most to the coverage; the utilities are the gains.

    A gain never rises when there are more centres, so that what it once was is a bound: it is
    computed again only where it may be the highest (M. Minoux, Accelerated greedy algorithms for
    maximizing submodular set functions, 1978). Where a sample stands for all points, the few that
    are best by it are compared by the coverage of all.
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
            if herd.is_sampled:
                known = _look_again(herd, bounds)
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
        bounds[open_] = np.minimum(herd.gains(open_), bounds[open_] * (1 + SLACK))
        known[open_] = True
        n_next = min(2 * n_next, MOST)


def _look_again(herd: Herd, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Compute those gains exactly, in place, that are the highest by a sample; return which."""
    top = np.argpartition(-bounds, FINAL)[:FINAL]
    bounds[top] = herd.exact_gains(top)
    known = np.zeros(len(herd), dtype=bool)
    known[top] = True
    return known
