# SPDX-License-Identifier: Apache-2.0
"""The program of ObsPy's notes on parallel processing, in Python 3. The parent reads and detrends a
stream once. Then a pool of two forked processes does the same 50 times.

The traces are 20 times as long as ObsPy's example of 3,000 samples: ten minutes at 100 Hz. detrend()
fits a line to each trace, and multiplies a matrix with two columns by a vector for that. OpenBLAS uses
its threads for such a product if the matrix has 9,216 elements or more. For ObsPy's own example it uses
no thread, so nothing can hang."""

import multiprocessing

import numpy as np
import obspy

import case

ITEMS = 50
TIMES_AS_LONG = 20


def process(*args):
    st = obspy.read()
    for trace in st:
        trace.data = np.tile(trace.data, TIMES_AS_LONG)
    # Uses problematic BLAS function.
    st.detrend("linear")
    return [trace.data for trace in st]


def main():
    serial = process()
    case.check_surroundings("openblas-openmp")

    started = case.ready()
    # Python 3.14 no longer forks by default.
    with multiprocessing.get_context("fork").Pool(processes=2) as pool:
        results = pool.map(process, range(ITEMS))
    exact = len(results) == ITEMS and all(
        len(result) == len(serial) and all(map(np.array_equal, result, serial))
        for result in results)
    exact = all(map(np.array_equal, process(), serial)) and exact
    case.finish(len(results), "results", exact, started)


if __name__ == "__main__":
    main()
