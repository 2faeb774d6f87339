# SPDX-License-Identifier: Apache-2.0
"""Runs workers of Parallel Python: new processes, to which it sends functions as source text."""
import ppft

from pool_work import SEEDS, run


def remote(seed):
    from pool_work import square
    return square(seed)


def server():
    workers = ppft.Server(ncpus=4)
    jobs = [workers.submit(remote, (seed,)) for seed in SEEDS]
    answers = [job() for job in jobs]
    workers.destroy()
    return answers


run(server)
