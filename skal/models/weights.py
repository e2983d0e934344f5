"""Download state dicts, match them to a backbone, and load them."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

from ..core.errors import DataError, one_line, pass_on_memory
from ..core.text import counted, plural

Weights: TypeAlias = str | Path | Mapping[str, Tensor]
"""A state dict, or the path of a file that contains one."""

_log = logging.getLogger("skal")

_OF_SKAL = "network.backbone."
"""Prefix of the names of a backbone's tensors in skal's own files."""
_AVERAGED = frozenset(("ema", "teacher"))
"""Words in prefixes of averaged weights, which their authors use for evaluation."""


class Fit(NamedTuple):
    """How a state dict matches a backbone.

    Has the matching tensors, by the backbone's names; their number, and the backbone's number of
    tensors, both without batch norm's counters; descriptions of missing and of other tensors; and
    the prefix of the names in the state dict.
    """

    tensors: dict[str, Tensor]
    n: int
    n_own: int
    missing: list[str]
    others: list[str]
    prefix: str

    def __str__(self) -> str:
        problems = [*self.missing, *self.others]
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        listed = f"; {'; '.join(problems[:3])}{more}" if problems else ""
        begin = f"; their names begin with {self.prefix!r}" if self.prefix else ""
        own = counted(self.n_own, "tensor")
        return f"{self.n} of the backbone's {own} {plural(self.n, 'fits', 'fit')}{listed}{begin}"


def fit_of(backbone: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Match a state dict to a backbone, under the prefix that fits best."""
    own: dict[str, Tensor] = dict(backbone.state_dict())
    prefix = prefix_of(weights, own)
    weights = _within(prefix, weights)
    fitting = {name: weights[name] for name in own if _fits(name, own, weights)}
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        if name in weights
        else f"{name} is missing"
        for name in needed
        if name not in fitting
    ]
    others = [f"{name} is not in the backbone" for name in weights if name not in own]
    n = sum(name in fitting for name in needed)
    return Fit(fitting, n, len(needed), missing, others, prefix)


def downloaded(what: str, fetch: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the weights that a library's `fetch` downloads on first use.

    Raises DataError, which calls them `what`, if that fails.
    """
    try:
        return fetch()
    except Exception as error:  # from the hub's client, the connection, or a damaged file
        pass_on_memory(error)
        raise DataError(
            f"cannot download {what} ({one_line(error)}); download the file elsewhere and pass it "
            "with --weights FILE"
        ) from error


def load_matching(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the matching tensors of a state dict, and warn of missing ones.

    Names may have a prefix, and tensors of a head are ignored. Raises DataError, with the first few
    names of both, if fewer than half of the backbone's tensors match.
    """
    fit = fit_of(backbone, weights)
    if 2 * fit.n < fit.n_own:
        raise DataError(
            f"the weights do not fit the model: {fit.n} of the backbone's {fit.n_own} tensors fit; "
            f"{fit.missing[0]}; the weights have {_first(weights)}; the backbone has "
            f"{_first(backbone.state_dict())}"
        )
    if fit.missing:
        tell_once(logging.WARNING, f"the weights fit the model only in part: {fit}")
    backbone.load_state_dict(fit.tensors, strict=False)


def _first(tensors: Mapping[str, Tensor], n: int = 3) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in islice(tensors.items(), n)]
    return ", ".join(shown) + (f" and {len(tensors) - n} more" if len(tensors) > n else "")


@lru_cache(maxsize=256)
def tell_once(level: int, message: str) -> None:
    """Log a message once, although the network of every round would repeat it."""
    _log.log(level, message)


def without_prefix(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return the weights under the prefix that fits `own` best, with the prefix removed."""
    return _within(prefix_of(weights, own), weights)


def prefix_of(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return the prefix of names whose removal makes most weights fit `own`.

    If several fit equally well, averaged weights (EMA, a teacher) are preferred, then the first.
    """
    counts: Counter[str] = Counter()
    for name in weights:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            target = own.get(name[start:])
            if target is not None and target.shape == weights[name].shape:
                counts[name[:start]] += 1

    def goodness(prefix: str) -> tuple[int, bool]:
        return counts[prefix], not _AVERAGED.isdisjoint(re.split(r"[._]", prefix.lower()))

    return max(counts, key=goodness, default="")


def _fits(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    return name in weights and weights[name].shape == own[name].shape


def backbone_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the backbone's tensors in a state dict of skal, by the backbone's names."""
    return _within(_OF_SKAL, state)


def _within(prefix: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
