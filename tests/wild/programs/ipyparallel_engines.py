# SPDX-License-Identifier: Apache-2.0
"""IPython Parallel: each of two engines forks while one of its threads is inside a @ a."""
import ipyparallel

import wild


def fork_in_engine():
    import numpy as np

    import wild

    a = np.random.default_rng(1).standard_normal((400, 400))
    with wild.in_flight(lambda: a @ a):
        wild.fork_and_compare(lambda: a @ a)
    return wild.forks


if __name__ == "__main__":
    # The cluster counts an engine as started at its next heartbeat. The default period is 3 s.
    heartbeat = ["--HeartMonitor.period=1000"]
    with ipyparallel.Cluster(n=2, controller_args=heartbeat) as engines:
        for forks in engines[:].apply_sync(fork_in_engine):
            wild.forked_well(forks)
