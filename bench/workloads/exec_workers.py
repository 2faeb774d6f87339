# SPDX-License-Identifier: Apache-2.0
"""usage: exec_workers.py METHOD

Lets two workers compute products 600 x 600 at the same time, and prints how long they take, without the
time of their start. METHOD is a start method of multiprocessing, or loky, or joblib, which starts workers by
loky and gives each its share of the processors by variables like OPENBLAS_NUM_THREADS."""
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import joblib
from joblib.externals.loky import get_reusable_executor

import works

PRODUCTS = 100


def multiply(products):
    a = works.matrix(600)
    for _ in range(products):
        a @ a
    return os.getpid()


def in_both(executor, products):
    """Returns the seconds that two workers need, each for that many products."""
    while True:
        begin = time.perf_counter()
        workers = set(executor(multiply, [products] * 2))
        if len(workers) == 2:  # else one worker has done the work of both
            return time.perf_counter() - begin


def by_joblib(function, items):
    return joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(function)(item) for item in items)


def main():
    method = sys.argv[1]
    if method == "joblib":
        executor = by_joblib
    elif method == "loky":
        executor = get_reusable_executor(2).map
    else:
        executor = ProcessPoolExecutor(2, multiprocessing.get_context(method)).map
    in_both(executor, PRODUCTS // 2)  # starts the workers and their threads
    print(json.dumps({"work_s": in_both(executor, PRODUCTS)}))


if __name__ == "__main__":
    main()
