# SPDX-License-Identifier: Apache-2.0
"""detrend.py N [obspy]: the program of ObsPy's notes on parallel processing. The parent detrends once,
then a Pool of two detrends N times. Prints a dot for each exact result.

Without the word `obspy` the program needs numpy alone: it does the steps of ObsPy's detrend("linear")
itself, which are those of scipy.signal.detrend.

A trace has 60,000 samples, ten minutes at 100 Hz. OpenBLAS's dgemv uses threads for a matrix of 9,216
elements or more. ObsPy's own example, with 3,000 samples in 2 columns, is too short for that."""
import multiprocessing
import sys

import numpy as np

SAMPLES = 60_000


def detrend_in_numpy():
    trace = np.random.default_rng(0).random(SAMPLES)
    line = np.ones((SAMPLES, 2))
    line[:, 0] = np.arange(1, SAMPLES + 1) / SAMPLES
    coefficients = np.linalg.lstsq(line, trace, rcond=None)[0]
    return [trace - line @ coefficients]


def detrend_in_obspy():
    import obspy
    stream = obspy.read()
    for trace in stream:
        trace.data = np.tile(trace.data, SAMPLES // len(trace.data))
    stream.detrend("linear")
    return [trace.data for trace in stream]


detrend = detrend_in_obspy if "obspy" in sys.argv else detrend_in_numpy


def process(_):
    return detrend()


if __name__ == "__main__":
    expected = detrend()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for result in pool.imap(process, range(int(sys.argv[1]))):
            if not (len(result) == len(expected) and all(map(np.array_equal, result, expected))):
                sys.exit("inexact")
            sys.stdout.write(".")
            sys.stdout.flush()
    if not all(map(np.array_equal, detrend(), expected)):
        sys.exit("inexact in the parent at the end")
