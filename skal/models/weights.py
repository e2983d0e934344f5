"""State dicts: downloaded, matched to a backbone, loaded into it."""

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
"""What a network may start from: a state dict, or a file that holds one."""

_log = logging.getLogger("skal")

_OF_SKAL = "network.backbone."
"""What skal's own files have before the names of a backbone's tensors."""
_AVERAGED = frozenset(("ema", "teacher"))
"""Words in a prefix of weights that are an average of others, which their authors evaluate by."""


class Fit(NamedTuple):
    """What of a state dict fits a backbone.

    The tensors that fit, by the backbone's names; how many those are, and how many the backbone
    has, without batch norm's counts; what it lacks, and what is not of it, each with the reason;
    and what the names begin with in the state dict.
    """

    tensors: dict[str, Tensor]
    n: int
    n_own: int
    missing: list[str]
    others: list[str]
    prefix: str

    def __str__(self) -> str:
        told = [*self.missing, *self.others]
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        listed = f"; {'; '.join(told[:3])}{more}" if told else ""
        begin = f"; their names begin with {self.prefix!r}" if self.prefix else ""
        own = counted(self.n_own, "tensor")
        return f"{self.n} of the backbone's {own} {plural(self.n, 'fits', 'fit')}{listed}{begin}"


def fit_of(backbone: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Find what of a state dict fits a backbone, by the names that fit best."""
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
    others = [f"{name} is not of the backbone" for name in weights if name not in own]
    n = sum(name in fitting for name in needed)
    return Fit(fitting, n, len(needed), missing, others, prefix)


def downloaded(what: str, fetch: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the weights that a library's `fetch` downloads on first use; `what` names them.

    It raises DataError if that is not possible.
    """
    try:
        return fetch()
    except Exception as error:  # of the hub's client, of the network, of a damaged file
        pass_on_memory(error)
        raise DataError(
            f"cannot download {what} ({one_line(error)}); download the file elsewhere and name it "
            "by --weights FILE"
        ) from error


def load_matching(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load what fits of a state dict; warn of what the backbone lacks.

    The network that the tensors were saved from may have been part of another, and may have had a
    head. It raises DataError, with the first few names of both, if fewer than half of the
    backbone's tensors are there.
    """
    fit = fit_of(backbone, weights)
    if 2 * fit.n < fit.n_own:
        raise DataError(
            f"the weights do not fit the model: {fit.n} of the backbone's {fit.n_own} tensors fit; "
            f"{fit.missing[0]}; the weights have {_first(weights)}; the backbone has "
            f"{_first(backbone.state_dict())}"
        )
    if fit.missing:
        tell_once(logging.WARNING, f"the weights fit the model in part: {fit}")
    backbone.load_state_dict(fit.tensors, strict=False)


def _first(tensors: Mapping[str, Tensor], n: int = 3) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in islice(tensors.items(), n)]
    return ", ".join(shown) + (f" and {len(tensors) - n} more" if len(tensors) > n else "")


@lru_cache(maxsize=256)
def tell_once(level: int, message: str) -> None:
    """Log what every round's new network would say again."""
    _log.log(level, message)


def without_prefix(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return what has the prefix by which most weights fit `own`, without it."""
    return _within(prefix_of(weights, own), weights)


def prefix_of(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return what is to be taken from the names of weights so that most of them fit `own`.

    Where several prefixes fit as well, averages (EMA, a teacher) come before what they were made
    of, and otherwise the first stands.
    """
    counts: Counter[str] = Counter()
    for name in weights:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            place = own.get(name[start:])
            if place is not None and place.shape == weights[name].shape:
                counts[name[:start]] += 1

    def goodness(prefix: str) -> tuple[int, bool]:
        return counts[prefix], not _AVERAGED.isdisjoint(re.split(r"[._]", prefix.lower()))

    return max(counts, key=goodness, default="")


def _fits(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    return name in weights and weights[name].shape == own[name].shape


def backbone_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return what a state dict of skal's own has of the backbone, by the backbone's names."""
    return _within(_OF_SKAL, state)


def _within(prefix: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
