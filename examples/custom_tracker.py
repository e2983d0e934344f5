"""A custom tracker, called after every round.

python examples/custom_tracker.py
"""

import skal


@skal.TRACKERS.register("best", summary="remembers the best round")
class Best(skal.Tracker):
    """Keeps the row of the highest accuracy."""

    row = {"accuracy": 0.0}  # noqa: RUF012

    def on_round(self, row):
        """Compare."""
        self.row = max(self.row, row, key=lambda one: one["accuracy"])


if __name__ == "__main__":
    best = Best()
    skal.run("digits", "margin", n_rounds=2, trackers=[best])
    print(f"best: round {best.row['round']}, accuracy {best.row['accuracy']:.3f}")
