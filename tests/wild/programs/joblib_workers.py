# SPDX-License-Identifier: Apache-2.0
"""joblib's workers that are processes."""
import os
import sys

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from pool_work import SEEDS, run, square


def parallel():
    answers = Parallel(batch_size=1)(delayed(square)(seed) for seed in SEEDS)
    if backend == "loky":
        get_reusable_executor().shutdown()  # it would keep its workers
    return answers


if __name__ == "__main__":
    backend = sys.argv[1]
    # loky gives each worker its share of the cores, and fewer threads get other bits.
    threads = {"inner_max_num_threads": os.cpu_count()} if backend == "loky" else {}
    with parallel_config(backend=backend, n_jobs=4, **threads):
        run(parallel)
