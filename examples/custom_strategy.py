"""A query strategy of one's own, in scikit-activeml's interface.

python examples/custom_strategy.py
"""

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy

import skal


@skal.STRATEGIES.register("ratio", needs="scores", summary="second likeliest over likeliest class")
class RatioSampling(SingleAnnotatorPoolQueryStrategy):
    """Picks where the two likeliest classes are closest by their ratio."""

    def query(self, X, y, clf, fit_clf=False, candidates=None, batch_size=1, **kwargs):
        """Return the indices of a batch."""
        X, y, candidates, batch_size, _ = self._validate_data(X, y, candidates, batch_size, False)
        X_candidates, mapping = self._transform_candidates(candidates, X, y)
        top = np.sort(clf.predict_proba(X_candidates), axis=1)[:, -2:]
        return mapping[np.argsort(-top[:, 0] / top[:, 1], kind="stable")[:batch_size]]


if __name__ == "__main__":
    print(skal.run("digits", "ratio", n_rounds=2).table())
