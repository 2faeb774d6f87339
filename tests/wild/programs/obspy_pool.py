# SPDX-License-Identifier: Apache-2.0
"""Runs obspy's Stream.detrend and filter in the workers of a Pool, after the parent has used them:
obspy_pool.py idle|flight"""
import multiprocessing
import sys

import obspy

from pool_work import SEEDS, answer, run


def process(seed):
    stream = obspy.read()
    stream.detrend("linear")
    stream.filter("bandpass", freqmin=1, freqmax=10 + seed)
    return answer(seed, [trace.data for trace in stream])


def pool():
    with multiprocessing.Pool(4) as workers:
        return workers.map(process, SEEDS, chunksize=1)


run(pool, process, in_flight=sys.argv[1] == "flight")
