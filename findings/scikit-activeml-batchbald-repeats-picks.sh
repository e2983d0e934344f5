#!/usr/bin/env bash
# scikit-activeml 1.0.1: BatchBALD returns the same sample several times in a batch, where samples tie.
#
# Its answer is the arg max of each row of utilities, drawn anew among those that tie, and not the sample
# that the batch went on with. The samples that it went on with are those whose utility is NaN from the next
# row on. Output:
#
#     [24, 26, 16, 16, 16, 16]
#     3 of 6 picks differ
set -euo pipefail
"$(dirname "$0")/check" scikit-activeml==1.0.1 scikit-learn==1.9.1 numpy==2.4.6 <<'PYTHON'
import numpy as np
from skactiveml.classifier import ParzenWindowClassifier
from skactiveml.pool import BatchBALD

X = np.repeat(np.random.default_rng(0).normal(size=(10, 1)), 4, axis=0)  # each sample four times
members = [
    ParzenWindowClassifier(classes=[0, 1], missing_label=-1, metric_dict={"gamma": gamma}).fit(
        [[-1], [1]], [label, 1 - label]
    )
    for label in (0, 1)
    for gamma in (0.3, 3)
]
query = BatchBALD(n_MC_samples=40, missing_label=-1, random_state=0)
picks = query.query(X, np.full(40, -1), ensemble=members, fit_ensemble=False, batch_size=6)
print(picks.tolist())
print(len(set(picks.tolist())), "of 6 picks differ")
assert len(set(picks.tolist())) < 6
PYTHON
