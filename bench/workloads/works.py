# SPDX-License-Identifier: Apache-2.0
"""The tasks of the pools. Each imports what it needs. A forked worker has the packages already; a new
process must import them."""

ITEMS = {"detrend": 50, "products600": 40, "products64": 100, "lightgbm": 4}


def detrend(_):
    """The function of ObsPy's notes on parallel processing."""
    import obspy

    stream = obspy.read()
    # Uses problematic BLAS function.
    stream.detrend("linear")
    return [trace.data for trace in stream]


def matrix(order, seed=1):
    import numpy as np

    return np.random.default_rng(seed).random((order, order))


def products600(seed):
    a = matrix(600, seed)
    return (a @ a).sum()


def products64(seed):
    """Products that are too small for more than one thread."""
    a = matrix(64, seed)
    for _ in range(100):
        b = a @ a
    return b.sum()


def lightgbm(seed):
    """Trains with OpenMP's own number of threads. LGBMRegressor would set the number, whatever the
    environment says."""
    import lightgbm
    import numpy as np

    data = np.random.default_rng(seed).standard_normal((2000, 20))
    return lightgbm.train({"verbose": -1}, lightgbm.Dataset(data, data[:, 0]), 5).predict(data[:9])
