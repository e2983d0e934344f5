"""A query strategy of one's own; it is one of scikit-activeml's, too.

python examples/custom_strategy.py
"""

import numpy as np

import skal
from skal.strategies import ScoreStrategy


@skal.STRATEGIES.register("ratio", needs="scores", summary="second likeliest over likeliest class")
class RatioSampling(ScoreStrategy):
    """Picks where the two likeliest classes are closest by their ratio."""

    def score(self, scores):
        """Return a utility for each image."""
        top = np.sort(scores.proba, axis=1)[:, -2:]
        return top[:, 0] / top[:, 1]


if __name__ == "__main__":
    print(skal.run("digits", "ratio", n_rounds=2).table())
