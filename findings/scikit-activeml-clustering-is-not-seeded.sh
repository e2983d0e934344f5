#!/usr/bin/env bash
# scikit-activeml 1.0.1: Clue and DropQuery with a fixed random_state answer by numpy's global generator.
#
# Both cluster by scikit-learn's KMeans and do not pass their random_state on to it. With
# cluster_algo_dict={"random_state": 0} they repeat. Output:
#
#     Clue: 5 answers for one random_state, 1 with cluster_algo_dict
#     DropQuery: 5 answers for one random_state, 1 with cluster_algo_dict
set -euo pipefail
"$(dirname "$0")/check" scikit-activeml==1.0.1 scikit-learn==1.9.1 numpy==2.4.6 <<'PYTHON'
import numpy as np
from skactiveml.classifier import ParzenWindowClassifier
from skactiveml.pool import Clue, DropQuery

X = np.random.default_rng(0).normal(size=(300, 4))
y = np.full(300, -1)
y[:6] = [0, 1, 2, 0, 1, 2]
clf = ParzenWindowClassifier(classes=[0, 1, 2], missing_label=-1, random_state=0)


def answers(cls, keyword, **options):
    """How many different batches there are for the same random_state."""
    seen = set()
    for state in range(5):
        np.random.seed(state)  # as any other code in the same process might
        query = cls(missing_label=-1, random_state=0, **options)
        seen.add(tuple(query.query(X, y, **{keyword: clf}, batch_size=10).tolist()))
    return len(seen)


for cls, keyword in ((Clue, "estimator"), (DropQuery, "clf")):
    loose = answers(cls, keyword)
    seeded = answers(cls, keyword, cluster_algo_dict={"random_state": 0})
    print(f"{cls.__name__}: {loose} answers for one random_state, {seeded} with cluster_algo_dict")
    assert loose > 1 and seeded == 1
PYTHON
