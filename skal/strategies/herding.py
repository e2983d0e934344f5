"""Greedy maximisation of weighted coverage, of all points or, for many points, of a sample.

For any centres, the coverage estimated from m points drawn in proportion to the weights differs
from that of all points by more than sqrt(ln(2 / p) / 2 m) of the total weight with a probability of
at most p (W. Hoeffding, Probability Inequalities for Sums of Bounded Random Variables, JASA 1963,
theorem 2): for 4,096 draws, by more than 2.5% in at most one of a hundred cases.
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

SAMPLE = 4096  # points drawn to estimate coverage, if there are more than `SMALL`
SIDE = 512  # of blocks of similarities, so that they fit into the processor's cache
FIRST, MOST = 8, 64  # gains to compute at once while bounds do not determine the highest
FINAL = 24  # candidates whose exact gains are compared before a pick, if coverage is sampled
KEPT = 2**25  # bytes of cached similarities
SLACK = 1e-4  # relative error of a bound from float32 rounding
FLOAT32 = (1e-2, 1e2)  # range of gamma times the largest squared norm for which float32 suffices


class Herd:
    r"""The coverage of points by centres, and the gain of each point as a further centre.

    The coverage is :math:`\sum_i w_i \max_j \exp(-\gamma |x_i - x_j|^2)`, over points i and centres
    j. `points` is float32 of shape (n, width), best `centred`; `weights`, shape (n,), must not be
    negative, and are equal by default. If there are more than `small` points, the sum is estimated
    from `sample` points drawn by weight; each point's gain for itself is still exact.
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
        self._targets = self._points[self._covered]
        self._kept: dict[int, Tensor] = {}
        row_bytes = len(self._targets) * self._points.element_size()
        self._most_kept = max(KEPT // row_bytes, 2 * MOST)

    def _draw(self, sample: int, random_state: RandomState) -> None:
        """Draw the points that estimate the coverage of all."""
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
        """Whether coverage is estimated from a sample."""
        return self._own is not None

    def cover(self, centres: Tensor) -> None:
        """Add centres, shape (m, width), that are not among the points."""
        for start in range(0, len(centres), SIDE):
            some = _turned(self._sided(centres[start : start + SIDE]))
            for rows in self._blocks():
                nearest = (some @ self._points[rows].T).amax(dim=0).clamp_(max=0).exp_()
                part = self._similarity[rows]
                torch.maximum(part, nearest, out=part)

    def add(self, row: int) -> None:
        """Make a point a centre."""
        if self._own is None:
            similar = self._rows([row])[0]
        else:
            similar = self._similar(_turned(self._points[row : row + 1]))[0]
            similar[row] = 1
        torch.maximum(self._similarity, similar, out=self._similarity)

    def gains(self, rows: Rows) -> NDArray[np.float64]:
        """Return the gains of some points, shape (m,)."""
        parts = [
            self._gains(rows[start : start + MOST], self._rows)
            for start in range(0, len(rows), MOST)
        ]
        return np.asarray(torch.cat(parts).cpu().numpy())

    def exact_gains(self, rows: Rows) -> NDArray[np.float64]:
        """Return the gains of some points, shape (m,), computed on all points."""
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
        """Return the gain of each point, shape (n,), up to rounding."""
        if self._own is None:
            return self._all_pairs()
        everything = np.arange(len(self))
        gains = torch.empty_like(self._of_all)  # many small results would fragment the heap
        for rows in self._blocks(4 * MOST):
            gains[rows] = self._gains(everything[rows], self._compared)
        return np.asarray(gains.cpu().numpy())

    def _all_pairs(self) -> NDArray[np.float64]:
        """Return `all_gains` without a sample; each pair is compared once for both points."""
        gains = torch.zeros_like(self._weights)
        weights, similarity = self._weights.to(self._exact), self._similarity
        blocks = list(self._blocks())
        space = self._points.new_empty(2, SIDE * SIDE)
        for number, rows in enumerate(blocks):
            left = _turned(self._points[rows])
            for others in blocks[number:]:
                right = self._points[others]
                shape = len(left), len(right)
                similar, more = (part[: shape[0] * shape[1]].view(shape) for part in space)
                torch.mm(left, right.T, out=similar).exp_()
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

        The dot product of such a row with another that is `_turned` is :math:`-|x - x'|^2`, with
        points scaled by the square root of gamma.
        """
        scaled = points.to(self._exact) * (2 * self._gamma) ** 0.5
        lengths = squared_norms(scaled)[:, None] / 2
        return torch.cat([scaled, -lengths, torch.ones_like(lengths)], dim=1)

    def _similar(self, turned: Tensor) -> Tensor:
        return (turned @ self._points.T).clamp_(max=0).exp_()

    def _rows(self, rows: list[int]) -> Tensor:
        """Return the similarities of at most `MOST` points to the covered points, cached."""
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
        return (_turned(self._points[rows]) @ self._targets.T).clamp_(max=0).exp_()


def _turned(sided: Tensor) -> Tensor:
    return torch.cat([sided[:, :-2], sided[:, -1:], sided[:, -2:-1]], dim=1)


def pick_greedily(
    herd: Herd, n_picks: int, random_state: RandomState, utilities: ToFill = None
) -> Rows:
    """Greedily pick the points of highest gain; the utilities are the gains.

    Coverage is submodular: gains never rise as centres are added, so earlier gains are upper
    bounds, and are recomputed only where they may be the highest (M. Minoux, Accelerated greedy
    algorithms for maximizing submodular set functions, 1978). If coverage is sampled, the few best
    points are compared by their exact gains.
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
                known = _exact_highest(herd, bounds)
        herd.add(batch.pick(np.where(known, bounds, -1.0)))
    return batch.picks


def _find_highest(herd: Herd, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Recompute gains in place until the highest is certain; return which are exact."""
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


def _exact_highest(herd: Herd, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Replace the highest sampled gains by exact ones, in place; return which."""
    top = np.argpartition(-bounds, FINAL)[:FINAL]
    bounds[top] = herd.exact_gains(top)
    known = np.zeros(len(herd), dtype=bool)
    known[top] = True
    return known
