# SPDX-License-Identifier: Apache-2.0
"""LightGBM trains in this process, and then in a Pool of its children, which must get the same. It hangs
without the library: LightGBM's GNU OpenMP waits for the parent's threads."""
import sys

if "reexec" in sys.argv:
    import forksafe
    forksafe.reexec()

import multiprocessing

import lightgbm
import numpy

data = numpy.random.default_rng(1).standard_normal((1000, 20))
SETTINGS = {"num_leaves": 7, "deterministic": True, "force_col_wise": True, "verbose": -1, "num_threads": 2}


def train(column):
    model = lightgbm.train(SETTINGS, lightgbm.Dataset(data, data[:, column]), 2)
    return model.predict(data).tolist()


def test_pool():
    alone = [train(column) for column in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(train, range(4), chunksize=1) == alone


if __name__ == "__main__":
    test_pool()
    if "runtimes" in sys.argv:
        print(sorted({(runtime["user_api"], runtime["guarded"]) for runtime in forksafe.runtimes()
                      if runtime["internal_api"] == "openmp"}))
    print("exact")
