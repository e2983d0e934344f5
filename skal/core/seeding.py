"""One seed, and from it an independent one for each purpose."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Purpose = Literal[
    # new ones at the end: their places are part of the seeds
    "split", "init", "training", "strategy", "oracle", "noise",
    "candidates", "explore", "stop", "stream", "calibration", "valid", "pretrain",
]  # fmt: skip
_NUMBERS = {purpose: number for number, purpose in enumerate(get_args(Purpose))}


def derive_seed(seed: int, purpose: Purpose, round_number: int = 0) -> int:
    """Derive the seed of one purpose in one round.

    Runs with the same `seed` share the split, the initial set, the network's initialisation and
    the training randomness of each round whatever their strategy, so that they can be compared in
    pairs; purposes and rounds are independent of each other.

    Parameters
    ----------
    seed : int
        The one seed that the user gave, not negative.
    purpose : {"split", "init", "training", "strategy", "oracle", "noise", ...}
        What the derived seed is for.
    round_number : int, default=0
        The round, since an unchanged seed would repeat the same draws in every round.

    Returns
    -------
    int
        In ``[0, 2**31)``, which numpy, scikit-learn and torch all take.
    """
    sequence = np.random.SeedSequence([seed, _NUMBERS[purpose], round_number])
    return int(sequence.generate_state(1)[0] >> 1)
