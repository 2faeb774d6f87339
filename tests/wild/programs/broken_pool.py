# SPDX-License-Identifier: Apache-2.0
"""A worker aborts or is killed. The parent makes a new pool and computes on."""
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from pool_work import SEEDS, run, square


def die(number):
    square(0)
    os.kill(os.getpid(), number)


def broken():
    answers = []
    for number in signal.SIGABRT, signal.SIGKILL:
        with ProcessPoolExecutor(4) as workers:
            answers += workers.map(square, SEEDS)
            try:
                workers.submit(die, number).result()
                sys.exit("the pool is not broken")
            except BrokenProcessPool:
                pass
    return answers


run(broken)
