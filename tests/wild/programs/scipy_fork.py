# SPDX-License-Identifier: Apache-2.0
"""Runs scipy.linalg in children, while three threads of the parent are inside lu_factor or qr. These
two release the GIL; svd, eigh and solve keep it: scipy_fork.py lu|svd|eigh|solve"""
import sys

import numpy as np
from scipy import linalg

import wild

a = np.random.default_rng(1).standard_normal((210, 210))
small = a[:70, :70]


def lu():
    return linalg.lu_factor(a)[0]


def qr():
    return linalg.qr(a, mode="r")


work = {
    "lu": lu,
    "svd": lambda: linalg.svd(small),
    "eigh": lambda: linalg.eigh(small + small.T),
    "solve": lambda: linalg.solve(a, a[0]),
}[sys.argv[1]]

with wild.in_flight(lu if work is lu else qr, threads=3):
    wild.fork_and_compare(work)
