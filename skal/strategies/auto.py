"""The strategy to take when none is named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..scoring import Scores
from .base import ScoreStrategy
from .uncertainty import margin


class Auto(ScoreStrategy):
    """Margin."""

    def score(self, scores: Scores) -> NDArray[np.float64]:
        """Return one minus the margin."""
        return margin(scores.proba)
