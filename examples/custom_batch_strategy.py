"""A custom query strategy that picks whole batches, and the checks that it passes.

python examples/custom_batch_strategy.py
"""

import numpy as np

import skal
from skal.strategies import BatchStrategy
from skal.testing import check_strategy


@skal.STRATEGIES.register("turns", summary="the least certain image of each class in turn")
class TakingTurns(BatchStrategy):
    """Cycles through the predicted classes, so that the batch is as balanced as possible."""

    def pick(self, scores, b, rng):
        """Return the rows of b images."""
        sure, predicted = scores.proba.max(axis=1), scores.proba.argmax(axis=1)
        order = np.lexsort((rng.random_sample(len(sure)), sure, predicted))
        starts = np.searchsorted(predicted[order], predicted[order])
        turn = np.arange(len(order)) - starts
        return order[np.lexsort((sure[order], turn))][:b]


if __name__ == "__main__":
    check_strategy("turns")
    print(skal.run("digits", "turns", n_rounds=2).table())
