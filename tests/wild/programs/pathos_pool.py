# SPDX-License-Identifier: Apache-2.0
"""Runs a lambda in pathos' ProcessPool."""
from pathos.pools import ProcessPool

from pool_work import SEEDS, run, square


def pool():
    workers = ProcessPool(4)
    answers = workers.map(lambda seed: square(seed), SEEDS)
    workers.close()
    workers.join()
    workers.clear()
    return answers


run(pool)
