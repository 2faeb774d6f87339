# SPDX-License-Identifier: Apache-2.0
"""Runs joblib's backends whose workers are processes: joblib_workers.py loky|multiprocessing"""
import os
import sys

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from pool_work import SEEDS, run, square


def parallel():
    answers = Parallel(batch_size=1)(delayed(square)(seed) for seed in SEEDS)
    if backend == "loky":
        get_reusable_executor().shutdown()  # else the next round would use the same workers
    return answers


if __name__ == "__main__":
    backend = sys.argv[1]
    # By default loky gives each worker a share of the cores. With fewer threads the result differs
    # in its last bits.
    threads = {"inner_max_num_threads": os.cpu_count()} if backend == "loky" else {}
    with parallel_config(backend=backend, n_jobs=4, **threads):
        run(parallel)
