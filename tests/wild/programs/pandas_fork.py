# SPDX-License-Identifier: Apache-2.0
"""Runs pandas' DataFrame.eval, which uses numexpr's threads, in children: idle, or while another
thread is inside the product of two frames: pandas_fork.py idle|flight"""
import contextlib
import sys

import numpy as np
import pandas as pd

import wild

frame = pd.DataFrame(np.random.default_rng(1).standard_normal((100_000, 2)), columns=["x", "y"])
square = pd.DataFrame(frame.to_numpy()[:300 * 150].reshape(300, 300))


def product():
    return (square @ square).to_numpy()


def compute():
    return [frame.eval("x * y + sin(x)", engine="numexpr").to_numpy(), product()]


with wild.in_flight(product) if sys.argv[1] == "flight" else contextlib.nullcontext():
    wild.fork_and_compare(compute)
