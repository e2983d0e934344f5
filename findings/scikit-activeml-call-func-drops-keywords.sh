#!/usr/bin/env bash
# scikit-activeml 1.0.1: utils.call_func drops a misspelt keyword without a word.
#
# It calls any strategy's query with one set of keywords, by dropping those that the query does not take. Asked by
# `call_func(query.query, ..., batch_sise=5)` a strategy returns one sample. Output:
#
#     asked for batch_sise=5: 1 sample, no error, no warning
set -euo pipefail
"$(dirname "$0")/check" scikit-activeml==1.0.1 scikit-learn==1.9.1 numpy==2.4.6 <<'PYTHON'
import warnings

import numpy as np
from skactiveml.pool import RandomSampling
from skactiveml.utils import call_func

query = RandomSampling(missing_label=-1, random_state=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    picks = call_func(query.query, X=np.zeros((20, 1)), y=np.full(20, -1), batch_sise=5)
print(f"asked for batch_sise=5: {len(picks)} sample, no error, {len(caught) or 'no'} warning")
assert len(picks) == 1 and not caught
PYTHON
