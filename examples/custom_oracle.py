"""An oracle of one's own: an annotator who is wrong now and then.

python examples/custom_oracle.py
"""

import numpy as np

import skal


@skal.ORACLES.register("hasty", summary="says a random class one time in ten")
class HastyAnnotator(skal.Oracle):
    """Knows the labels and does not always look."""

    def __init__(self, y, n_classes, seed=0):
        self.y, self.n_classes, self.rng = y, n_classes, np.random.default_rng(seed)

    def label(self, indices):
        """Return class ids."""
        guesses = self.rng.integers(0, self.n_classes, len(indices))
        return np.where(self.rng.random(len(indices)) < 0.1, guesses, self.y[indices])


if __name__ == "__main__":
    digits = skal.load_dataset("digits")
    print(skal.run(digits, "margin", n_rounds=2, oracle=HastyAnnotator(digits.y, 10)).table())
