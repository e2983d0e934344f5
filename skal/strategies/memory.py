"""Among how many images a strategy can choose in the memory that is free, and in time."""

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
TIMES_PICKED = 10  # so many times the batch are shown at least, where there are so many
MOST_LOGARITHMS, SECONDS_A_LOGARITHM = 10**10, 12e-9
UNASKED = 2**26  # bytes that are taken without asking whether they are free

_log = logging.getLogger("skal")


@dataclass(frozen=True)
class Sizes:
    """Of a choice: `n_picks` is at most `n_candidates`, which are the unlabelled images."""

    n_candidates: int
    n_labeled: int
    n_picks: int
    n_classes: int
    n_features: int = 0


def affordable(
    strategy: Strategy, sizes: Sizes, *, device: str = "cpu", scored: bool = False
) -> int:
    """Return among how many candidates a strategy can choose in the memory that is free.

    These are all, or, with a notice, fewer; a SkalError if not even as many as are to be picked.
    `device` is where skal's own strategies compute; `scored`, whether the scores are in memory.
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
    # the largest that fits, to two digits, so that the same is likely to be taken again
    most = bisect_right(range(known + n_candidates), usable, key=needed) - 1 - known
    fitting = most - most % 10 ** max(len(str(max(most, 1))) - 2, 0)
    if fitting < n:
        raise SkalError(
            f"{strategy.name} needs {gib(needed(known + n))} of memory for the smallest choice, "
            f"{n} of {n}, and {gib(free)} are free; take another strategy or a smaller n_query"
        )
    _log.warning(
        "%s needs about %s of memory to choose among %d images, and %s are free: choosing among "
        "%d of them, drawn at random (max_candidates=%d fixes that number)",
        strategy.name,
        gib(needed(known + n_candidates)),
        n_candidates,
        gib(free),
        fitting,
        fitting,
    )
    return int(fitting)


def shown(strategy: Strategy, n_candidates: int, n_picks: int) -> int:
    """Return how many candidates a strategy is shown where the settings name no number.

    What reads embeddings is shown, with a notice, `MOST_EMBEDDED`, unless its facts name another
    number, or ten times as many as are to be picked, if that is more.
    """
    fewer = max(int(strategy.facts.get("most", MOST_EMBEDDED)), TIMES_PICKED * n_picks)
    if not strategy.needs_embeddings or n_candidates <= fewer:
        return n_candidates
    _log.warning(
        "%s: choosing among %d of %d images, drawn at random (max_candidates=%d fixes that number)",
        strategy.name,
        fewer,
        n_candidates,
        fewer,
    )
    return fewer


def within_reach(strategy: Strategy, sizes: Sizes) -> Strategy:
    """Return a strategy, or, with a notice, what stands in for it where it takes too long."""
    letters = {"n": sizes.n_candidates, "b": sizes.n_picks, "C": sizes.n_classes}
    logarithms = bytes_needed(strategy.facts.get("logarithms", {}), letters)
    if logarithms <= MOST_LOGARITHMS:
        return strategy
    other = resolve_strategy(strategy.facts["stand_in"], {"n_samples": strategy.n_samples})
    _log.warning(
        "%s would take about %d minutes to choose %d of %d images of %d classes: %s chooses in its "
        "place (fewer images, by max_candidates, or a smaller n_query keep it)",
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
