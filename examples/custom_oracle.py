"""A custom oracle: an annotator who is sometimes wrong.

python examples/custom_oracle.py
cd examples; skal run --dataset digits --oracle "custom_oracle:HastyAnnotator?rate=0.2"
"""

import numpy as np

import skal


@skal.ORACLES.register("hasty", summary="says a random class one time in ten")
class HastyAnnotator(skal.Oracle):
    """Knows the labels, but does not always look."""

    def __init__(self, data, seed, rate=0.1):
        self.y, self.n_classes, self.rate = data.y, len(data.classes), rate
        self.rng = np.random.default_rng(seed)

    def label(self, indices):
        """Return class ids."""
        guesses = self.rng.integers(0, self.n_classes, len(indices))
        return np.where(self.rng.random(len(indices)) < self.rate, guesses, self.y[indices])


if __name__ == "__main__":
    print(skal.run("digits", "margin", n_rounds=2, oracle="hasty?rate=0.2").table())
