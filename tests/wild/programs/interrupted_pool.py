# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of a Pool's map, and a new Pool after it."""
import multiprocessing
import os
import signal
import sys

from pool_work import SEEDS, run, square


def pool():
    # Workers must leave Ctrl-C to their parent: one that dies of it may take a lock with it.
    return multiprocessing.Pool(4, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def trace(seed):
    if seed == 20:
        os.killpg(0, signal.SIGINT)  # what the terminal does
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


signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
run(interrupted)
try:
    os.waitpid(-1, os.WNOHANG)
    sys.exit("a process is left")
except ChildProcessError:
    pass
