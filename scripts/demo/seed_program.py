# SPDX-License-Identifier: Apache-2.0
"""The program of ObsPy's notes on parallel processing, brought to Python 3: a pool of two forked
processes reads and detrends 50 times, after the parent has used BLAS. Its results are compared with
one made by the parent alone. With --busy, a thread of the parent multiplies matrices meanwhile."""

import multiprocessing
import sys
import time

import numpy as np
import obspy

import case

ITEMS = 50


def process(*args):
    st = obspy.read()
    # Uses problematic BLAS function.
    st.detrend("linear")
    return [trace.data for trace in st]


def main():
    a = case.matrix()
    product = a @ a
    serial = process()
    case.check_surroundings("openblas")
    busy = case.BusyThread(a, product) if "--busy" in sys.argv else None
    if busy:
        busy.start()
        time.sleep(0.1)

    started = case.ready()
    # Python 3.14 no longer forks by default.
    with multiprocessing.get_context("fork").Pool(processes=2) as pool:
        results = pool.map(process, range(ITEMS))
    exact = len(results) == ITEMS and all(
        len(result) == len(serial) and all(map(np.array_equal, result, serial))
        for result in results)
    if busy:
        exact = busy.rest() and exact
    exact = np.array_equal(a @ a, product) and exact
    case.finish(len(results), "results", exact, started)


if __name__ == "__main__":
    main()
