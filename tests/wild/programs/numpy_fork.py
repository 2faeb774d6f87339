# SPDX-License-Identifier: Apache-2.0
"""Forks, idle or while another thread is inside a @ a: numpy_fork.py idle|flight"""
import contextlib
import sys

import numpy as np

import wild

a = np.random.default_rng(1).standard_normal((400, 400))
b = np.random.default_rng(2).standard_normal((300, 300))


with wild.in_flight(lambda: b @ b) if sys.argv[1] == "flight" else contextlib.nullcontext():
    wild.fork_and_compare(lambda: a @ a)
