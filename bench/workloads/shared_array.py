# SPDX-License-Identifier: Apache-2.0
"""usage: shared_array.py METHOD

Runs 100 small tasks on a 32 MB array of the parent in a pool of two workers, and prints the time from
the pool's start to its end. A forked worker has the array already. A spawned worker gets it from the
initializer. A worker of loky gets it from joblib, which maps it."""
import json
import sys

import numpy as np

from pools import run_pool

TASKS, ROWS = 100, 20
array = None  # in the parent, and in each worker


def initialize(given):
    global array
    array = given


def task_on(index, given):
    rows = given[index * ROWS:(index + 1) * ROWS]
    return (rows @ rows.T).sum()


def task(index):
    return task_on(index, array)


def main():
    method = sys.argv[1]
    initialize(np.random.default_rng(1).random((TASKS * ROWS, 2000)))
    expected = [task(index) for index in range(TASKS)]
    arguments = {"fork": (task, range(TASKS)),
                 "loky": (task_on, range(TASKS), None, (array,)),
                 }.get(method, (task, range(TASKS), initialize, (array,)))
    results, seconds = run_pool(method, 2, *arguments)
    assert np.allclose(results, expected)
    print(json.dumps({"pool_s": seconds, "megabytes": array.nbytes / 1e6}))


if __name__ == "__main__":
    main()
