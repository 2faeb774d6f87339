# SPDX-License-Identifier: Apache-2.0
"""Sends itself Ctrl-C in the middle of a Pool's map, then makes a new Pool."""
import multiprocessing
import os
import signal
import sys

from pool_work import SEEDS, run, square


def pool():
    # Workers ignore Ctrl-C. A worker that dies of it may hold a lock of the Pool, which then hangs.
    return multiprocessing.Pool(4, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def trace(seed):
    if seed == 20:
        os.killpg(0, signal.SIGINT)  # as the terminal does
    return square(seed)[1].trace()


def interrupted():
    try:
        with pool() as workers:
            workers.map(trace, range(200), chunksize=1)
        sys.exit("nothing was interrupted")
    except KeyboardInterrupt:
        pass
    with pool() as workers:
        answers = workers.map(square, SEEDS, chunksize=1)
        workers.close()
        workers.join()
    return answers


# A shell ignores SIGINT in what it starts with `&`, and Python then leaves it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
run(interrupted)
try:
    os.waitpid(-1, os.WNOHANG)
    sys.exit("a child process is left")
except ChildProcessError:
    pass
