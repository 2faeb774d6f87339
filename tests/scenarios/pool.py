# SPDX-License-Identifier: Apache-2.0
"""Computes N products in a forked Pool after the parent has used BLAS. Prints a dot for each exact
result."""
import multiprocessing
import sys

import numpy as np

a = np.random.default_rng(0).random((200, 200))


def product(i):
    return (a * i) @ a


if __name__ == "__main__":
    n = int(sys.argv[1])
    expected = [product(i) for i in range(n)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for result, wanted in zip(pool.imap(product, range(n)), expected):
            if not (result == wanted).all():
                sys.exit("inexact")
            sys.stdout.write(".")
            sys.stdout.flush()
