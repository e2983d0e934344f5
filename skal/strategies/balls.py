"""Neighbours of points within a radius, in memory linear in the number of points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .geometry import ROWS_AT_ONCE, leading_directions, squared_distances, squared_norms

LEADING = 32  # principal directions used to exclude distant pairs
PIVOTS = 128  # points are sorted by their nearest pivot, so that those of a block are close
HEIGHT, WIDTH = 256, 4096  # of a block of pairs, so that it fits into the processor's cache
MOST_PAIRS = 2**25  # stored pairs, 512 MiB; if there are more, distances are recomputed
ROUNDING = 1e-4  # float32 rounding error of a bound, relative to the largest squared norm


class Balls:
    """Balls of one squared radius around points, float32 or float64 of shape (n, width).

    Pairs that are too far apart in the leading principal directions are excluded; the others are
    computed exactly, once. At most `most` pairs are stored.
    """

    def __init__(self, points: Tensor, squared: float, *, most: int = MOST_PAIRS) -> None:
        self._points, self._squared = points, squared
        self._starts: Tensor | None = None
        pairs, count = [], 0
        for first, second in self._pairs():
            pairs.append(torch.stack([first, second]).int())
            count += len(first)
            if count > most:
                return
        self._keep(torch.cat(pairs, dim=1))

    def of(self, row: int) -> Tensor:
        """Return the points in the ball around a point, including itself."""
        if self._starts is not None:
            return self._others[self._starts[row] : self._starts[row + 1]].long()
        ((_, distance),) = squared_distances(self._points[row : row + 1], self._points)
        return (distance[0] <= self._squared).nonzero().squeeze(1)

    def count(self, rows: Tensor) -> Tensor:
        """Count the points of `rows` in the ball around each point, shape (n,)."""
        n = len(self._points)
        if self._starts is not None:
            starts = self._starts[rows]
            sizes = self._starts[rows + 1] - starts
            ends = sizes.cumsum(0)
            places = torch.arange(int(sizes.sum()), device=rows.device)
            places += (starts - ends + sizes).repeat_interleave(sizes)
            return torch.bincount(self._others[places], minlength=n)
        counts = torch.zeros(n, dtype=torch.int64, device=self._points.device)
        if len(rows):
            for part, distance in squared_distances(self._points, self._points[rows]):
                counts[part] = (distance <= self._squared).sum(dim=1)
        return counts

    def _keep(self, pairs: Tensor) -> None:
        """Store pairs, which include both orders and each point with itself, by first point."""
        order = pairs[0].argsort()
        self._others = pairs[1][order]
        counts = torch.bincount(pairs[0], minlength=len(self._points))
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs within the radius, in both orders, and each point with itself."""
        bounds, order = self._bounds()
        turned = torch.cat([bounds[:, :-2], bounds[:, -1:], bounds[:, -2:-1]], dim=1)
        longest = float(squared_norms(self._points).max())
        least = -(self._squared + ROUNDING * longest) / 2
        for start in range(0, len(order), HEIGHT):
            rows = bounds[start : start + HEIGHT]
            found = [
                ((rows @ turned[left : left + WIDTH].T) >= least).any(dim=0)
                for left in range(start, len(order), WIDTH)
            ]
            block = order[start : start + HEIGHT]
            columns = torch.cat(found).nonzero().squeeze(1) + start
            own = self._points[block]
            for part in torch.split(columns, WIDTH):
                others = order[part]
                ((_, distance),) = squared_distances(own, self._points[others])
                one, other = (distance <= self._squared).nonzero().unbind(1)
                later = part[other] >= start + HEIGHT
                one, other = block[one], others[other]
                yield torch.cat([one, other[later]]), torch.cat([other, one[later]])

    def _bounds(self) -> tuple[Tensor, Tensor]:
        r"""Return points in leading directions as :math:`(x, -|x|^2 / 2, 1)`, and their order.

        The norm in all other directions is a further coordinate of x, so that distances between
        rows are lower bounds.
        """
        points = self._points.float()
        some = points[:: max(1, len(points) // ROWS_AT_ONCE)]
        width = min(LEADING, *some.shape)
        narrow = points @ leading_directions(some, width).to(points)
        rest = (squared_norms(points) - squared_norms(narrow)).clamp(min=0).sqrt()
        narrow = torch.cat([narrow, rest[:, None]], dim=1)
        pivots = narrow[:: max(1, len(narrow) // PIVOTS)]
        nearest = torch.cat([d.argmin(dim=1) for _, d in squared_distances(narrow, pivots)])
        order = nearest.argsort(stable=True)
        narrow = narrow[order]
        lengths = squared_norms(narrow)[:, None] / 2
        return torch.cat([narrow, -lengths, torch.ones_like(lengths)], dim=1), order
