#!/usr/bin/env bash
# scikit-activeml 1.0.1: SklearnClassifier around an estimator whose fit raises predicts the class shares.
#
# A training that ran out of memory, or whose data were wrong, becomes a warning; the loop goes on with
# predictions that are the same for every sample, and uncertainty sampling is a draw. Output:
#
#     warned: The 'base_estimator' could not be fitted because of 'out of memory'.
#     predicts [0.75, 0.25] for all samples
set -euo pipefail
"$(dirname "$0")/check" scikit-activeml==1.0.1 scikit-learn==1.9.1 numpy==2.4.6 <<'PYTHON'
import warnings

import numpy as np
from skactiveml.classifier import SklearnClassifier
from sklearn.linear_model import LogisticRegression


class Fails(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        raise RuntimeError("out of memory")


X, y = np.arange(10.0)[:, None], np.array([0, 0, 0, 1, *[-1] * 6])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    clf = SklearnClassifier(Fails(), classes=[0, 1], missing_label=-1).fit(X, y)
    proba = clf.predict_proba(X)
first = str(caught[0].message)
print("warned:", first[: first.index(". Therefore") + 1])
print(f"predicts {proba[0].tolist()} for all samples")
assert "out of memory" in first and (proba == [0.75, 0.25]).all()
PYTHON
