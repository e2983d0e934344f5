"""Limit the candidates of a strategy by free memory and time."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import SkalError
from ..core.memory import available_memory, gib
from .resolve import Strategy, resolve_strategy

USABLE = 0.8  # of the free memory
MOST_EMBEDDED = 100_000
TIMES_PICKED = 10  # least number of candidates, in batches
MOST_LOGARITHMS, SECONDS_A_LOGARITHM = 10**10, 12e-9
UNASKED = 2**26  # bytes that may be used without checking free memory

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Sizes:
    """Sizes of a query. Candidates are the unlabelled images; `n_picks` is at most their number."""

    n_candidates: int
    n_labeled: int
    n_picks: int
    n_classes: int
    n_features: int = 0


def affordable(
    strategy: Strategy, sizes: Sizes, *, device: str = "cpu", scored: bool = False
) -> int:
    """Return how many candidates fit into free memory, and log a warning if these are not all.

    Raises SkalError if fewer than `n_picks` fit. `device` is where skal's own strategies compute;
    `scored` says whether the scores are already in memory.
    """
    if not strategy.needs_model:
        return sizes.n_candidates
    terms = strategy.memory(scored=scored)
    n_candidates, n = sizes.n_candidates, sizes.n_picks
    letters = {"b": n, "C": sizes.n_classes, "D": sizes.n_features, "T": strategy.n_samples}
    known = sizes.n_labeled if strategy.needs_labeled else 0
    free = available_memory(device=device if strategy.reads is not None else "cpu")
    usable = max(USABLE * free, UNASKED)

    def needed(n_rows: int) -> float:
        return bytes_needed(terms, {"n": n_rows, **letters})

    if needed(known + n_candidates) <= usable:
        return n_candidates
    # round down to two digits, so that a rerun is likely to use the same number
    most = bisect_right(range(known + n_candidates), usable, key=needed) - 1 - known
    fitting = most - most % 10 ** max(len(str(max(most, 1))) - 2, 0)
    if fitting < n:
        raise SkalError(
            f"{strategy.name} needs at least {gib(needed(known + n))} of memory to pick {n} "
            f"images; {gib(free)} are free; choose another strategy or a smaller n_query"
        )
    _log.warning(
        "%s needs about %s of memory for %d candidates, but %s are free; choosing among %d, drawn "
        "at random (set max_candidates=%d to fix that number)",
        strategy.name,
        gib(needed(known + n_candidates)),
        n_candidates,
        gib(free),
        fitting,
        fitting,
    )
    return int(fitting)


def shown(strategy: Strategy, n_candidates: int, n_picks: int) -> int:
    """Return the default number of candidates for a strategy.

    Strategies that read embeddings get at most `MOST_EMBEDDED`, or the fact `most`, but at least
    ten times the batch; a warning is logged if these are not all.
    """
    fewer = max(int(strategy.facts.get("most", MOST_EMBEDDED)), TIMES_PICKED * n_picks)
    if not strategy.request.embeddings or n_candidates <= fewer:
        return n_candidates
    _log.warning(
        "%s: choosing among %d of %d images, drawn at random (set max_candidates to change that "
        "number)",
        strategy.name,
        fewer,
        n_candidates,
    )
    return fewer


def within_reach(strategy: Strategy, sizes: Sizes) -> Strategy:
    """Return the strategy, or its `stand_in`, with a warning, if it would take too long."""
    letters = {"n": sizes.n_candidates, "b": sizes.n_picks, "C": sizes.n_classes}
    logarithms = bytes_needed(strategy.facts.get("logarithms", {}), letters)
    if logarithms <= MOST_LOGARITHMS:
        return strategy
    other = resolve_strategy(strategy.facts["stand_in"], {"n_samples": strategy.n_samples})
    _log.warning(
        "%s would take about %d minutes to choose %d of %d images of %d classes; using %s instead "
        "(to keep it, lower max_candidates or n_query)",
        strategy.name,
        round(logarithms * SECONDS_A_LOGARITHM / 60),
        sizes.n_picks,
        sizes.n_candidates,
        sizes.n_classes,
        other.name,
    )
    return other


def bytes_needed(terms: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Evaluate a polynomial of sizes: ``{"nn": 8, "nb": 4}`` is ``8 n n + 4 n b``."""
    products = {letters: math.prod(sizes[letter] for letter in letters) for letters in terms}
    return sum(terms[letters] * product for letters, product in products.items())
