# SPDX-License-Identifier: Apache-2.0
"""Each rank forks, idle or while another thread is inside a @ a. Then the ranks add up their products
again: mpi_fork.py idle|flight"""
import contextlib
import sys

import numpy as np
from mpi4py import MPI

import wild

a = np.random.default_rng(MPI.COMM_WORLD.rank).standard_normal((400, 400))


def total():
    return MPI.COMM_WORLD.allreduce(a @ a)


expected = total()
with wild.in_flight(lambda: a @ a) if sys.argv[1] == "flight" else contextlib.nullcontext():
    wild.fork_and_compare(lambda: a @ a)
if not wild.same(total(), expected):
    sys.exit("after the forks, the sum of the ranks differs")
