"""Independent seeds for each purpose, derived from one."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Purpose = Literal[
    # append only: the positions are part of the seeds
    "split", "init", "training", "strategy", "oracle", "noise",
    "candidates", "explore", "stop", "stream", "calibration", "valid", "pretrain",
]  # fmt: skip
_NUMBERS = {purpose: number for number, purpose in enumerate(get_args(Purpose))}


def derive_seed(seed: int, purpose: Purpose, round_number: int = 0) -> int:
    """Derive the seed, in ``[0, 2**31)``, of one purpose in one round. Purposes and rounds are
    independent of each other and of the strategy, so runs with the same `seed` share split, initial
    set and training randomness, and can be compared in pairs.
    """
    sequence = np.random.SeedSequence([seed, _NUMBERS[purpose], round_number])
    return int(sequence.generate_state(1)[0] >> 1)
