# SPDX-License-Identifier: Apache-2.0
# A cell of a notebook: products in a Pool of forked workers, after the kernel has used scikit-learn.
import multiprocessing
import os

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

import wild

a = np.random.default_rng(1).standard_normal((400, 10))
model = HistGradientBoostingRegressor(max_iter=3).fit(a, a[:, 0])
expected = model.predict(a)


def task(_):
    return os.getpid(), wild.same(model.predict(a), expected)


wild.parent_is_ready()
with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
    for worker, good in pool.imap_unordered(task, range(wild.forks)):
        if not good:
            raise SystemExit("a worker's result differs")
        wild.forked_well()
