# SPDX-License-Identifier: Apache-2.0
"""usage: fork_and_multiply.py BLAS [--busy]

Forks 40 times after the parent has used BLAS. Each child multiplies a matrix by itself and compares the
product with the parent's. BLAS is a part of the path of the library that numpy must use. With --busy, a
thread of the parent multiplies all the time."""

import os
import sys
import time

import numpy as np

import case

FORKS = 40
CHILD_SIZE = 300  # large enough to use the pool, and fast enough for 40 children beside a busy thread


def main():
    a = case.matrix()
    product = a @ a
    small = case.matrix(CHILD_SIZE)
    small_product = small @ small
    case.check_surroundings(sys.argv[1])
    busy = case.BusyThread(a, product) if "--busy" in sys.argv else None
    if busy:
        busy.start()
        time.sleep(0.1)

    started = case.ready()
    exact = True
    for _ in range(FORKS):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(small @ small, small_product) else 1)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            sys.exit(f"a child ended by signal {os.WTERMSIG(status)}")
        exact = status == 0 and exact
    if busy:
        exact = busy.rest() and exact
    exact = np.array_equal(a @ a, product) and exact
    case.finish(FORKS, "forks", exact, started)


if __name__ == "__main__":
    main()
