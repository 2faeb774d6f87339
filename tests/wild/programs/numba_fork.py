# SPDX-License-Identifier: Apache-2.0
"""Runs a parallel loop of numba in children, on a threading layer: numba_fork.py workqueue|omp"""
import sys

import numba
import numpy as np

import wild

numba.config.THREADING_LAYER = sys.argv[1]
x = np.random.default_rng(1).standard_normal(1_000_000)


@numba.njit(parallel=True)
def smooth(values):
    result = np.empty_like(values)
    for i in numba.prange(len(values)):
        result[i] = (values[i - 1] + values[i]) / 2
    return result


wild.fork_and_compare(lambda: smooth(x))
