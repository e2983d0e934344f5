"""Distances among many points, in linear memory.

Squared distances are computed as |a|^2 + |b|^2 - 2 a.b, which loses precision where they are small
compared to |a|^2 and |b|^2. Points are therefore centred, and distances that are still relatively
small are recomputed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALL = 10_000  # number of points above which approximations and samples are used
WIDTH = 128  # leading principal directions to reduce wider points to, if there are many
CANCELLED = 0.01  # squared distances below this share of the squared norms are recomputed
MOST_GATHERED = 0.25  # above this share, reading all rows is faster than gathering some
ROWS_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**23  # of a block of distances, 32 MiB
NUMBERS_IN_CACHE = 2**17  # float64, 1 MiB
LEADING = 32  # principal directions of a wide factor used for bounds
MANY = 200  # number of centres from which on these bounds pay off


def as_points(values: NDArray[np.floating], device: str = "cpu") -> Tensor:
    """Return a float32 tensor; on the CPU a float32 array is not copied.

    Sums need float64, which Apple's GPUs lack, so that the CPU is used in their place.
    """
    contiguous = np.ascontiguousarray(values, dtype=np.float32)
    if not contiguous.flags.writeable:
        contiguous = contiguous.copy()  # torch does not support read-only memory
    return torch.from_numpy(contiguous).to("cpu" if device.startswith("mps") else device)


class Shift:
    """Centre points, float of shape (n, n_features), at the origin.

    With `unit_length` points are first divided by their norms, unless these are 0. Points wider
    than `width` are reduced to that many leading principal directions. Mean and directions are
    estimated from a subset if there are more than `SMALL` points.
    """

    def __init__(
        self,
        points: NDArray[np.floating],
        *,
        unit_length: bool = False,
        width: int | None = None,
    ) -> None:
        self._unit_length = unit_length
        some = points[:: max(1, len(points) // SMALL)]
        total = np.zeros(points.shape[1])
        for rows in blocks(len(some), some.shape[1], numbers=NUMBERS_IN_CACHE):
            total += self._scaled(some[rows]).sum(axis=0)
        self._mean = total / max(len(some), 1)
        self._directions: Tensor | None = None
        if width is not None and points.shape[1] > width:
            few = self._moved(some[:: max(1, len(some) // ROWS_AT_ONCE)])
            self._directions = leading_directions(torch.from_numpy(few), width)

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return transformed points, shape (m, n_features), as float32.

        Points that are reduced are copied in blocks, never all at once.
        """
        if self._directions is None:
            return self._moved(values)
        reduced = np.empty((len(values), self._directions.shape[1]), np.float32)
        for rows in blocks(*values.shape):
            reduced[rows] = (torch.from_numpy(self._moved(values[rows])) @ self._directions).numpy()
        return reduced

    def _moved(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        moved = np.empty(values.shape, np.float32)
        for rows in blocks(len(values), values.shape[1], numbers=NUMBERS_IN_CACHE):
            moved[rows] = self._scaled(values[rows]) - self._mean
        return moved

    def _scaled(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        values = points.astype(np.float64)
        if self._unit_length:
            norms = np.linalg.norm(values, axis=1, keepdims=True)
            values /= np.where(norms > 0, norms, 1)
        return values


def centred(
    points: NDArray[np.floating],
    others: NDArray[np.floating] | None = None,
    *,
    unit_length: bool = False,
    width: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return float32 copies of points and others, transformed by the `Shift` of the points."""
    if others is None or not len(others):
        others = points[:0]
    shift = Shift(points, unit_length=unit_length, width=width)
    return shift(points), shift(others)


def leading_directions(some: Tensor, width: int) -> Tensor:
    """Return leading principal directions of points, shape (n_features, width).

    They are approximated by one step of subspace iteration.
    """
    start = torch.from_numpy(np.random.RandomState(0).normal(size=(len(some), width)))
    basis = torch.linalg.qr(some.T @ start.to(some)).Q
    directions: Tensor = torch.linalg.qr(some.T @ (some @ basis)).Q
    return directions


def blocks(
    n_points: int, n_others: int, rows: int = ROWS_AT_ONCE, numbers: int = NUMBERS_AT_ONCE
) -> Iterator[slice]:
    """Yield slices of the rows of an (n_points, n_others) matrix that bound the memory used."""
    height = max(1, min(rows, numbers // max(n_others, 1)))
    for start in range(0, n_points, height):
        yield slice(start, start + height)


def squared_norms(points: Tensor) -> Tensor:
    return torch.einsum("ij,ij->i", points, points)


def squared_distances(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of points and their squared distances to all others, in the points' dtype.

    The error is that of rounding the squared norms; distances below it are set to 0.
    """
    lengths = squared_norms(others)
    rounding = 8 * torch.finfo(points.dtype).eps
    for rows in blocks(len(points), len(others)):
        part = points[rows]
        both = squared_norms(part)[:, None] + lengths
        distance = torch.addmm(both, part, others.T, alpha=-2)
        yield rows, distance.masked_fill_(distance < both.mul_(rounding), 0)


class NearestCentre:
    r"""Squared distance of every point to the nearest centre, as centres are added.

    A point is the outer product of its factors, float32 of shape (n, width), which is never built:
    :math:`\langle a h^T, a' h'^T\rangle = (a \cdot a')(h \cdot h')`. Bounds skip points to which a
    new centre c cannot be nearer than their centre o, without reading their factors: a centre is
    nearer only if :math:`|c - o| < 2 |x - o|`, by the triangle inequality (Elkan, ICML 2003). For
    wide factors the Cauchy-Schwarz inequality gives another bound, and, if `capacity` is at least
    `many`, a tighter one in the directions other than the `leading` principal ones. Distances are
    accurate to at least four digits. Points with a single factor should be `centred`, or most
    distances are computed twice. `squared`, shape (n,), is infinite before the first centre;
    `lengths` are the squared norms; `n_compared` is the number of distances that the last centre
    needed.
    """

    def __init__(
        self, *factors: Tensor, capacity: int, leading: int = LEADING, many: int = MANY
    ) -> None:
        self._factors = sorted(factors, key=lambda factor: factor.shape[1])
        n, device = len(self._factors[0]), self._factors[0].device
        lengths = [squared_norms(factor) for factor in self._factors]
        self.lengths = math.prod(lengths[1:], start=lengths[0])
        # norms of all but the narrowest factor, for the Cauchy-Schwarz bound
        self._others = math.prod(
            (squared.sqrt() for squared in lengths[1:]), start=torch.ones(n, device=device)
        )
        self.squared = torch.full((n,), torch.inf, device=device)
        self._owner = torch.zeros(n, dtype=torch.int64, device=device)
        self._centres = [torch.empty(capacity, f.shape[1], device=device) for f in self._factors]
        self._centre_lengths = torch.empty(capacity, device=device)
        self._count = self.n_compared = 0
        self._rounding = 8 * torch.finfo(torch.float32).eps
        self._leading: tuple[Tensor, Tensor, Tensor] | None = None
        if len(factors) == 2 and capacity >= many and self._factors[1].shape[1] >= 4 * leading:
            self._leading = _leading_bounds(self._factors[1], leading)

    def add(self, row: int) -> None:
        self._update([f[row] for f in self._factors], self.lengths[row], self._others[row])
        self.squared[row] = 0

    def add_points(self, points: Tensor) -> None:
        """Add other points, given by their single factor, shape (m, width), as centres."""
        (factor,) = self._factors
        lengths = squared_norms(points)
        first, self._count = self._count, self._count + len(points)
        self._centres[0][first : self._count] = points
        self._centre_lengths[first : self._count] = lengths
        for part, distance in squared_distances(factor, points):
            nearest, owner = distance.min(dim=1)
            close = nearest < CANCELLED * (self.lengths[part] + lengths[owner])
            if close.any():
                again = squared_distances(factor[part][close].double(), points.double())
                found = [distance.min(dim=1) for _, distance in again]
                nearest[close] = torch.cat([least.values for least in found]).float()
                owner[close] = torch.cat([least.indices for least in found])
            nearer = nearest < self.squared[part]
            self.squared[part][nearer] = nearest[nearer]
            self._owner[part][nearer] = first + owner[nearer]

    def _update(self, centre: Sequence[Tensor], length: Tensor, others: Tensor) -> None:
        rows = self._within_triangle(centre, length)
        for held, factor in zip(self._centres, centre, strict=True):
            held[self._count] = factor
        self._centre_lengths[self._count] = length
        number, self._count = self._count, self._count + 1
        narrow, *wide = self._factors
        if rows is not None and len(rows) >= MOST_GATHERED * len(narrow):
            rows = None
        dot = _rows(narrow, rows) @ centre[0]
        both = _rows(self.lengths, rows) + length
        if wide:
            bound = both - 2 * dot.abs() * _rows(self._others, rows) * others
            possible = bound < _rows(self.squared, rows) + self._rounding * both
            left = possible.nonzero().squeeze(1)
            if len(left) < MOST_GATHERED * len(narrow):
                rows = left if rows is None else rows[left]
                dot, both = dot[left], both[left]
                if self._leading is not None:
                    left = self._within_leading(centre[1], rows, dot, both)
                    rows, dot, both = rows[left], dot[left], both[left]
            for factor, part in zip(wide, centre[1:], strict=True):
                dot = dot * (_rows(factor, rows) @ part)
        distance = self._distance(centre, rows, both, dot)
        self.n_compared = len(distance)
        before = _rows(self.squared, rows)
        nearer = (distance < before).nonzero().squeeze(1)
        changed = nearer if rows is None else rows[nearer]
        self.squared[changed] = distance[nearer]
        self._owner[changed] = number

    def _distance(
        self, centre: Sequence[Tensor], rows: Tensor | None, both: Tensor, dot: Tensor
    ) -> Tensor:
        """Return squared distances to a centre, from sums of squared norms and dot products."""
        distance = both - 2 * dot
        close = (distance < CANCELLED * both).nonzero().squeeze(1)
        if len(close):
            chosen = close if rows is None else rows[close]
            of_points = [factor[chosen].double() for factor in self._factors]
            of_centre = [factor.double() for factor in centre]
            distance[close] = _between(of_points, of_centre).float()
        return distance

    def _within_leading(self, centre: Tensor, rows: Tensor, dot: Tensor, both: Tensor) -> Tensor:
        """Return which of `rows` may be nearer, by bounds from the wide factor's directions."""
        assert self._leading is not None
        directions, leading, rest = self._leading
        of_centre = directions.T @ centre
        remainder = (centre @ centre - of_centre @ of_centre).clamp(min=0).sqrt()
        most = dot * (leading.index_select(0, rows) @ of_centre)
        most += dot.abs() * rest.index_select(0, rows) * remainder
        least = both - 2 * most
        before = self.squared.index_select(0, rows)
        return (least < before + 8 * self._rounding * both).nonzero().squeeze(1)

    def _within_triangle(self, centre: Sequence[Tensor], length: Tensor) -> Tensor | None:
        """Return the rows that may be nearer to a new centre; None for all."""
        if not self._count:
            return None
        known = slice(0, self._count)
        dot = math.prod(
            (held[known] @ factor for held, factor in zip(self._centres, centre, strict=True)),
            start=torch.ones(self._count, device=length.device),
        )
        both = self._centre_lengths[known] + length
        apart = both - 2 * dot - self._rounding * both
        return (apart[self._owner] < 4 * self.squared).nonzero().squeeze(1)


def _between(points: Sequence[Tensor], centre: Sequence[Tensor]) -> Tensor:
    if len(points) == 1:
        return squared_norms(points[0] - centre[0])
    dots = [factor @ part for factor, part in zip(points, centre, strict=True)]
    dot = math.prod(dots[1:], start=dots[0])
    both = math.prod(map(squared_norms, points[1:]), start=squared_norms(points[0]))
    both = both + math.prod(float(factor @ factor) for factor in centre)
    distance = both - 2 * dot
    return distance.masked_fill_(distance < 8 * torch.finfo(both.dtype).eps * both, 0)


def _leading_bounds(factor: Tensor, n_directions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return principal directions of a subset of rows, the rows' coordinates along them, and the
    norms of the remainders. Any orthonormal directions give valid bounds; these give tight ones.
    """
    some = factor[:: max(1, len(factor) // (2 * ROWS_AT_ONCE))]
    _, vectors = torch.linalg.eigh(some.T @ some)
    directions = vectors[:, -n_directions:].contiguous()
    leading = factor @ directions
    remainder = (squared_norms(factor) - squared_norms(leading)).clamp_(min=0)
    return directions, leading, remainder.sqrt_()


def _rows(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values[rows]
