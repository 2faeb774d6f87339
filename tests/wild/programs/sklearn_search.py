# SPDX-License-Identifier: Apache-2.0
"""Runs GridSearchCV in joblib's forked workers, after the same search in the parent."""
import sys

import numpy as np
from joblib import parallel_config
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GridSearchCV

import wild

WORKERS = 4
data = np.random.default_rng(1).standard_normal((500, 5))


def scores():
    search = GridSearchCV(HistGradientBoostingRegressor(max_iter=2), {"max_depth": [1, 2]}, cv=2)
    return search.fit(data, data.sum(axis=1)).cv_results_["mean_test_score"]


expected = scores()
wild.parent_is_ready()
for _ in range(0, wild.forks, WORKERS):
    with parallel_config(backend="multiprocessing", n_jobs=WORKERS):
        found = scores()
    if not wild.same(found, expected):
        sys.exit("the workers' scores differ")
    wild.forked_well(WORKERS)
if not wild.same(scores(), expected):
    sys.exit("after the forks, the parent's scores differ")
