# SPDX-License-Identifier: Apache-2.0
"""Runs scikit-learn's nearest neighbours, which use GNU OpenMP, in joblib's workers. No call is in
flight when they are forked."""
import numpy as np
from joblib import Parallel, delayed
from sklearn.neighbors import NearestNeighbors

from pool_work import SEEDS, answer, run

model = NearestNeighbors(algorithm="brute").fit(
    np.random.default_rng(1).standard_normal((1000, 20)))


def neighbors(seed):
    queries = np.random.default_rng(seed).standard_normal((3000, 20))
    return answer(seed, model.kneighbors(queries))


def parallel():
    return Parallel(n_jobs=4, backend="multiprocessing", batch_size=1)(
        delayed(neighbors)(seed) for seed in SEEDS)


run(parallel, neighbors, in_flight=False)
