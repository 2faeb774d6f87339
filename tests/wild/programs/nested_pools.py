# SPDX-License-Identifier: Apache-2.0
"""The workers of a pool make pools of their own. Each process forks while another thread is inside
a @ a."""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import wild
from pool_work import SEEDS, run, square


def inner(seed):
    with wild.in_flight(lambda: square(seed)[1]), multiprocessing.Pool(4) as workers:
        return [square(seed), *workers.map(square, SEEDS, chunksize=1)]


def outer():
    with ProcessPoolExecutor(2) as workers:
        return [answer for answers in workers.map(inner, range(5)) for answer in answers]


run(outer)
