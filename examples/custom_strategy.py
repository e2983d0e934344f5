"""A custom query strategy, which is also a scikit-activeml strategy.

python examples/custom_strategy.py
cd examples; skal run --dataset digits --strategy "custom_strategy:RatioSampling?power=2"
"""

import numpy as np

import skal
from skal.strategies import ScoreStrategy


@skal.STRATEGIES.register("ratio", needs="scores", summary="second over first class")
class RatioSampling(ScoreStrategy):
    """Picks images whose two most probable classes are closest in ratio."""

    def __init__(self, power=1.0):
        self.power = power

    def score(self, scores):
        """Return a utility for each image."""
        top = np.sort(scores.proba, axis=1)[:, -2:]
        return (top[:, 0] / top[:, 1]) ** self.power


if __name__ == "__main__":
    print(skal.run("digits", "ratio", n_rounds=2).table())
