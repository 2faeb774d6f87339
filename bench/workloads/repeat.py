# SPDX-License-Identifier: Apache-2.0
"""usage: repeat.py WORK POOLS

Runs the same 40 tasks in POOLS pools of two workers, and in the parent. Prints how many tasks had the
same result to the bit in all pools, and how many had the parent's result in all pools."""
import hashlib
import json
import sys

import works
from pools import run_pool

TASKS = 40


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def products600(seed):
    a = works.matrix(600, seed)
    return digest(a @ a)


def singular_values(seed):
    import numpy as np

    return digest(np.linalg.svd(works.matrix(300, seed), compute_uv=False))


def main():
    function, pools = globals()[sys.argv[1]], int(sys.argv[2])
    expected = [function(seed) for seed in range(TASKS)]
    found = [run_pool("fork", 2, function, range(TASKS))[0] for _ in range(pools)]
    print(json.dumps({
        "tasks": TASKS, "pools": pools,
        "repeated": sum(len(set(results)) == 1 for results in zip(*found)),
        "as_parent": sum(set(results) == {own} for own, results in zip(expected, zip(*found)))}))


if __name__ == "__main__":
    main()
