#!/usr/bin/env bash
# scikit-activeml 1.0.1: TypiClust returns the same sample several times if candidates are a subset.
#
# A loop that takes the length of the answer for the number of new labels counts wrong, and pays twice.
# Without `candidates` the same call returns 20 different samples. Output:
#
#     20 picks among 40 candidates, 19 of them different; among all, 20
set -euo pipefail
"$(dirname "$0")/check" scikit-activeml==1.0.1 scikit-learn==1.9.1 numpy==2.4.6 <<'PYTHON'
import numpy as np
from skactiveml.pool import TypiClust

rng = np.random.default_rng(1)
X = rng.normal(size=(300, 4))
y = np.full(300, -1)
y[:6] = [0, 1, 2, 0, 1, 2]
candidates = rng.permutation(np.arange(6, 300))[:40]


def pick(**options):
    query = TypiClust(missing_label=-1, random_state=0)
    return query.query(X, y, batch_size=20, **options).tolist()


some, every = pick(candidates=candidates), pick()
print(
    f"{len(some)} picks among 40 candidates, {len(set(some))} of them different; "
    f"among all, {len(set(every))}"
)
assert len(some) == 20 and len(set(some)) < 20 and len(set(every)) == 20
PYTHON
