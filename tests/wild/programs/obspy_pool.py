# SPDX-License-Identifier: Apache-2.0
"""obspy's Stream.detrend and filter in the workers of a Pool, after their parent has used them."""
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
