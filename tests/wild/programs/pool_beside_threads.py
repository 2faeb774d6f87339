# SPDX-License-Identifier: Apache-2.0
"""Makes a Pool while the threads of another pool compute: pool_beside_threads.py executor|joblib"""
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

from pool_work import Parent, SEEDS, square


def executor(seeds):
    with ThreadPoolExecutor(3) as threads:
        yield from threads.map(square, seeds)


def joblib(seeds):
    from joblib import Parallel, delayed
    return Parallel(3, backend="threading", return_as="generator")(
        delayed(square)(seed) for seed in seeds)


in_threads = {"executor": executor, "joblib": joblib}[sys.argv[1]]
parent = Parent()
while not parent.enough():
    answers = in_threads([*SEEDS] * 3)
    first = next(answers)
    with multiprocessing.Pool(4) as workers:
        parent.compare(workers.map(square, SEEDS, chunksize=1))
    parent.compare([first, *answers])
parent.compare(map(square, SEEDS))
